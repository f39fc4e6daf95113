"""The summary on the page of a GitHub Actions job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Sequence

import pytest

from ...own import own_builtins
from ...protocol.endings import count
from ...system.markdown import code, table
from .report_attributes import no_core, scarcity, split_headline
from .reporting import Happened

if TYPE_CHECKING:
    from ...journal.rates import RepeatResult
    from .quarantined import Row

own_builtins(globals())


class StepSummary:
    """Plugin: appends our summary, as Markdown, to the page of a GitHub Actions job.

    :param path: the file that the variable GITHUB_STEP_SUMMARY names.
    """

    def __init__(self, path: str, happened: Happened) -> None:
        self._path = Path(path)
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
    yield from table(
        "| Worker that went on with sick GPUs, since no other was left | why |",
        [(place, code(reason)) for place, reason in happened.kept],
    )
    for cause, number in happened.shared.items():
        yield from ("", f"{count(number, 'test')} shared a process, because of {code(cause)}")
    for (reason, wanted), number in happened.scarce.items():
        yield from ("", f"{scarcity(number, wanted)}: {code(reason)}")
