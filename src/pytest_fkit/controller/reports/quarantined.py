"""Failures of quarantined tests: shown and counted, but the run does not fail for them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Iterator, Sequence

import pytest

from ...config.settings import FOR_FRESH
from ...journal.attempts import kept
from ...journal.causes import LOST, Cause, cause
from ...journal.history import ungrouped
from ...journal.quarantine import (
    QUARANTINE_TOLD,
    SKIP,
    KnownFailure,
    Quarantine,
    QuarantineError,
    parse,
)
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, time
from ...protocol.endings import count
from ...protocol.event_file import Quarantined, add_facts, facts_of
from ...system.paths import read_text
from ...worker.tests.skipping import skip

if TYPE_CHECKING:
    from pathlib import Path

    from xdist.workermanage import WorkerController

own_builtins(globals())

_NAMED = 5
"""Entries that are about no test; a part of a suite leaves many."""


def entries_of(path: Path) -> list[KnownFailure]:
    """The entries of a quarantine.

    :raises pytest.UsageError: if it can't be read, or is none.
    """
    try:
        return parse(read_text(str(path)))
    except OSError as error:
        text = f"{path}: {error.strerror}"
    except QuarantineError as error:
        text = f"{path}: {error}"
    raise pytest.UsageError(f"pytest-fkit: --fkit-quarantine: {text}")


class Row(NamedTuple):
    nodeid: str
    what: str
    reason: str


class QuarantinedTests:
    """Plugin of the process that owns the terminal.

    Reports go through :meth:`check` before journal, accounting and plugins have them. Registered
    before :class:`.reporting.Reporting`, so that it hears of dead workers after that.
    """

    def __init__(self, config: pytest.Config, entries: Sequence[KnownFailure]) -> None:
        today = datetime.date.fromtimestamp(time.time())
        self._config = config
        self._expired = [entry for entry in entries if entry.is_expired(today)]
        self._entries = [entry for entry in entries if not entry.is_expired(today)]
        self._run = {"options": {"dist": config.getoption("dist", "no")}}
        self._nodeids: set[str] = set()
        self._quarantine: Quarantine | None = None
        self._failed: set[tuple[str, str]] = set()
        self.rows: list[Row] = []
        """Quarantined tests that failed."""
        self._session: pytest.Session | None = None
        self._maxfail = 0
        self._pid = os.getpid()
        config.stash[FOR_FRESH] = {QUARANTINE_TOLD: [tuple(entry) for entry in self._entries]}

    # --- at -n0 ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Count failures for ``-x`` here: test processes don't know which ones don't count."""
        if not self._config.pluginmanager.hasplugin("dsession"):
            self._session, option = session, self._config.option
            self._maxfail, option.maxfail = option.maxfail, 0

    def _stop_if_enough(self) -> None:
        session = self._session
        if session is None or os.getpid() != self._pid:  # a test process, which is a copy
            return
        if self._maxfail and session.testsfailed >= self._maxfail:
            session.shouldfail = f"stopping after {session.testsfailed} failures"

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self) -> None:
        self._stop_if_enough()

    @pytest.hookimpl(trylast=True)
    def pytest_collectreport(self) -> None:
        self._stop_if_enough()

    # --- which tests there are ---

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[QUARANTINE_TOLD] = [tuple(entry) for entry in self._entries]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        skip(items, self._entries)
        self._know(item.nodeid for item in items)

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._know(ids)

    def _know(self, nodeids: Iterator[str] | Sequence[str]) -> None:
        known = len(self._nodeids)
        self._nodeids |= {ungrouped(str(nodeid), self._run) for nodeid in nodeids}
        if len(self._nodeids) != known:
            self._quarantine = None

    def _found(self) -> Quarantine:
        if self._quarantine is None:
            self._quarantine = Quarantine(self._entries, self._nodeids)
        return self._quarantine

    # --- their reports ---

    def check(self, report: pytest.TestReport) -> None:
        entry, found = self._about(report)
        if entry is not None:
            self._change(report, entry, str(kept(report).get("text", "")), found.title)

    def is_known(self, report: pytest.TestReport) -> bool:
        return self._about(report)[0] is not None

    def _about(self, report: pytest.TestReport) -> tuple[KnownFailure | None, Cause]:
        """The entry that its failure is quarantined by, if there is one, and what it is."""
        if not report.failed:
            return None, LOST
        entries = self._found().about(ungrouped(report.nodeid, self._run))
        found = cause([kept(report)]) or LOST if entries else LOST
        entry = next((entry for entry in entries if entry.has_cause(found)), None)
        return (None if entry is None or entry.mode == SKIP else entry), found

    def _change(
        self, report: pytest.TestReport, entry: KnownFailure, text: str, title: str
    ) -> None:
        what = facts_of(report).death or title
        message = str(kept(report).get("message", "")) or what
        add_facts(vars(report), quarantined=Quarantined(entry.reason, text, message))
        path, line, _ = report.location
        report.longrepr = (path, 0 if line is None else line + 1, f"{entry.reason}: {what}")
        # One element of the JUnit file: what a teardown adds to a failure is in its report alone.
        key = report.nodeid, str(getattr(report, "worker_id", ""))
        again = key in self._failed and report.when == "teardown"
        self._failed.add(key)
        report.outcome = "passed" if again else "skipped"
        if again:
            report.longrepr = None
        report.sections.append((f"Quarantined failure in {report.when}", text))
        if not hasattr(report, "context"):  # of a subtest
            self.rows.append(Row(report.nodeid, what, entry.reason))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        self.check(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        if facts_of(report).quarantined is None:
            return None
        if report.passed or hasattr(report, "context"):
            return "", "", ""
        return "quarantined", "q", "QUARANTINED"

    # --- the end ---

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = list(self._lines())
        if lines:
            terminalreporter.section("pytest-fkit: quarantine")
            for line in lines:
                terminalreporter.line(line)

    def _lines(self) -> Iterator[str]:
        if self.rows:
            number = len({row.nodeid for row in self.rows})
            yield f"{count(number, 'test')} failed without failing the run:"
            yield from (f"  {'  '.join(row)}" for row in self.rows)
        if self._expired:
            yield "expired, and without effect:"
            yield from (f"  {entry.test}  {entry.expires}" for entry in self._expired)
        unused = self._found().unused if self._nodeids else []
        if unused:
            yield "matching no test of this run:"
            yield from (f"  {entry.test}" for entry in unused[:_NAMED])
            if len(unused) > _NAMED:
                yield f"  and {len(unused) - _NAMED} more"
