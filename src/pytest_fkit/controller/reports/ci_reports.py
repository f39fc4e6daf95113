"""What CI systems read: entries of ours in the JUnit file, the summary of a GitHub Actions job."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Sequence

import pytest

from ...compat import pytest_junit
from ...config.first_environment import variable
from ...config.settings import ALONE
from ...own import own_builtins
from ...protocol.endings import count
from ...protocol.event_file import facts_of
from ...system.markdown import code, table
from ..workers.report_attributes import (
    attempts_of,
    death_of,
    gpus_of,
    no_core,
    scarcity,
    split_headline,
)

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ...compat.pytest_junit import LogXML
    from ...journal.rates import RepeatResult
    from .quarantined import Row
    from .reporting import Happened

own_builtins(globals())


class Junit:
    """Plugin of the process that writes the JUnit file: deaths are errors, no record is lost.

    :param gpus: ids of those that this process owns, at ``-n0``.
    :param share: whether tests share processes, so that fixtures are set up again after a death.
    """

    def __init__(self, log: LogXML, gpus: Sequence[str], share: bool) -> None:
        self._share = share
        self._deaths: Counter[WorkerController | None] = Counter()
        self._log = log
        self._gpus = gpus
        self._properties: dict[tuple[WorkerController | None, int], Counter[tuple[str, str]]] = (
            defaultdict(Counter)
        )
        self._endings: dict[str, str] = {}
        self._cores: dict[str, str] = {}
        pytest_junit.junit_errors_for_deaths(log, _junit_error)
        pytest_junit.junit_properties(log, self._of_test)

    def _of_test(self, report: pytest.TestReport) -> dict[str, str]:
        properties = {
            "fkit_worker": str(getattr(report, "worker_id", ALONE)),
            "fkit_attempts": str(attempts_of(report)),
            "fkit_ending": self._endings.get(report.nodeid, "finished"),
        }
        gpus = gpus_of(report, self._gpus)
        if gpus:
            properties["fkit_gpus"] = ",".join(gpus)
        if facts_of(report).core:
            self._cores[report.nodeid] = facts_of(report).core
        if report.nodeid in self._cores:
            properties["fkit_core"] = self._cores[report.nodeid]
        if facts_of(report).resumed:
            properties["fkit_resumed"] = "true"
        if facts_of(report).repeated:
            from ...journal.rates import RepeatResult, words

            repeated = RepeatResult(*facts_of(report).repeated)
            if not repeated.once:
                properties["fkit_repeated"] = words(repeated)
        return properties

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what fixtures of the test recorded, before the log sees the report."""
        headline = death_of(report)
        if headline:
            self._endings[report.nodeid] = split_headline(headline)[0]
        worker = getattr(report, "node", None)
        for kind, name, value in facts_of(report).junit:
            if kind != "property" or self._is_new(worker, name, value):
                pytest_junit.add_junit_record(self._log, report, kind, name, value)
        if self._share and headline:
            self._deaths[worker] += 1

    def _is_new(self, worker: WorkerController | None, name: str, value: str) -> bool:
        """Whether no other process recorded it as often: each has session fixtures of its own."""
        mine = self._properties[worker, self._deaths[worker]]
        others = max((said[name, value] for said in self._properties.values()), default=0)
        mine[name, value] += 1
        return mine[name, value] > others


def _junit_error(report: pytest.TestReport) -> tuple[str, str] | None:
    headline = death_of(report)
    if not headline or not hasattr(report, "when"):
        return None
    output = "".join(f"\n--- {name} ---\n{text}" for name, text in report.sections)
    return f"died in {report.when}: {headline}", f"{report.longrepr}{output}"


class StepSummary:
    """Plugin: appends our summary, as Markdown, to the page of a GitHub Actions job.

    :param path: the file that the variable GITHUB_STEP_SUMMARY names.
    """

    def __init__(self, path: Path, happened: Happened) -> None:
        self._path = path
        self._happened = happened
        self.quarantined: Sequence[Row] = ()
        """Quarantined tests that failed."""
        self.repeated: Sequence[tuple[str, RepeatResult]] = ()
        """Tests that were repeated, by node id."""

    def _lines(self) -> list[str]:
        about = [
            *markdown(self._happened), *of_quarantined(self.quarantined),
            *of_repeated(self.repeated),
        ]  # fmt: skip
        return ["### pytest-fkit", *about, ""] if about else []

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        text = "".join(f"{line}\n" for line in self._lines())
        if not text:
            return
        try:
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            terminalreporter.line(f"pytest-fkit: GITHUB_STEP_SUMMARY: {error}", red=True)


def write_step_summary(config: pytest.Config, happened: Happened) -> StepSummary | None:
    path = variable("GITHUB_STEP_SUMMARY")
    if not path:
        return None
    found = StepSummary(Path(path), happened)
    config.pluginmanager.register(found, "fkit-step-summary")
    return found


def of_quarantined(rows: Sequence[Row]) -> Iterator[str]:
    yield from table(
        "| Quarantined: failed without failing the run | how | why |",
        [(code(row.nodeid), code(row.what), code(row.reason)) for row in rows],
    )


def of_repeated(results: Sequence[tuple[str, RepeatResult]]) -> Iterator[str]:
    if not results:
        return
    from ...journal.rates import details, words

    failed = [(nodeid, result) for nodeid, result in results if result.failed]
    yield from table(
        "| Repeated | rate |",
        [
            (code(nodeid), "<br>".join([words(result), *details(result)]))
            for nodeid, result in failed
        ],
    )
    others = len(results) - len(failed)
    if others:
        yield from ("", f"{count(others, 'repeated test')} did not fail")


def markdown(happened: Happened) -> Iterator[str]:
    for title, deaths in (
        ("Crashed", happened.deaths),
        ("Crashed, and run again", happened.run_again),
        ("Ended the process when imported", happened.imports),
        ("Not begun", happened.not_begun),
    ):
        split = ((nodeid, split_headline(headline), place) for nodeid, headline, place in deaths)
        yield from table(
            f"| {title} | how | where | worker |",
            [(code(nodeid), code(at[0]), code(at[1]), place) for nodeid, at, place in split],
        )
    yield from table(
        "| Core | path |", [(code(nodeid), code(path)) for nodeid, path in happened.cores]
    )
    for reason, number in happened.no_cores.items():
        yield from ("", f"{no_core(number)}: {code(reason)}")
    for header, told in (
        ("| Left processes running, which were ended | process |", happened.leftovers),
        ("| GPU memory not given back | what |", happened.gpu_memory),
        ("| Survived a sanitizer's report | what |", happened.sanitizers),
    ):
        rows = [(code(nodeid), "<br>".join(map(code, lines))) for nodeid, lines in told]
        yield from table(header, rows)
    for title, tests in (
        ("Passed only on a retry", happened.retried),
        ("Failed on every attempt", happened.in_vain),
    ):
        yield from table(
            f"| {title} | | before |",
            [(code(nodeid), attempt, code(before)) for nodeid, attempt, before in tests],
        )
    yield from table(
        "| Retired worker | why |", [(place, code(reason)) for place, reason in happened.retired]
    )
    for cause, number in happened.shared.items():
        yield from ("", f"{count(number, 'test')} shared a process, because of {code(cause)}")
    for (reason, wanted), number in happened.scarce.items():
        yield from ("", f"{scarcity(number, wanted)}: {code(reason)}")
