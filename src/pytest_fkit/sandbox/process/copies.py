"""Forks of our own, the SIGCHLD of their ends, and forks by a test that return into pytest."""

from __future__ import annotations

import errno
import sys
from typing import Any, Callable, Generator, Iterable, TypeVar

import pytest

from ... import system
from ...own import gc, no_warnings, os, own_builtins, signal, suppress
from ...system.limits import insist
from .relay import Relay

own_builtins(globals())

T = TypeVar("T")


class ForkForbiddenError(PermissionError):
    """An audit hook of the suite, which stays for good, forbids forks of this process, or what
    they need.
    """


def heeding_audit_hooks(call: Callable[[], T]) -> T:
    """Call the kernel.

    :raises OSError: if the kernel refuses.
    :raises ForkForbiddenError: if an audit hook does, by an exception of any kind.
    """
    try:
        return call()
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        raise ForkForbiddenError(errno.EPERM, forbidden(error)) from error


def forbidden(error: Exception) -> str:
    """What an audit hook raised, in words."""
    return f"an audit hook forbids forks: {type(error).__name__}: {error}"


def fork() -> int:
    """os.fork() without the warnings and errors of at-fork handlers: the suite did not ask for it.

    They are dropped in both processes, and so is Python's warning of other threads, since 3.12:
    callers know about these threads, or have checked that there are none.

    :raises OSError: if the kernel refuses.
    :raises ForkForbiddenError: if an audit hook does.
    """
    collects = gc.isenabled()
    gc.disable()  # errors of finalizers would be dropped along with those of the handlers
    # A suite may have deleted it, which is as Python's own.
    hook = getattr(sys, "unraisablehook", sys.__unraisablehook__)
    sys.unraisablehook = _ignore
    try:
        with no_warnings():
            pid: int = insist(heeding_audit_hooks, os.fork)
            return pid
    finally:
        sys.unraisablehook = hook
        if collects:
            gc.enable()


def _ignore(unraisable: object) -> None:
    del unraisable


class Copies:
    """Plugin: ends a process that a test or fixture forked once it returns from their code.

    Otherwise it would run the fixtures' finalizers a second time, and report.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    # One function for all hooks: a test's process has to copy the pages of each that it calls.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def _end_copy(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        status = 1
        try:
            result = yield
            status = 0
            return result
        finally:
            if self._relay.is_copy():
                os._exit(status)

    pytest_pyfunc_call = _end_copy  # the test function
    pytest_fixture_setup = _end_copy  # a fixture function, up to its yield
    pytest_runtest_setup = _end_copy  # everything else that sets a test up
    pytest_runtest_call = _end_copy  # items that are not functions
    pytest_runtest_teardown = _end_copy  # finalizers

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_post_finalizer(self) -> None:
        """Run after the finalizers of one fixture, before those of the next."""
        if self._relay.is_copy():
            os._exit(0)


class Statuses:
    """Context manager: has SIGCHLD handled by default while children of ours end.

    A handler of the suite would hear of them, and may reap them, or raise. Where the suite ignores
    the signal, the kernel discards statuses, see waitpid(2). Within the block no code of the suite
    runs in this process; forked tests find SIGCHLD as the suite left it, by :meth:`leave`.

    :param ours: returns pids of children of ours that may have ended, but are not reaped.
    :param report: called with what a handler raises that is told, after the block, of a process of
        the suite's own that has ended; without it that is raised.
    :param drops_interrupts: whether SIGINT has no effect within the block. A test may send it to
        its parent; a stop of the run interrupts the test, and not the process that waits for it.
    """

    def __init__(
        self,
        ours: Callable[[], Iterable[int]] = tuple,
        report: Callable[[Exception], None] | None = None,
        *,
        drops_interrupts: bool = False,
    ) -> None:
        self._ours = ours
        self._report = report
        self._drops_interrupts = drops_interrupts
        self.mask: Any = None
        """The signals that were blocked before, while SIGINT is."""
        self._handler: Any = None  # the suite's
        self._ended: set[int] = set()
        self.are_kept = False
        """Whether the suite handles SIGCHLD in a way of its own, which is put off."""

    def __enter__(self) -> None:
        if self._drops_interrupts and self.mask is None:
            self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        handler = signal.getsignal(signal.SIGCHLD)
        # Compared by identity: it may be an object of the suite. None: it is not Python's.
        if handler is None or handler is signal.SIG_DFL:
            return
        with suppress(ValueError):  # not in the main thread, where no handler runs
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._handler, self.are_kept = handler, True
            self._ended = self._processes_that_ended()

    def __exit__(self, *error: object) -> None:
        self.drop_interrupts()
        if not self.are_kept:
            return
        missed = self._processes_that_ended() - self._ended
        self.leave()
        if missed:
            try:
                os.kill(os.getpid(), signal.SIGCHLD)
                os.getpid()  # before Python 3.9 handlers run a little later
            except Exception as raised:
                if self._report is None:
                    raise
                self._report(raised)

    def drop_interrupts(self) -> None:
        """Let SIGINT have its effect again, but for one that has come."""
        if self.mask is None:
            return
        if signal.SIGINT not in self.mask and signal.SIGINT in signal.sigpending():
            signal.sigwait((signal.SIGINT,))
        self.unblock_interrupts()

    def unblock_interrupts(self) -> None:
        """Let SIGINT have its effect again, and one that has come, too; called in new children."""
        if self.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
            self.mask = None

    def leave(self) -> None:
        """Have the suite's handler back; called in new children, too."""
        if self.are_kept:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # drops one that is blocked
            signal.signal(signal.SIGCHLD, self._handler)
            self._handler, self.are_kept = None, False

    def _processes_that_ended(self) -> set[int]:
        """Children that a handler would be told of, and that are not ours."""
        if self._handler is signal.SIG_IGN:
            return set()
        found = set(system.children(os.getpid())).difference(self._ours())
        return {pid for pid in found if system.process_state(pid) == "Z"}
