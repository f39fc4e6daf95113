"""What the user reads: header, letters and the summary."""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, NamedTuple, Sequence

import pytest

from ...compat import pytest_junit
from ...config.settings import KEY as SETTINGS
from ...config.settings import Settings
from ...gpu.slices.ownership import KEY
from ...own import own_builtins
from ...protocol.endings import NOT_BEGUN, format_size
from ..retry.tried import place_of
from ..workers.death_texts import DeathText, death_of
from ..workers.workers import count_text
from .junit import Junit

own_builtins(globals())

# What the tables of deaths are of: where there is one, where there are more.
_TITLES = (
    ("test crashed and was reported as an error", "tests crashed and were reported as errors"),
    ("attempt crashed and was followed by another", "attempts crashed and were followed by others"),
    (
        "module ended the process when imported and was reported as an error",
        "modules ended the process when imported and were reported as errors",
    ),
    ("test was not begun, which is an error", "tests were not begun, which are errors"),
)


class Happened(NamedTuple):
    """What there is to be said of a run.

    :param deaths: node id, headline and place of each, see :func:`.tried.place_of`.
    :param run_again: the same of those that another attempt followed.
    :param imports: the same of modules.
    :param leftovers: node id and descriptions of the processes that were left.
    :param shared: the number of tests that shared a process, by the cause.
    :param scarce: the number of tests that skipped themselves because they saw too few GPUs, by the
        reason and the number that they wanted.
    :param retried: node id, the attempt and what came before it, of tests that passed after a GPU
        error.
    :param in_vain: the same of tests that failed after one.
    :param end_errors: node id and what was raised when the process of the test ended.
    :param retired: workers with their GPUs that were retired, and why.
    :param gpu_memory: node id and what is still in use of GPUs' memory.
    :param not_begun: as `deaths`, of tests that need what was not to be had.
    """

    deaths: list[tuple[str, str, str]]
    run_again: list[tuple[str, str, str]]
    imports: list[tuple[str, str, str]]
    leftovers: list[tuple[str, list[str]]]
    shared: dict[str, int]
    scarce: dict[tuple[str, int], int]
    retried: Sequence[tuple[str, str, str]] = ()
    in_vain: Sequence[tuple[str, str, str]] = ()
    retired: Sequence[tuple[str, str]] = ()
    end_errors: Sequence[tuple[str, str]] = ()
    gpu_memory: Sequence[tuple[str, Sequence[str]]] = ()
    not_begun: Sequence[tuple[str, str, str]] = ()


