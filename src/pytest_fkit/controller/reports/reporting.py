"""What the terminal shows: header, letters and summary."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, List, Sequence, Tuple

import pytest

from ...compat import pytest_junit
from ...config.settings import SETTINGS, Settings
from ...gpu.slices.ownership import OWNED
from ...own import own_builtins, time
from ...protocol.endings import NOT_BEGUN, count, format_size
from ...protocol.event_file import NO_FACTS, ReportFacts, add_facts, facts_of
from ..schedule.machines import count_workers
from .crash_shown import show_crash
from .junit_entries import Junit
from .report_attributes import (
    DeathText,
    Report,
    death_of,
    death_text,
    no_core,
    place_of,
    scarcity,
    split_headline,
)

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

own_builtins(globals())

_FLAKY = 7
"""pytest-rerunfailures' exit status of a run whose failures all passed when they were run again."""

Deaths = List[Tuple[str, str, str]]
"""Node id, headline and place of each, see :func:`.report_attributes.place_of`."""


@dataclass
class Happened:
    """What the summary tells of a run.

    :param run_again: deaths that another attempt followed.
    :param imports: deaths while a module was imported.
    :param not_begun: tests that need what was not to be had.
    :param cores: node id and path of each that was kept.
    :param no_cores: the number of tests that died and have none, by the reason.
    :param leftovers: node id and descriptions of the processes that were left.
    :param end_errors: node id and what was raised when the process of the test ended.
    :param gpu_memory: node id and what is still in use of GPUs' memory.
    :param sanitizers: node id and what sanitizers said in it, of tests that did not die.
    :param retried: node id, the attempt and what came before it, of tests that passed after an
        error of a GPU or the network.
    :param in_vain: the same of tests that failed after one.
    :param retired: workers with their GPUs that were retired, and why.
    :param kept: those that went on with sick GPUs, since no other was left, and what is wrong.
    :param shared: the number of tests that shared a process, by the cause.
    :param scarce: the number of tests that skipped themselves because they saw too few GPUs, by the
        reason and the number that they wanted.
    """

    deaths: Deaths = field(default_factory=list)
    run_again: Deaths = field(default_factory=list)
    imports: Deaths = field(default_factory=list)
    not_begun: Deaths = field(default_factory=list)
    cores: list[tuple[str, str]] = field(default_factory=list)
    no_cores: Counter[str] = field(default_factory=Counter)
    leftovers: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    end_errors: list[tuple[str, str]] = field(default_factory=list)
    gpu_memory: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    sanitizers: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    retried: list[tuple[str, str, str]] = field(default_factory=list)
    in_vain: list[tuple[str, str, str]] = field(default_factory=list)
    retired: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    shared: Counter[str] = field(default_factory=Counter)
    scarce: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return any(vars(self).values())


