"""A process forked from the keeper: holds wide fixtures and forks tests, or runs them itself."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import NoReturn

import pytest

from .. import private_api, system
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
)
from ..wire import Unpacker
from . import finalizers
from .child import LEAVES, Child, run_protocol
from .copies import fork
from .descriptors import ERR, Files, Link, read_from
from .fixtures import WideFixtures
from .output import OutputPolicy
from .relay import Relay, interruption


class Host:
    """Serves the keeper until it says Finish or is gone.

    :param broken: see :class:`WideFixtures`.
    """

    def __init__(self, session: pytest.Session, relay: Relay, fixtures: WideFixtures) -> None:
        self._session = session
        self._relay = relay
        self._fixtures = fixtures
        self._child = Child(session, relay, fixtures)
        self._last: pytest.Item | None = None

    def main(self, link: Link, files: Files, keeper: int) -> NoReturn:
        """Called in the new process."""
        status = 70  # EX_SOFTWARE
        try:
            os.setsid()
            system.die_with_parent(keeper)
            files.install()
            self._relay.open()
            OutputPolicy(self._session.config).enter_process()
            finalizers.forget_inherited()
            self._link = link
            self._serve()
            status = 0
        except BaseException:  # noqa: BLE001 (nothing may return into the keeper's code)
            with contextlib.suppress(OSError):
                os.write(ERR, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            os._exit(status)

    def _serve(self) -> None:
        while True:
            message = self._link.receive()
            if message is None:
                return
            if isinstance(message, Run):
                self._run(message)
            elif isinstance(message, Release):
                self._tear_down(self._item(message.next_position))
            elif isinstance(message, Finish):
                self._tear_down(None)
                finalizers.run_own()
                self._link.send(HostDone())
                return
            self._link.send(HostDone())

    def _item(self, index: int) -> pytest.Item | None:
        return self._session.items[index] if index >= 0 else None

    def _run(self, run: Run) -> None:
        item = self._session.items[run.position]
        nextitem = self._item(run.next_position)
        self._session.testsfailed = run.tests_failed
        self._last = item
        private_api.set_location(item, run.location)
        try:
            if run.share:
                self._link.send(Began("test"))
                self._relay.open()
                run_protocol(item, nextitem, self._relay)
                self._relay.send(Completed())
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
            self._fixtures.tear_down(self._last, nextitem)
        except (pytest.exit.Exception, KeyboardInterrupt) as error:
            self._relay.send(interruption(error))


def _left_for(files: Files) -> str | None:
    last = None
    for message in Unpacker().feed(read_from(files.events)):
        last = message
    return last.argname if isinstance(last, Leaves) else None
