"""What a run that took too long did not get done, and how it is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ...config.deadline import Deadline
from ...config.settings import SETTINGS
from ...journal.events import event
from ...own import own_builtins
from ...protocol.endings import count
from ...system.source_lines import showable
from .accounting import Accounting
from .reporting import first_rows

if TYPE_CHECKING:
    from ...journal.recorder import Recorder

own_builtins(globals())

_NAMED = 50
"""Tests that the terminal names; the journal has all of them."""


class Unfinished:
    """Plugin of the process that owns the terminal, in a run that has a time limit."""

    def __init__(
        self,
        config: pytest.Config,
        deadline: Deadline,
        accounting: Accounting,
        recorder: Recorder | None,
    ) -> None:
        self._config = config
        self._deadline = deadline
        self._accounting = accounting
        self._recorder = recorder
        self._timed_out = False
        self._left: list[tuple[str, bool]] = []

    # Within the wrappers of those that wait for the last verdicts, before the journal's end.
    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus != pytest.ExitCode.INTERRUPTED or not self._deadline.is_over:
            return
        self._timed_out = True
        self._left = self._accounting.unfinished()
        if self._recorder is not None:
            self._recorder.add(
                event(
                    "session_timeout",
                    seconds=self._deadline.seconds,
                    interrupted=[nodeid for nodeid, begun in self._left if begun],
                    unstarted=[nodeid for nodeid, begun in self._left if not begun],
                )
            )

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._timed_out:
            return
        terminalreporter.section(self._deadline.reason)
        if not self._left:
            known = self._accounting.knows_tests
            text = "each test has its verdict" if known else "no test had been collected"
            terminalreporter.line(text)
            return
        for begun, title in ((True, "interrupted"), (False, "not begun")):
            tests = [nodeid for nodeid, each in self._left if each == begun]
            if tests:
                terminalreporter.line(f"{count(len(tests), 'test')} {title}:")
            for row in first_rows(tests, _NAMED):
                terminalreporter.line(f"  {showable(row)}")
        terminalreporter.line(self._advice())

    def _advice(self) -> str:
        journal = self._config.stash[SETTINGS].journal
        if journal is None:
            return "a run with --fkit-journal=PATH can be resumed, by --fkit-resume=PATH"
        return f"--fkit-resume={journal} runs these tests"
