"""Copies of a test process that the test itself forked and that come back into pytest."""

from __future__ import annotations

import sys
from typing import Generator

import pytest

from ..own import os, own_builtins, warnings
from ..system.limits import PROCESSES, room
from .relay import Relay

own_builtins(globals())


def fork() -> int:
    """os.fork() without Python 3.12's warning on threads, which we know about or have checked."""
    with room(PROCESSES):
        if sys.version_info >= (3, 12):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return os.fork()
        return os.fork()


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
