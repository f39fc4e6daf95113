"""The fresh interpreter that is warmed up in the background, for the next test that needs one."""

from __future__ import annotations

from typing import Callable

from ...own import own_builtins, suppress
from ...protocol.messages import Finish, Ready, Run
from ...protocol.process_names import SPAWNED
from ..process.tree import kill_tree
from .jobs import HostProcess, Start
from .supervisor import TERM_GRACE, Supervisor

own_builtins(globals())


class Spare:
    """There is one at most: it takes the place of a host that dies, or is the next module's.

    :param fork: starts a host.
    """

    def __init__(self, below: Supervisor, fork: Callable[[Start], HostProcess]) -> None:
        self._below = below
        self._fork = fork

    def warm(self, run: Run) -> None:
        """While a test runs: have ready what the test after it will need, if this one dies, too."""
        waiting = self._waiting(run.next_share, run.next_environ)
        for host in self._below.spares:
            if host is not waiting:
                self._let_go(host)
        if waiting is None and run.next_share.startswith(SPAWNED):
            start = Start(run.next_share, run.next_position, spare=True, environ=run.next_environ)
            with suppress(OSError):  # a limit; where it still is one, the next test will say so
                self._below.spares.append(self._fork(start))

    def take(self, run: Run) -> HostProcess | None:
        """The spare, if it is for this test; it may still be on its way."""
        host = self._waiting(run.share, run.environ)
        if host is not None:
            self._below.spares.remove(host)
            self._below.orphans.note_daemons(host)
        return host

    def end(self) -> None:
        """Let go of it, and wait until it is gone."""
        for host in self._below.spares:
            self._let_go(host)
        if not self._below.until(lambda: not self._below.spares, TERM_GRACE):
            for host in self._below.spares:
                kill_tree(host.pid)
            self._below.until(lambda: not self._below.spares, TERM_GRACE)

    def _waiting(self, share: str, environ: tuple[tuple[str, str], ...]) -> HostProcess | None:
        found = (
            host
            for host in self._below.spares
            if not host.retire and (host.share, host.environ) == (share, environ)
        )
        return next(found, None)

    def _let_go(self, host: HostProcess) -> None:
        """End it: in order, for what its session hooks began, if it has come so far."""
        if host.retire:
            return
        host.retire = True
        if host.link.is_readable(0.0) and host.link.read():
            ready = any(isinstance(message, Ready) for message in host.link.take_messages())
            with suppress(OSError):  # it is dead
                if ready:
                    host.link.send(Finish(0.0))
                    return
        kill_tree(host.pid)
