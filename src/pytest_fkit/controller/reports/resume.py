"""Resumes a run from its journal: tests that have a verdict are reported with it, and not run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Generator, Iterator, Sequence

import pytest

from ...compat.pytest_reports import report_from
from ...journal.added import restored
from ...journal.attempts import KeptReport, facts_again
from ...journal.events import event
from ...journal.files import RUN_LINE
from ...journal.history import TestHistory, history
from ...journal.reader import JournalError, parse, whole_lines
from ...journal.recorder import Recorder
from ...own import own_builtins
from ...protocol.endings import count
from ...protocol.event_file import Location, ReportData, add_facts, facts_of
from ...protocol.plain_values import carriable
from ...worker.reports.deaths import text_with_message
from ...worker.tests.sources import Resumed
from .report_attributes import CommonAttributes

own_builtins(globals())


class Resuming:
    """Plugin of the process that owns the terminal.

    :raises pytest.UsageError: if the other options don't allow it.
    """

    def __init__(self, config: pytest.Config, path: Path, recorder: Recorder) -> None:
        if config.getoption("dist", "no") == "each":
            raise pytest.UsageError(
                "pytest-fkit: --fkit-resume needs one verdict per test, and --dist=each gives "
                "one per worker; leave out --dist=each, or start again with --fkit-journal"
            )
        self._config = config
        self._path = path
        self._recorder = recorder
        self._session: pytest.Session | None = None
        self._collected_here: tuple[list[str], list[str]] | None = None
        self.session = ""
        """The session's id in the journal."""
        self.done: dict[str, int] = {}
        """How many verdicts there are, by node id, which several tests may have."""
        self._tests: Sequence[TestHistory] = ()
        self._planned: Sequence[str] | None = None  # if the journal is empty
        self._found: list[TestHistory] | None = None
        self._gone: list[str] = []
        self._new = 0

    def keep(self, data: bytes) -> int:
        """Read the journal.

        :return: how many of its bytes to keep: all but a torn last line.
        :raises pytest.UsageError: if it can't be resumed.
        """
        whole = whole_lines(data)
        if whole == 0 and data.startswith(RUN_LINE[: len(data)]):
            return 0  # the run was killed while it wrote its first line
        try:
            found = history(parse(data[:whole], str(self._path)))
        except JournalError as error:
            raise pytest.UsageError(f"pytest-fkit: --fkit-resume: {error}") from None
        if len(found.sessions) != 1:
            raise pytest.UsageError(
                f"pytest-fkit: --fkit-resume: {self._path} holds {len(found.sessions)} runs, "
                "merged; resume one of their own journals"
            )
        [session] = found.sessions
        if any(run.get("options", {}).get("dist") == "each" for run in session.runs):
            raise pytest.UsageError(
                f"pytest-fkit: --fkit-resume: {self._path} is of a run with --dist=each, where "
                "each worker had a verdict of its own; start again with --fkit-journal"
            )
        self._tests, self._planned = found.tests, session.planned
        self.done = dict(Counter(test.nodeid for test in self._tests))
        self.session = str(session.runs[0].get("session"))
        return whole

    # After Recording, which reads the journal when it opens it.
    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """If this process collects the tests, have it leave out what is done."""
        self._session = session
        if not self._config.pluginmanager.hasplugin("dsession"):
            self._config.pluginmanager.register(Resumed(self.done, self._note_collection))

    def _note_collection(self, found: list[str], rest: list[str]) -> None:
        self._collected_here = found, rest

    def take_here(self) -> None:
        """Report old verdicts, if this process collected the tests."""
        if self._collected_here is not None:
            self.report(*self._collected_here)

    def report(self, found: Sequence[str], rest: Sequence[str]) -> None:
        """Report old verdicts, when the first worker has collected.

        :param found: node ids that it does not run, since they are done.
        :param rest: the others.
        """
        session = self._session
        assert session is not None
        # For the progress and the exit status, as pytest and xdist set it.
        session.testscollected = len(found) + len(rest)
        if self._found is not None:
            return
        self._found = self._compare(found, rest)
        kept = len(self._found)
        self._recorder.add(event("resume", kept=kept, gone=self._gone, new=self._new))
        # An old failure counts, but does not stop this run: -x is about what it runs.
        before = session.shouldfail
        common = CommonAttributes()
        reports = [list(_reports(self._config, test, common)) for test in self._found]
        for test, its_reports in zip(self._found, reports):
            common.tell(self._config, test.nodeid, _location(test), its_reports)
        session.shouldfail = before

    def _compare(self, found: Sequence[str], rest: Sequence[str]) -> list[TestHistory]:
        """Compare the journal with what a worker collected; the tests to report."""
        wanted = Counter(found)
        tests = []
        for test in self._tests:
            if wanted[test.nodeid]:
                wanted[test.nodeid] -= 1
                tests.append(test)
        self._gone = sorted(self.done.keys() - set(found))
        if self._planned is not None:
            before = {*self._planned, *self.done}
            self._new = sum(nodeid not in before for nodeid in rest)
        return tests

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> Generator[None, pytest.TestShortLogReport, object]:
        result = yield
        if facts_of(report).resumed and result:
            category, letter, word = result
            text, *markup = (word,) if isinstance(word, str) else word
            marked = f"{text} (resumed)" if text else text
            return category, letter, (marked, *markup) if markup else marked
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._found is not None:
            terminalreporter.section("pytest-fkit: resumed")
            for line in self._lines(len(self._found)):
                terminalreporter.line(line)

    def _lines(self, number: int) -> Iterator[str]:
        name = self._path.name
        were, their = ("was", "its verdict is") if number == 1 else ("were", "their verdicts are")
        yield f"{count(number, 'test')} {were} not run again: {their} from {name}"
        if self._gone:
            yield f"{count(len(self._gone), 'test')} of {name} not in this run:"
            yield from (f"  {nodeid}" for nodeid in self._gone)
        if self._new:
            yield f"{count(self._new, 'test')} not in the previous run"


