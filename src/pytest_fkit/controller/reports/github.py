"""What the terminal's summary says, once more as Markdown, for the page of a GitHub Actions job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import pytest

from ...config.first_environment import variable
from ...own import own_builtins
from .reporting import Happened, scarcity

own_builtins(globals())


class StepSummary:
    """Plugin.

    :param path: of the file that the variable GITHUB_STEP_SUMMARY names.
    :param happened: says what there is to be said.
    """

    def __init__(self, path: Path, happened: Callable[[], Happened]) -> None:
        self._path = path
        self._happened = happened

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Append it, unless there is nothing."""
        text = "".join(f"{line}\n" for line in markdown(self._happened()))
        if not text:
            return
        try:
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            terminalreporter.line(f"pytest-fkit: GITHUB_STEP_SUMMARY: {error}", red=True)


def write_step_summary(config: pytest.Config, happened: Callable[[], Happened]) -> None:
    """Have it written, in GitHub Actions."""
    path = variable("GITHUB_STEP_SUMMARY")
    if path:
        config.pluginmanager.register(StepSummary(Path(path), happened), "fkit-step-summary")


def markdown(happened: Happened) -> Iterator[str]:
    """The lines; none where nothing happened."""
    if not any(happened):
        return
    yield "### pytest-fkit"
    for title, deaths in (
        ("Crashed", happened.deaths),
        ("Crashed, and run again", happened.run_again),
        ("Ended the process when imported", happened.imports),
        ("Not begun", happened.not_begun),
    ):
        if deaths:
            yield from _table(title, deaths)
    if happened.leftovers:
        yield from ("", "| Left processes running, which were ended | process |", "|---|---|")
        for nodeid, processes in happened.leftovers:
            yield f"| {_code(nodeid)} | {'<br>'.join(_code(each) for each in processes)} |"
    yield from _of_gpus(happened)
    for cause, number in happened.shared.items():
        tests = "1 test" if number == 1 else f"{number} tests"
        yield from ("", f"{tests} shared a process, because of {_code(cause)}")
    for (reason, wanted), number in happened.scarce.items():
        yield from ("", f"{scarcity(number, wanted)}: {_code(reason)}")
    yield ""


def _of_gpus(happened: Happened) -> Iterator[str]:
    if happened.gpu_memory:
        yield from ("", "| GPU memory not given back | what |", "|---|---|")
        for nodeid, lines in happened.gpu_memory:
            yield f"| {_code(nodeid)} | {'<br>'.join(map(_code, lines))} |"
    for title, tests in (
        ("Passed only after another attempt", happened.retried),
        ("Failed after another attempt", happened.in_vain),
    ):
        if tests:
            yield from ("", f"| {title} | | before |", "|---|---|---|")
        for nodeid, attempt, before in tests:
            yield f"| {_code(nodeid)} | {attempt} | {_code(before)} |"
    if happened.retired:
        yield from ("", "| Retired worker | why |", "|---|---|")
        for place, reason in happened.retired:
            yield f"| {place} | {_code(reason)} |"


def _table(title: str, deaths: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    yield from ("", f"| {title} | how | where | worker |", "|---|---|---|---|")
    for nodeid, headline, worker in deaths:
        how, _, where = headline.partition(" at ")
        yield f"| {_code(nodeid)} | {_code(how)} | {_code(where)} | {worker} |"


def _code(text: str) -> str:
    """Text as code in a cell of a table, whatever it contains."""
    if not text:
        return ""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    # A space between the ticks and a tick of the text's own; Markdown takes it away again.
    space = " " if "`" in (text[0], text[-1]) else ""
    cell = text.replace("|", "\\|").replace("\n", " ")
    return f"{ticks}{space}{cell}{space}{ticks}"
