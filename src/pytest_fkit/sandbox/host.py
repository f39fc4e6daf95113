"""A process forked from the keeper: holds wide fixtures and forks tests, or runs them itself."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Callable, NoReturn

import pytest

from .. import private_api, system
from ..interruptions import interruption
from ..messages import (
    Began,
    ChildExited,
    Completed,
    Finish,
    Forked,
    HostDone,
    Leaves,
    Release,
    Run,
    SharedProcess,
    WideSetUp,
)
from ..wire import Unpacker, carriable
from . import finalizers
from .child import LEAVES, Child, run_protocol
from .copies import fork
from .descriptors import ERR, Files, Link, read_from
from .equipment import TestProcess


class Host:
    """Serves the keeper until it says Finish or is gone.

    :param item_at: the item at a position, None where there is none.
    """

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
        self._child = Child(session, process)
        self._last: pytest.Item | None = None
        self._ran_tests = False

    def main(self, link: Link, files: Files, keeper: int) -> NoReturn:
        """Called in the new process."""
        status = 70  # EX_SOFTWARE
        try:
            os.setsid()
            system.die_with_parent(keeper)
            files.install()
            self._relay.open()
            self._output.enter_process()
            finalizers.forget_inherited()
            self._link = link
            self._serve()
            status = 0
        except BaseException:  # noqa: BLE001 (nothing may return into the keeper's code)
            with contextlib.suppress(OSError):
                os.write(ERR, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            os._exit(status)

    def serve_here(self, link: Link) -> None:
        """As :meth:`main`, in a process that is a fresh interpreter, and goes on afterwards."""
        self._relay.open()
        self._output.enter_process()
        self._link = link
        self._serve()

    def _serve(self) -> None:
        while True:
            message = self._link.receive()
            if message is None:
                return
            if isinstance(message, Run):
                self._run(message)
                # What keeps it from forking has gone, and with it the reason to run tests itself.
                retire = not message.share and self._ran_tests and not self._fixtures.unforkable
                self._link.send(HostDone(retire))
                continue
            if isinstance(message, Release):
                self._tear_down(self._item(message.next_position))
            elif isinstance(message, Finish):
                self._tear_down(None)
                finalizers.run_own()
                self._link.send(HostDone())
                return
            self._link.send(HostDone())

    def _run(self, run: Run) -> None:
        item = self._item(run.position)
        if item is None:
            raise LookupError(f"the fresh interpreter did not collect test {run.position}")
        nextitem = self._item(run.next_position)
        self._session.testsfailed = run.tests_failed
        self._last = item
        private_api.set_location(item, run.location)
        if self._reruns is not None:
            self._reruns.begin(run)
        try:
            if run.share or self._ran_tests:
                self._run_here(item, nextitem, 0.0)
            else:
                self._run_in_children(item, nextitem)
                self._tear_down(nextitem)
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._relay.send(interruption(error))
        private_api.forget_request(item)

    def _run_in_children(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        refused: set[str] = set()
        seconds = 0.0
        while True:
            files = Files.create()
            try:
                argname = self._fork(item, nextitem, files, refused, seconds)
            finally:
                files.close()
            if argname is None:
                return
            refused.add(argname)
            self._link.send(Began("setup"))
            seconds += self._fixtures.set_up(item, argname)
            self._link.send(WideSetUp())
            if self._link.receive() is None:
                raise ConnectionError("the keeper is gone")
            self._measuring.send()
            if self._fixtures.unforkable:
                self._run_here(item, nextitem, seconds)
                return

    def _run_here(
        self, item: pytest.Item, nextitem: pytest.Item | None, wide_setup_seconds: float
    ) -> None:
        """Run the test in this process, which forks no test from now on."""
        self._ran_tests = True
        self._link.send(Began("test"))
        self._relay.open(wide_setup_seconds)
        if self._fixtures.unforkable:
            self._relay.send(SharedProcess(carriable(self._fixtures.unforkable)))
        run_protocol(item, nextitem, self._relay)
        self._measuring.send()
        self._states.send()
        self._relay.send(Completed())
        if self._relay.lost:
            os._exit(self._relay.lost)  # nobody would hear of this test, nor of those after it

    def _fork(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        files: Files,
        refused: set[str],
        seconds: float,
    ) -> str | None:
        """Run one child to its end.

        :return: the wide fixture that it left for, None if it ran the test.
        """
        host = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = fork()
        if pid == 0:
            os.close(self._link.fileno())
            self._child.main(item, nextitem, files, host, refused, seconds)
        self._link.send(Forked(pid), files)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            # A fixture made the kernel reap our children (SIGCHLD ignored); the frames decide.
            status = 0
        argname = _left_for(files) if status == LEAVES << 8 else None
        self._link.send(ChildExited(pid, status, argname is not None))
        return argname

    def _tear_down(self, nextitem: pytest.Item | None) -> None:
        if self._last is None:
            return
        if private_api.needs_tear_down(self._session, nextitem):
            self._link.send(Began("teardown"))
        try:
            if self._fixtures.tear_down(self._last, nextitem):
                self._measuring.send()
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._relay.send(interruption(error))


def _left_for(files: Files) -> str | None:
    last = None
    for message in Unpacker().feed(read_from(files.events)):
        last = message
    return last.argname if isinstance(last, Leaves) else None
