"""Forks of our own, and forks by a test that return into pytest."""

from __future__ import annotations

import errno
import sys
from typing import Callable, Generator, TypeVar

import pytest

from ...own import gc, no_warnings, os, own_builtins
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
    hook, sys.unraisablehook = sys.unraisablehook, _ignore
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
