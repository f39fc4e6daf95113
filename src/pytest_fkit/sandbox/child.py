"""A process forked from the host that runs one test and is gone."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import pytest

from .. import private_api, system
from ..interruptions import interruption
from ..messages import Completed, Leaves
from . import finalizers
from .descriptors import Files
from .equipment import TestProcess
from .relay import Relay

LEAVES = 83
"""Exit status of a child that left a Leaves frame."""


def run_protocol(item: pytest.Item, nextitem: pytest.Item | None, relay: Relay) -> None:
    """Run the whole pytest_runtest_protocol chain; what would stop the run is relayed.

    :raises pytest.exit.Exception: only where the relay is muted, that is, in a child that leaves.
    """
    try:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
    except BaseException as error:
        if relay.muted:
            raise
        relay.send(interruption(error))


class Child:
    """What the new process needs, put together in the host before the fork."""

    def __init__(self, session: pytest.Session, process: TestProcess) -> None:
        self._session = session
        self._relay = process.relay
        self._fixtures = process.fixtures
        self._output = process.output
        self._measuring = process.measuring
        self._states = process.states

    def main(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        files: Files,
        host: int,
        refused: set[str],
        wide_setup_seconds: float,
    ) -> NoReturn:
        """Run the test; called in the new process.

        :param host: pid of the host.
        :param refused: see :meth:`WideFixtures.enter_child`.
        :param wide_setup_seconds: see :meth:`Relay.open`.
        """
        status = 70  # EX_SOFTWARE, for errors in the lines below
        try:
            os.setsid()
            system.die_with_parent(host)
            system.be_first_for_oom_killer()
            files.install()
            self._relay.open(wide_setup_seconds)
            self._output.enter_process()
            finalizers.forget_inherited()
            self._fixtures.enter_child(refused, item, self._leave_at_once)
            status = self._run(item, nextitem)
        except BaseException:  # noqa: BLE001 (nothing may return into the host's code)
            sys.excepthook(*sys.exc_info())
        finally:
            _flush()
            os._exit(0 if self._relay.is_copy() else status)

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None) -> int:
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
        return self._relay.lost

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


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # replaced, broken or closed by the test
            continue
