"""Copies of a test process that the test itself forked and that come back into pytest."""

from __future__ import annotations

import sys
from typing import Generator

import pytest

from ...own import gc, no_warnings, os, own_builtins
from ...system.limits import insist
from .relay import Relay

own_builtins(globals())


def fork() -> int:
    """os.fork(), of which nobody hears: the suite did not ask for it.

    In both processes it is lost what handlers of forks warn of, and raise. Python's own warning of
    threads, since 3.12, too: we know about them, or have looked.
    """
    collects = gc.isenabled()
    gc.disable()  # what is raised where garbage is collected is no handler's
    hook, sys.unraisablehook = sys.unraisablehook, _say_nothing
    try:
        with no_warnings():
            return insist(os.fork)
    finally:
        sys.unraisablehook = hook
        if collects:
            gc.enable()


def _say_nothing(unraisable: object) -> None:
    del unraisable


class Copies:
    """Plugin: ends a copy as soon as the code of the test or of a fixture returns.

    Otherwise it would run the fixtures' finalizers a second time, and report.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

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

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_pyfunc_call(self) -> Generator[None, object, object]:
        """Around the test function."""
        __tracebackhide__ = True
        return (yield from self._end_copy())

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_fixture_setup(self) -> Generator[None, object, object]:
        """Around a fixture function, up to its yield."""
        __tracebackhide__ = True
        return (yield from self._end_copy())

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_post_finalizer(self) -> None:
        """After the finalizers of one fixture, before those of the next."""
        if self._relay.is_copy():
            os._exit(0)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        """Around everything else that sets a test up."""
        __tracebackhide__ = True
        return (yield from self._end_copy())

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Around items that are no functions."""
        __tracebackhide__ = True
        return (yield from self._end_copy())

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Around finalizers."""
        __tracebackhide__ = True
        return (yield from self._end_copy())
