"""A process forked from the keeper: holds wide fixtures and forks tests, or runs them itself."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Callable, NoReturn

import pytest

from .. import private_api, system
from ..messages import (
    Began,
    Begins,
    ChildExited,
    Completed,
    Finish,
    Forked,
    HostDone,
    Leaves,
    NotCollected,
    Release,
    Run,
    RunTogether,
    SharedProcess,
    WideSetUp,
)
from ..wire import Unpacker, carriable
from . import finalizers
from .child import LEAVES, Child, run_protocol
from .copies import fork
from .descriptors import ERR, Files, Link, read_from
from .equipment import TestProcess
from .progress import Progress
from .relay import CHANNEL_LOST


class Host:
    """Serves the keeper until it says Finish or is gone.

    :param item_at: the item at a position, None where there is none.
    :param absence: says why there is none where one was asked for.
    """

    def __init__(
        self,
        session: pytest.Session,
        process: TestProcess,
        item_at: Callable[[int], pytest.Item | None],
        absence: str = "",
    ) -> None:
        self._session = session
        self._item = item_at
        self._absence = absence
        self._relay = process.relay
        self._fixtures = process.fixtures
        self._output = process.output
        self._measuring = process.measuring
        self._child = Child(session, process)
        self._last: pytest.Item | None = None
        self._ran_tests = False

    def main(self, link: Link, files: Files, progress: Progress, keeper: int) -> NoReturn:
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
            self._progress = progress
            self._serve()
            status = 0
        except BaseException:  # noqa: BLE001 (nothing may return into the keeper's code)
            with contextlib.suppress(OSError):
                os.write(ERR, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            os._exit(status)

    def serve_here(self, link: Link) -> None:
        """As :meth:`main`, in a fresh interpreter, which goes on afterwards."""
        self._relay.open()
        self._output.enter_process()
        self._link = link
        self._serve()

    def _serve(self) -> None:
        while True:
            message = self._link.receive()
            if message is None:
                return
            retire = False
            if isinstance(message, Run):
                self._run(message)
                # What keeps it from forking has gone, and with it the reason to run tests itself.
                forks_again = not message.share and not self._fixtures.unforkable
                retire = self._ran_tests and (forks_again or self._broken())
            elif isinstance(message, RunTogether):
                self._run_together(message)
                retire = self._broken()
            elif isinstance(message, Release):
                self._tear_down(self._item(message.next_position))
            elif isinstance(message, Finish):
                self._tear_down(None)
                finalizers.run_own()
                self._link.send(HostDone())
                return
            self._link.send(HostDone(retire))

    def _broken(self) -> bool:
        """Whether a test that ran in this process left it unfit for another.

        It leaves at once if it can't report any more.
        """
        if self._relay.lost:
            os._exit(CHANNEL_LOST)
        return not self._output.is_whole()

    def _run_together(self, order: RunTogether) -> None:
        session = self._session
        session.testsfailed = Run(*order.runs[0]).tests_failed
        try:
            for fields in order.runs:
                run = Run(*fields)
                self._progress.begin()
                self._relay.send(Begins(run.position))
                self._run(run._replace(tests_failed=session.testsfailed), together=True)
                if self._relay.interrupted or session.shouldfail or session.shouldstop:
                    return
                if self._broken():
                    return
        except KeyboardInterrupt as error:  # between two tests
            self._relay.interrupt(error)

    def _run(self, run: Run, together: bool = False) -> None:
        item = self._item(run.position)
        if item is None:
            self._relay.open()
            self._relay.send(NotCollected(carriable(self._absence)))
            self._relay.send(Completed())
            return
        nextitem = self._item(run.next_position)
        self._session.testsfailed = run.tests_failed
        self._last = item
        private_api.set_location(item, run.location)
        try:
            if run.share or self._ran_tests:
                if not together:
                    self._link.send(Began("test"))
                self._run_here(item, nextitem, 0.0)
            else:
                self._run_in_children(item, nextitem)
                self._tear_down(nextitem)
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._relay.interrupt(error)
        private_api.forget_request(item)

    def _run_in_children(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        refused: set[str] = set()
        seconds = 0.0
        while True:
            files = Files.create()
            try:
                left = self._fork(item, nextitem, files, refused, seconds)
            finally:
                files.close()
            if left is None:
                return
            if left.unsafe:
                self._fixtures.blame(left.unsafe)
                self._link.send(Began("test"))
                self._run_here(item, nextitem, seconds, left.unsafe)
                return
            refused.add(left.argname)
            self._link.send(Began("setup"))
            seconds += self._fixtures.set_up(item, left.argname)
            self._link.send(WideSetUp())
            if self._link.receive() is None:
                raise ConnectionError("the keeper is gone")
            self._measuring.send()
            if self._fixtures.unforkable:
                self._link.send(Began("test"))
                self._run_here(item, nextitem, seconds)
                return

    def _run_here(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        wide_setup_seconds: float,
        cause: str = "",
    ) -> None:
        """Run the test in this process, which forks no test from now on.

        :param cause: what keeps the test from being forked, where no wide fixture is to blame.
        """
        self._ran_tests = True
        self._relay.open(wide_setup_seconds)
        cause = self._fixtures.unforkable or cause
        if cause:
            self._relay.send(SharedProcess(carriable(cause)))
        run_protocol(item, nextitem, self._relay)
        self._measuring.send()
        self._relay.send(Completed())

    def _fork(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        files: Files,
        refused: set[str],
        seconds: float,
    ) -> Leaves | None:
        """Run one child to its end.

        :return: what it left for, None if it ran the test.
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
        left = _left_for(files) if status == LEAVES << 8 else None
        self._link.send(ChildExited(pid, status, left is not None))
        return left

    def _tear_down(self, nextitem: pytest.Item | None) -> None:
        if self._last is None:
            return
        if private_api.needs_tear_down(self._session, nextitem):
            self._link.send(Began("teardown"))
        try:
            if self._fixtures.tear_down(self._last, nextitem):
                self._measuring.send()
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._relay.interrupt(error)


def _left_for(files: Files) -> Leaves | None:
    last = None
    for message in Unpacker().feed(read_from(files.events)):
        last = message
    return last if isinstance(last, Leaves) else None
