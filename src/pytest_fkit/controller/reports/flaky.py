"""pytest-rerunfailures' ``--fail-on-flaky`` with workers: in the controller it sees no tests."""

from __future__ import annotations

from typing import Any

import pytest

from ...own import own_builtins

own_builtins(globals())

_FLAKY = 7
"""Exit status of a run whose failures all passed when they were run again; the plugin's own."""


class FailOnFlaky:
    """Plugin of the controller, where that option is given."""

    def __init__(self) -> None:
        self._flaky = False

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take note of tests that needed another attempt."""
        self._flaky = self._flaky or getattr(report, "rerun", 0) > 0

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """As the plugin does without workers."""
        if self._flaky and exitstatus == 0:
            session.exitstatus = _FLAKY