class Reporting:
    """Plugin of the process that owns the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began = time.time()
        self.happened = Happened()
        self._causes: dict[tuple[str, str], str] = {}
        self._gpus: Sequence[str] = ()
        self.why_killed: Callable[[WorkerController], str] = lambda _: ""
        """Why we killed a worker, "" if we did not."""

    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Extend the JUnit file, whose plugin is registered by now."""
        owned = session.config.stash.get(OWNED, None)
        self._gpus = owned.ids if owned is not None else ()
        log = pytest_junit.junit_log(session.config)
        if log is not None:
            isolation = session.config.stash[SETTINGS].isolation
            junit = Junit(log, self._gpus, isolation != "function")
            session.config.pluginmanager.register(junit, "fkit-junit")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Report) -> tuple[str, str, str] | None:
        """Count a death as an error, whatever the phase; name the attempts of what passed."""
        if death_of(report):
            return "error", "E", "ERROR"
        facts = facts_of(report)
        if report.passed and facts.passed_after:
            return "passed", ".", f"PASSED after {facts.attempts} attempts"
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        facts = facts_of(report)
        if facts is not NO_FACTS:
            self._remember_attempt(report, facts)
            self._remember_leftovers(report, facts)

    def _remember_attempt(self, report: pytest.TestReport, facts: ReportFacts) -> None:
        happened, nodeid = self.happened, report.nodeid
        show_crash(self._config, report, self._began)
        headline = death_of(report)
        if headline:
            deaths = happened.not_begun if headline.startswith(NOT_BEGUN) else happened.deaths
            deaths.append((nodeid, headline, place_of(report, self._gpus)))
        elif str(report.outcome) == "rerun" and facts.death:
            happened.run_again.append((nodeid, facts.death, place_of(report, self._gpus)))
        if report.when == "call" and facts.passed_after:
            attempts = f"passed on attempt {facts.attempts}"
            happened.retried.append((nodeid, attempts, facts.passed_after))
        elif report.failed and facts.failed_after:
            row = nodeid, f"failed, {facts.attempts} attempts", facts.failed_after
            if row not in happened.in_vain[-1:]:  # of another phase, or a subtest
                happened.in_vain.append(row)

    def _remember_leftovers(self, report: pytest.TestReport, facts: ReportFacts) -> None:
        happened, nodeid = self.happened, report.nodeid
        if facts.core:
            happened.cores.append((nodeid, facts.core))
        if facts.no_core:
            happened.no_cores[facts.no_core] += 1
        if facts.shared:
            happened.shared[self._alike(facts.shared)] += 1
        if facts.wanted_gpus:
            from ...gpu.errors.failure import skip_reason

            happened.scarce[skip_reason(report).partition("\n")[0], facts.wanted_gpus] += 1
        happened.end_errors += ((nodeid, text) for text in facts.end_errors)
        for lines, told in (
            (facts.leftovers, happened.leftovers),
            (facts.sanitizers, happened.sanitizers),
            (facts.gpu_memory, happened.gpu_memory),
        ):
            if lines:
                told.append((nodeid, lines))

    def _alike(self, cause: str) -> str:
        """The first cause that has only other numbers: descriptors and pids differ by worker."""
        where, _, what = cause.partition(": ")
        return self._causes.setdefault((where, re.sub("[0-9]+", "0", what)), cause)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        headline = death_of(report)
        if headline:
            report.longrepr = death_text(report.nodeid, str(report.longrepr), headline)
            show_crash(self._config, report, self._began)
            self.happened.imports.append((report.nodeid, headline, ""))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        text = self.text_of_death(report.node, crashitem)
        add_facts(vars(report), death=text.message, worker=report.node.gateway.id)
        report.longrepr = text

    def text_of_death(self, node: WorkerController, nodeid: str) -> DeathText:
        worker, reason = node.gateway.id, self.why_killed(node)
        died = f"worker {worker} was killed: {reason}" if reason else f"worker {worker} died"
        text = (
            f"{nodeid}: {died}{',' if reason else ''} while the test was running, or about to "
            "run; what it was running is ended"
        )
        if not reason:
            text += f"\n{_NO_STACKS}"
        return death_text(nodeid, text, f"lost: {died}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail for what plain pytest would raise at its end."""
        if self.happened.end_errors and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.happened:
            terminalreporter.section("pytest-fkit summary")
            for line, markup in _summary(self.happened):
                terminalreporter.line(line, **markup)


_NO_STACKS = "no stacks: nobody looks at workers; after a signal Python's is on standard error"

_Line = Tuple[str, "dict[str, bool]"]
_PLAIN: dict[str, bool] = {}
_MOST = 50
"""Processes left running that the terminal names; the journal has all of them."""

_YELLOW = {"yellow": True}
_RED = {"red": True}


# The titles of the tables of deaths: for one, and for more.
_DEATHS = (
    ("test crashed and was reported as an error", "tests crashed and were reported as errors"),
    ("attempt crashed and was retried", "attempts crashed and were retried"),
    (
        "module ended the process when imported and was reported as an error",
        "modules ended the process when imported and were reported as errors",
    ),
    (
        "test did not begin and was reported as an error",
        "tests did not begin and were reported as errors",
    ),
)


def _summary(happened: Happened) -> Iterator[_Line]:
    tables = (happened.deaths, happened.run_again, happened.imports, happened.not_begun)
    for (one, many), deaths in zip(_DEATHS, tables):
        title = f"1 {one}:" if len(deaths) == 1 else f"{len(deaths)} {many}:"
        yield from _section(title, _aligned(deaths))
    kept = "core was kept:" if len(happened.cores) == 1 else "cores were kept:"
    yield from _section(f"{len(happened.cores)} {kept}", map("  ".join, happened.cores))
    for reason, number in happened.no_cores.items():
        yield f"{no_core(number)}: {reason}", _YELLOW
    yield from _section(
        f"{count(len(happened.leftovers), 'test')} left processes running, which were ended:",
        first_rows(list(_each_line(happened.leftovers)), _MOST),
    )
    if happened.end_errors:
        title = "raised at the end of test processes; plain pytest exits with status 1, too:"
        yield title, _PLAIN
    for nodeid, text in happened.end_errors:
        yield f"  {nodeid}", _PLAIN
        yield from ((f"    {line}", _RED) for line in text.splitlines())
    for what, told in (
        ("left GPU memory that was not given back", happened.gpu_memory),
        ("survived a sanitizer's report", happened.sanitizers),
    ):
        yield from _section(f"{count(len(told), 'test')} {what}:", _each_line(told), _YELLOW)
    for what, retried, markup in (
        ("passed only on a retry", happened.retried, _YELLOW),
        ("failed on every attempt", happened.in_vain, _RED),
    ):
        rows = map("  ".join, retried)
        yield from _section(f"{count(len(retried), 'test')} {what}:", rows, markup)
    for what, workers, markup in (
        ("retired", happened.retired, _YELLOW),
        ("with sick GPUs went on, since no other was left", happened.kept, _RED),
    ):
        number = len({place for place, _ in workers})
        rows = map(": ".join, workers)
        yield from _section(f"{count(number, 'worker')} {what}:", rows, markup)
    for cause, number in happened.shared.items():
        yield f"{count(number, 'test')} shared a process, because of {cause}", _PLAIN
    for (reason, wanted), number in happened.scarce.items():
        yield f"{scarcity(number, wanted)}: {reason}", _YELLOW


def _section(title: str, rows: Iterable[str], markup: dict[str, bool] = _PLAIN) -> Iterator[_Line]:
    """A title and indented rows; nothing without rows."""
    lines = [(f"  {row}", markup) for row in rows]
    if lines:
        yield title, _PLAIN
        yield from lines


def _each_line(told: Iterable[tuple[str, Sequence[str]]]) -> Iterator[str]:
    return (f"{nodeid}  {line}" for nodeid, lines in told for line in lines)


def first_rows(rows: Sequence[str], most: int) -> list[str]:
    """The first rows, `most` of them, and how many others there are."""
    more = len(rows) - most
    return [*rows[:most], *([f"… {more} more"] if more > 0 else ())]


def _aligned(deaths: Deaths) -> Iterator[str]:
    width = max((len(nodeid) for nodeid, _, _ in deaths), default=0)
    for nodeid, headline, place in deaths:
        what, where = split_headline(headline)
        columns = (f"{nodeid:{width}}", what, where.partition(" in ")[0], place)
        yield "  ".join(filter(None, columns))


def header(number: int, settings: Settings, gpus: str = "") -> str:
    """The line in pytest's header.

    :param gpus: the workers with the GPUs that they own, "" where there are none.
    """
    timeout = settings.timeout if settings.others_timeout is None else settings.others_timeout
    parts = [
        f"isolation: {settings.isolation}",
        f"timeout: {timeout:g} s" if timeout else "timeout: none",
    ]
    if settings.memory_limit:
        parts.append(f"memory limit: {format_size(settings.memory_limit)}")
    if gpus:
        return f"fkit: {gpus}; {', '.join(parts)}"
    return "fkit: " + ", ".join([count_workers(number), *parts])


class FailOnFlaky:
    """Plugin of the controller for pytest-rerunfailures' ``--fail-on-flaky``.

    That plugin sees no tests there.
    """

    def __init__(self) -> None:
        self._flaky = False

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._flaky = self._flaky or getattr(report, "rerun", 0) > 0

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._flaky and exitstatus == 0:
            session.exitstatus = _FLAKY
