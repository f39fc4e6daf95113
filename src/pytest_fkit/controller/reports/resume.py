"""Resuming a run from its journal: tests that have a verdict are reported with it, and not run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Generator, Iterator, Sequence

import pytest

from ...config.settings import Settings
from ...journal.aside import BEGINNING
from ...journal.events import Event, event
from ...journal.history import History, Test, history
from ...journal.reader import JournalError, parse, whole_lines
from ...journal.recorder import Recorder
from ...own import own_builtins
from ...protocol.plain_values import carriable
from ...worker.reports.deaths import text_with_message
from ...worker.reports.reports import report_from
from ...worker.tests.sources import Resumed

own_builtins(globals())


class Resume:
    """The run to resume.

    :param path: of its journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.session = ""
        self._told = History()
        self._found: list[Test] | None = None
        self._gone: list[str] = []
        self._new = 0

    def keep(self, data: bytes) -> int:
        """Take in what the journal holds.

        :return: how many of its bytes stay: a torn last line does not.
        :raises pytest.UsageError: if it can't be resumed.
        """
        whole = whole_lines(data)
        if whole == 0 and data.startswith(BEGINNING[: len(data)]):
            return 0  # the run was killed while it wrote its first line
        try:
            told = history(parse(data[:whole], str(self.path)))
        except JournalError as error:
            raise pytest.UsageError(f"pytest-fkit: --fkit-resume: {error}") from None
        if len(told.sessions) != 1:
            raise pytest.UsageError(
                f"pytest-fkit: --fkit-resume: {self.path} holds {len(told.sessions)} runs, "
                "merged; go on with one of their own journals"
            )
        if any(run.get("options", {}).get("dist") == "each" for run in told.sessions[0].runs):
            raise pytest.UsageError(
                f"pytest-fkit: --fkit-resume: {self.path} is of a run with --dist=each, where each "
                "worker had a verdict of its own; begin anew with --fkit-journal"
            )
        self._told = told
        self.session = str(told.sessions[0].runs[0].get("session"))
        return whole

    @property
    def done(self) -> dict[str, int]:
        """How many verdicts there are, by node id; more than one where a test is there twice."""
        return dict(Counter(test.nodeid for test in self._told.tests))

    def collected(self, found: Sequence[str], rest: Sequence[str]) -> list[Test] | None:
        """Take in what a worker collected.

        :param found: node ids that it does not run, since they are done.
        :param rest: the others.
        :return: the tests to be reported with their old verdicts, None if that was done before.
        """
        if self._found is not None:
            return None
        wanted = Counter(found)
        self._found = []
        for test in self._told.tests:
            if wanted[test.nodeid]:
                wanted[test.nodeid] -= 1
                self._found.append(test)
        self._gone = sorted(self.done.keys() - set(found))
        for session in self._told.sessions:
            before = {*session.planned, *self.done}
            self._new = sum(nodeid not in before for nodeid in rest)
        return self._found

    def event(self) -> Event:
        """What the journal says of it."""
        kept = len(self._found or ())
        return event("resume", kept=kept, gone=self._gone, new=self._new)

    def lines(self) -> Iterator[str]:
        """What the user reads in the end."""
        if self._found is None:
            return
        number = len(self._found)
        were, their = ("was", "its verdict is") if number == 1 else ("were", "their verdicts are")
        yield f"{_tests(number)} {were} not run again: {their} from {self.path.name}"
        if self._gone:
            yield f"{_tests(len(self._gone))} of {self.path.name} not in this run:"
            yield from (f"  {nodeid}" for nodeid in self._gone)
        if self._new:
            yield f"{_tests(self._new)} not in the run before"


def resumed(config: pytest.Config, settings: Settings) -> Resume | None:
    """The run that the user wants to go on with, if she does.

    :raises pytest.UsageError: if that can't be.
    """
    if settings.resume is None:
        return None
    if config.getoption("dist", "no") == "each":
        raise pytest.UsageError(
            "pytest-fkit: --fkit-resume goes with one verdict per test, and --dist=each makes one "
            "per worker; leave --dist=each away, or begin anew with --fkit-journal"
        )
    return Resume(settings.resume)


def _tests(number: int) -> str:
    return "1 test" if number == 1 else f"{number} tests"