def _location(test: TestHistory) -> Location:
    path, line, name = test.verdict.get("location") or (test.nodeid.partition("::")[0], None, "")
    return str(path), line, str(name)


def _reports(config: pytest.Config, test: TestHistory, common: CommonAttributes) -> Iterator[Any]:
    for kept in test.verdict.get("reports", ()):
        data = carriable(_report(test, kept, _location(test)))  # a copy, which pytest changes
        report = report_from(config, data)
        if kept["when"] != "???":  # made by xdist, of a worker that died
            common.learn(report)
        yield report


def _report(test: TestHistory, kept: KeptReport, location: Location) -> ReportData:
    """A report in the format of pytest_report_to_serializable."""
    start = float(kept.get("start", 0.0))
    data = {
        "$report_type": "TestReport",
        "nodeid": test.nodeid,
        "location": location,
        "keywords": {},
        "outcome": kept["outcome"],
        "longrepr": _longrepr(kept, location),
        "when": kept["when"],
        "sections": [(name, text) for name, text in kept.get("sections", ())],
        "duration": kept["duration"],
        "start": start,
        "stop": start + kept["duration"],
        "user_properties": [(name, value) for name, value in kept.get("properties", ())],
        "worker_id": str(test.verdict.get("worker")),
    }
    gpus = tuple(test.attempt.get("gpus", ()))
    add_facts(data, resumed=True, gpus=gpus, **facts_again(kept))
    data = {**restored(kept.get("added", {})), **data}
    if "xfail" in kept:
        data["wasxfail"] = kept["xfail"]
    return data


def _longrepr(kept: KeptReport, location: Location) -> Any:
    if "skip" in kept:
        path, line, reason = kept["skip"]
        return path, line, reason
    if "text" not in kept:
        return None
    message = kept.get("message", kept["text"].partition("\n")[0])
    return text_with_message(kept["text"], message, location[0], 1 + (location[1] or 0))
