"""The end of a run in which much is red: how many causes there are, and which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generator, Iterator

import pytest

from ...config.settings import ALONE
from ...own import own_builtins
from ...protocol.endings import count
from .report_attributes import gpus_of

if TYPE_CHECKING:
    from ...journal.causes import Group, Met

own_builtins(globals())

_FEW = 10
"""Failures that one reads one by one."""

_SHOWN = 10
"""Causes; the others are only counted."""


class CausesShown:
    """Plugin of the process that owns the terminal."""

    # Outside pytest's own, so that it stands below the short summary, which may be long.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> Generator[None, object, object]:
        result = yield
        if config.getoption("no_summary", False):
            return result
        failures = _failures(terminalreporter)
        if len(failures) > _FEW:
            from ...journal.causes import grouped

            found = grouped(map(_met, failures))
            title = f"{count(len(found), 'cause')} of {count(len(failures), 'failure')}"
            terminalreporter.section(f"pytest-fkit: {title}")
            for line in _lines(found):
                terminalreporter.line(line)
        return result


def _failures(reporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    """The first failed report of each red test, as pytest counted it."""
    found: dict[tuple[str, str], pytest.TestReport] = {}
    for category in ("failed", "error"):
        for report in reporter.stats.get(category, ()):
            if isinstance(report, pytest.TestReport):  # a module that can't be imported is no test
                found.setdefault((report.nodeid, _worker(report)), report)
    return list(found.values())


def _worker(report: pytest.TestReport) -> str:
    node = getattr(report, "node", None)  # xdist's report on a dead worker has no more
    return str(getattr(report, "worker_id", ALONE)) if node is None else str(node.gateway.id)


def _met(report: pytest.TestReport) -> Met:
    from ...journal.attempts import kept
    from ...journal.causes import LOST, Met, cause

    found = cause([kept(report)]) or LOST
    return Met(report.nodeid, found, _worker(report), tuple(gpus_of(report)))


def _lines(groups: list[Group]) -> Iterator[str]:
    width = len(str(len(groups[0].tests)))
    for group in groups[:_SHOWN]:
        yield f"{len(group.tests):{width}}  {group.cause.title}"
        yield f"{'':{width}}    as in {group.tests[0].nodeid}"
    if len(groups) > _SHOWN:
        rest = sum(len(group.tests) for group in groups[_SHOWN:])
        others = count(len(groups) - _SHOWN, "other cause")
        yield f"and {others} of {count(rest, 'failure')}; `fkit summary --group` lists all"