class Resuming:
    """Plugin of the process that owns the terminal.

    :param recorder: that of this run.
    """

    def __init__(self, config: pytest.Config, resume: Resume, recorder: Recorder) -> None:
        self._config = config
        self._resume = resume
        self._recorder = recorder
        self._session: pytest.Session | None = None
        self._here: tuple[list[str], list[str]] | None = None

    # After Recording, which reads the journal when it opens it.
    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Where this process collects, have it leave out what is done."""
        self._session = session
        if not self._config.pluginmanager.hasplugin("dsession"):
            self._config.pluginmanager.register(Resumed(self._resume.done, self._collected_here))

    def _collected_here(self, found: list[str], rest: list[str]) -> None:
        self._here = found, rest

    def take_here(self) -> None:
        """Report old verdicts, where this process collected."""
        if self._here is not None:
            self.take(*self._here)

    @property
    def done(self) -> dict[str, int]:
        """What a new worker need not run."""
        return self._resume.done

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: Any) -> Generator[None, Any, Any]:
        """Mark a verdict that is not of this run, in verbose output."""
        result = yield
        if getattr(report, "fkit_resumed", False) and result:
            category, letter, word = result
            text, *markup = (word,) if isinstance(word, str) else word
            marked = f"{text} (resumed)" if text else text
            return category, letter, (marked, *markup) if markup else marked
        return result

    def take(self, found: Sequence[str], rest: Sequence[str]) -> None:
        """Report old verdicts, when the first worker has collected.

        :param found: see :meth:`Resume.collected`.
        """
        session = self._session
        assert session is not None
        tests = self._resume.collected(found, rest)
        # As set by pytest and xdist, for the progress and the exit status.
        session.testscollected = len(found) + len(rest)
        if tests is None:
            return
        self._recorder.add(self._resume.event())
        # What failed then counts, but does not stop this run: -x is about what it runs.
        before = session.shouldfail
        for test in tests:
            _report_again(self._config, test)
        session.shouldfail = before

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was not run, and how the suite differs."""
        lines = list(self._resume.lines())
        if lines:
            terminalreporter.section("pytest-fkit: resumed")
            for line in lines:
                terminalreporter.line(line)


def _report_again(config: pytest.Config, test: Test) -> None:
    path, line, name = test.verdict.get("location") or (test.nodeid.partition("::")[0], None, "")
    location = (str(path), line, str(name))
    hooks = config.hook
    hooks.pytest_runtest_logstart(nodeid=test.nodeid, location=location)
    for kept in test.verdict.get("reports", ()):
        data = carriable(_report(test, kept, location))  # a copy, which pytest changes
        hooks.pytest_runtest_logreport(report=report_from(config, data))
    hooks.pytest_runtest_logfinish(nodeid=test.nodeid, location=location)


def _report(
    test: Test, kept: dict[str, Any], location: tuple[str, int | None, str]
) -> dict[str, Any]:
    """A report in the format of pytest_report_to_serializable."""
    start = float(kept.get("start", 0.0))
    data = {
        "$report_type": "TestReport",
        "nodeid": test.nodeid,
        "location": location,
        "keywords": {},
        "outcome": kept["outcome"],
        "longrepr": _reason(kept, location),
        "when": kept["when"],
        "sections": [(name, text) for name, text in kept.get("sections", ())],
        "duration": kept["duration"],
        "start": start,
        "stop": start + kept["duration"],
        "user_properties": [(name, value) for name, value in kept.get("properties", ())],
        "worker_id": str(test.verdict.get("worker")),
        "fkit_resumed": True,
        "fkit_gpus": list(test.attempt.get("gpus", ())),
    }
    data.update((name, value) for name, value in kept.items() if name.startswith("fkit_"))
    if "xfail" in kept:
        data["wasxfail"] = kept["xfail"]
    return data


def _reason(kept: dict[str, Any], location: tuple[str, int | None, str]) -> Any:
    if "skip" in kept:
        path, line, reason = kept["skip"]
        return path, line, reason
    if "text" not in kept:
        return None
    message = kept.get("message", kept["text"].partition("\n")[0])
    return text_with_message(kept["text"], message, location[0], 1 + (location[1] or 0))