class Reporting:
    """Plugin of the process that owns the terminal."""

    def __init__(self) -> None:
        self._deaths: list[tuple[str, str, str]] = []
        self._run_again: list[tuple[str, str, str]] = []
        self._shared: Counter[str] = Counter()
        self._scarce: Counter[tuple[str, int]] = Counter()
        self._imports: list[tuple[str, str, str]] = []
        self._leftovers: list[tuple[str, list[str]]] = []
        self._gpu_memory: list[tuple[str, list[str]]] = []
        self._not_begun: list[tuple[str, str, str]] = []
        self._retried: list[tuple[str, str, str]] = []
        self._in_vain: list[tuple[str, str, str]] = []
        self._end_errors: list[tuple[str, str]] = []
        self._gpus: Sequence[str] = ()
        self.retired: list[tuple[str, str]] = []
        """Workers that were retired, and why."""
        self.why_killed: Callable[[Any], str] = lambda _: ""
        """Why we killed a worker, "" if we did not."""

    def happened(self) -> Happened:
        """What there is to be said in the end."""
        return Happened(
            self._deaths,
            self._run_again,
            self._imports,
            self._leftovers,
            dict(self._shared),
            dict(self._scarce),
            self._retried,
            self._in_vain,
            self.retired,
            self._end_errors,
            self._gpu_memory,
            self._not_begun,
        )

    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Have the JUnit file say more; its plugin is there by now."""
        owned = session.config.stash.get(KEY, None)
        self._gpus = owned.ids if owned is not None else ()
        log = pytest_junit.junit_log(session.config)
        if log is not None:
            isolation = session.config.stash[SETTINGS].isolation
            junit = Junit(log, self._gpus, isolation != "function")
            session.config.pluginmanager.register(junit, "fkit-junit")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Count a death as an error, whatever the phase; name the attempts of what passed."""
        if death_of(report) is not None:
            return "error", "E", "ERROR"
        if report.passed and hasattr(report, "fkit_passed_after"):
            return "passed", ".", f"PASSED after {report.fkit_attempts} attempts"
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember deaths."""
        headline = death_of(report)
        if headline is not None:
            place = place_of(report, self._gpus)
            table = self._not_begun if headline.startswith(NOT_BEGUN) else self._deaths
            table.append((report.nodeid, headline, place))
        elif report.outcome == "rerun" and hasattr(report, "fkit_death"):
            place = place_of(report, self._gpus)
            self._run_again.append((report.nodeid, report.fkit_death, place))
        if report.when == "call" and hasattr(report, "fkit_passed_after"):
            attempts = f"passed on attempt {report.fkit_attempts}"
            self._retried.append((report.nodeid, attempts, report.fkit_passed_after))
        elif report.failed and hasattr(report, "fkit_failed_after"):
            attempts = f"failed, {report.fkit_attempts} attempts"
            told = report.nodeid, attempts, report.fkit_failed_after
            if told not in self._in_vain[-1:]:  # of another phase, or a subtest
                self._in_vain.append(told)
        shared = getattr(report, "fkit_shared", None)
        if shared:
            self._shared[shared] += 1
        wanted = getattr(report, "fkit_wanted_gpus", None)
        if wanted is not None:
            self._scarce[skip_reason(report), wanted] += 1
        for text in getattr(report, "fkit_end_errors", ()):
            self._end_errors.append((report.nodeid, text))
        self._note_left(report)

    def _note_left(self, report: Any) -> None:
        for name, found in (
            ("fkit_leftovers", self._leftovers), ("fkit_gpu_memory", self._gpu_memory)
        ):  # fmt: skip
            left = getattr(report, name, None)
            if left:
                found.append((report.nodeid, left))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: Any) -> None:
        """Remember modules whose import ended the process."""
        headline = death_of(report)
        if headline is not None:
            text = DeathText(report.longrepr)
            text.message = headline
            report.longrepr = text
            self._imports.append((report.nodeid, headline, ""))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """Make xdist's report on a dead worker one of ours."""
        worker = report.node.gateway.id
        reason = self.why_killed(report.node)
        died = f"worker {worker} was killed: {reason}" if reason else f"worker {worker} died"
        headline = f"lost: {died}"
        report.fkit_death = headline
        report.fkit_worker = worker
        text = DeathText(
            f"{crashitem}: {died}{',' if reason else ''} while the test was running, or about to "
            "run; what it was running is ended"
        )
        text.message = headline
        report.longrepr = text

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail for what would be raised by plain pytest at its end."""
        if self._end_errors and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List deaths and processes left running, if there are any."""
        tables = (self._deaths, self._run_again, self._imports, self._not_begun)
        if not any(self.happened()):
            return
        terminalreporter.section("pytest-fkit summary")
        for texts, deaths in zip(_TITLES, tables):
            if deaths:
                one, many = texts
                terminalreporter.line(f"1 {one}:" if len(deaths) == 1 else f"{len(deaths)} {many}:")
                for line in _table(deaths):
                    terminalreporter.line(line)
        if self._leftovers:
            terminalreporter.line(
                f"{_count(len(self._leftovers), 'test')} left processes running, which were ended:"
            )
            for nodeid, processes in self._leftovers:
                for process in processes:
                    terminalreporter.line(f"  {nodeid}  {process}")
        self._tell_of_ends(terminalreporter)
        self._tell_of_gpus(terminalreporter)
        for cause, number in self._shared.items():
            terminalreporter.line(f"{_count(number, 'test')} shared a process, because of {cause}")
        for (reason, wanted), number in self._scarce.items():
            terminalreporter.line(f"{scarcity(number, wanted)}: {reason}", yellow=True)

    def _tell_of_ends(self, terminalreporter: Any) -> None:
        if not self._end_errors:
            return
        terminalreporter.line(
            "raised when the processes of tests ended, for which plain pytest exits with 1:"
        )
        for nodeid, text in self._end_errors:
            terminalreporter.line(f"  {nodeid}")
            for line in text.splitlines():
                terminalreporter.line(f"    {line}", red=True)

    def _tell_of_gpus(self, terminalreporter: Any) -> None:
        if self._gpu_memory:
            number = _count(len(self._gpu_memory), "test")
            terminalreporter.line(f"{number} left GPU memory that was not given back:")
            for nodeid, lines in self._gpu_memory:
                for line in lines:
                    terminalreporter.line(f"  {nodeid}  {line}", yellow=True)
        if self._retried:
            terminalreporter.line(
                f"{_count(len(self._retried), 'test')} passed only after another attempt:"
            )
            for columns in self._retried:
                terminalreporter.line(f"  {'  '.join(columns)}", yellow=True)
        if self._in_vain:
            terminalreporter.line(
                f"{_count(len(self._in_vain), 'test')} failed after another attempt:"
            )
            for columns in self._in_vain:
                terminalreporter.line(f"  {'  '.join(columns)}", red=True)
        if self.retired:
            terminalreporter.line(f"{_count(len(self.retired), 'worker')} retired:")
            for place, reason in self.retired:
                terminalreporter.line(f"  {place}: {reason}", yellow=True)


def skip_reason(report: Any) -> str:
    """Why a test was skipped, in a line."""
    longrepr = report.longrepr
    text = str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)
    if text.startswith("Skipped: "):
        text = text[len("Skipped: ") :]
    return text.partition("\n")[0]


def scarcity(number: int, wanted: int) -> str:
    """How many tests wanted how many GPUs, and the options that give them."""
    return (
        f"{_count(number, 'test')} skipped for want of {wanted} GPUs "
        f"(--fkit-gpus-per-worker={wanted} or --fkit-widen)"
    )


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _table(deaths: Sequence[tuple[str, str, str]]) -> list[str]:
    width = max(len(nodeid) for nodeid, _, _ in deaths)
    lines = []
    for nodeid, headline, worker in deaths:
        what, _, where = headline.partition(" at ")
        columns = (f"{nodeid:{width}}", what, where.partition(" in ")[0], worker)
        lines.append("  " + "  ".join(column for column in columns if column))
    return lines


def header(number: int, settings: Settings, gpus: str = "") -> str:
    """The line in pytest's header.

    :param number: of workers.
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
    return "fkit: " + ", ".join([count_text(number), *parts])
