"""A process forked from the host that runs one test and is gone."""

from __future__ import annotations

import os
import sys
from typing import Callable, NamedTuple, NoReturn

import pytest

from .. import private_api, system
from ..gpu.runtime import in_bad_fork
from ..messages import Completed, Go, Leaves
from ..wire import Unpacker
from . import finalizers
from .descriptors import Files
from .equipment import TestProcess
from .relay import Relay

LEAVES = 83
"""Exit status of a child that left a Leaves frame."""

STOPS = 84
"""Exit status of a child that finished, and reported what stops the run."""


class Waiting(NamedTuple):
    """The host's view of a child that waits for its order.

    :param orders: a descriptor to which a :class:`Go` is written.
    """

    pid: int
    files: Files
    orders: int


def run_protocol(item: pytest.Item, nextitem: pytest.Item | None, relay: Relay) -> None:
    """Run the whole pytest_runtest_protocol chain; what would stop the run is relayed.

    :raises pytest.exit.Exception: only where the relay is muted, that is, in a child that leaves.
    """
    try:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
    except BaseException as error:
        if relay.muted:
            raise
        relay.interrupt(error)


class Child:
    """What the new process needs, put together in the host before the fork."""

    def __init__(
        self,
        session: pytest.Session,
        process: TestProcess,
        item_at: Callable[[int], pytest.Item | None],
    ) -> None:
        self._session = session
        self._item = item_at
        self._relay = process.relay
        self._fixtures = process.fixtures
        self._output = process.output
        self._measuring = process.measuring
        self._states = process.states
        self._reruns = process.reruns

    def main(self, files: Files, orders: int, host: int) -> NoReturn:
        """Run a test when the host says which; called in the new process.

        :param orders: a descriptor from which a :class:`Go` can be read, or its end.
        :param host: pid of the host.
        """
        status = 70  # EX_SOFTWARE, for errors in the lines below
        try:
            os.setsid()
            system.die_with_parent(host)
            system.be_first_for_oom_killer()
            files.install()
            self._output.enter_process()
            finalizers.forget_inherited()
            self._fixtures.leave_to_host()
            go = _await_order(orders)
            status = 0 if go is None else self._obey(go)
        except BaseException:  # noqa: BLE001 (nothing may return into the host's code)
            sys.excepthook(*sys.exc_info())
        finally:
            _flush()
            os._exit(0 if self._relay.is_copy() else status)

    def _obey(self, go: Go) -> int:
        self._relay.open(go.wide_setup_seconds)
        item = self._item(go.position)
        assert item is not None
        self._session.testsfailed = go.tests_failed
        private_api.set_location(item, go.location)
        if self._reruns is not None:
            self._reruns.begin(go.attempts, go.suite_reruns)
        self._fixtures.enter_child(set(go.refused), item, self._leave_at_once)
        return self._run(item, self._item(go.next_position))

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None) -> int:
        unsafe = in_bad_fork() if self._fixtures.watches else ""
        if unsafe:
            self._relay.send(Leaves("", unsafe))
            return LEAVES
        try:
            run_protocol(item, nextitem, self._relay)
        except pytest.exit.Exception:
            return self._leave()
        self._tear_down_quietly()
        self._measuring.send()
        self._states.send()
        self._relay.enter("exit")
        _flush()
        self._output.enter_exit()
        finalizers.run_own()
        self._relay.send(Completed())
        if self._relay.lost:
            return self._relay.lost
        return STOPS if self._relay.stops else 0

    def _leave(self) -> int:
        leaving = self._fixtures.leaving
        assert leaving is not None
        self._tear_down_quietly()
        finalizers.run_own()
        self._relay.muted = False
        self._relay.send(Leaves(leaving.argname))
        return LEAVES

    def _leave_at_once(self, argname: str) -> NoReturn:
        self._relay.send(Leaves(argname))
        os._exit(LEAVES)

    def _tear_down_quietly(self) -> None:
        # After an interruption something may still be set up; nobody hears of errors here, as in
        # plain pytest, where the terminal is showing the interruption by then.
        try:
            private_api.tear_down(self._session, None)
        except BaseException:  # noqa: BLE001 (see above)
            return


def _await_order(orders: int) -> Go | None:
    """The order; None if the host needs no child any more, or is gone."""
    unpacker = Unpacker()
    while True:
        data = os.read(orders, 1 << 16)
        for message in unpacker.feed(data):
            os.close(orders)
            assert isinstance(message, Go)
            return message
        if not data:
            return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # replaced, broken or closed by the test
            continue
