"""Attributes of reports: those that we add, how they are shown, and those that plugins add."""

from __future__ import annotations

import re
from typing import Iterable, Sequence, Union

import pytest

from ...own import own_builtins
from ...protocol.endings import count
from ...protocol.event_file import Location, add_facts, facts_of
from ..schedule.machines import gpu_ids, machine_of, with_gpus

own_builtins(globals())

Report = Union[pytest.TestReport, pytest.CollectReport]


class DeathText(str):
    """The text of a report, with the one-line message that pytest's short summary asks for."""

    __slots__ = ("message", "path")

    lineno = 1
    message: str
    path: str

    @property
    def reprcrash(self) -> DeathText:
        """Pytest takes the message from here, and reporters the place."""
        return self


def death_text(nodeid: str, text: str, message: str) -> DeathText:
    """`text` on this test or module, with this message."""
    made = DeathText(text)
    made.message = message
    made.path = nodeid.partition("::")[0]
    return made


def death_of(report: Report) -> str:
    """The headline of a report on a death, "" for any other report."""
    return facts_of(report).death if report.failed else ""


def split_headline(headline: str) -> tuple[str, str]:
    """What happened, and where, as in "tests/test_x.py:27 in test_segv"; that may be ""."""
    found = re.match(r"(.*) at (.+:\d+(?: in \S+)?)$", headline, re.DOTALL)
    return (found[1], found[2]) if found is not None else (headline, "")


def attempts_of(report: Report) -> int:
    """Number of the attempt that the report is on, from 1."""
    return max(1 + int(getattr(report, "rerun", 0)), facts_of(report).attempts)


def gpus_of(report: Report, own: Sequence[str] = ()) -> Sequence[str]:
    """The ids of the GPUs that the test could use.

    :param own: those of this process, at ``-n0``.
    """
    gpus = facts_of(report).gpus
    if gpus is not None:
        return gpus
    node = getattr(report, "node", None)
    return own if node is None else gpu_ids(node)


def place_of(report: Report, own: Sequence[str] = ()) -> str:
    """Worker, GPUs and attempt of a report on a death, as in "gw2 (GPUs 4,5), attempt 2"."""
    attempts = attempts_of(report)
    node = getattr(report, "node", None)
    machine = "" if node is None else machine_of(node)
    place = with_gpus(facts_of(report).worker, gpus_of(report, own), machine)
    return f"{place}, attempt {attempts}" if attempts > 1 else place


def scarcity(number: int, wanted: int) -> str:
    return (
        f"{count(number, 'test')} skipped for want of {wanted} GPUs "
        f"(--fkit-gpus-per-worker={wanted} or --fkit-widen)"
    )


def no_core(number: int) -> str:
    return f"no core of {count(number, 'test')}"


_NOT_COMMON = ("worker_id", "testrun_uid", "item_index", "fkit")
"""Attributes by xdist and us that belong to one report."""

_EMPTY = (str, bytes, bool, int, float, list, tuple, dict, set, frozenset)


class CommonAttributes:
    """The attributes that plugins add to every report of a run, in workers.

    A report that the controller makes lacks them, and reporters may rely on them.
    """

    def __init__(self) -> None:
        self._common: dict[str, type[object]] | None = None
        self._early: list[pytest.TestReport] = []

    def learn(self, report: pytest.TestReport) -> None:
        found = vars(report)
        if self._common is None:
            self._common = {
                name: type(value) for name, value in found.items() if name not in _NOT_COMMON
            }
            for each in self._early:  # what reporters kept, they may look at in the end
                self.complete(each)
            return
        if self._common.keys() <= found.keys():
            return
        self._common = {name: kind for name, kind in self._common.items() if name in found}

    def tell(
        self,
        config: pytest.Config,
        nodeid: str,
        location: Location,
        reports: Iterable[pytest.TestReport],
    ) -> None:
        """Have plugins hear of a test by reports that the controller made, once completed."""
        hook = config.hook
        hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
        for report in reports:
            self.complete(report)
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)

    def complete(self, report: pytest.TestReport) -> None:
        """Give a report that the controller made the attributes that it lacks, empty.

        As soon as they are known.
        """
        add_facts(vars(report), made=True)
        if self._common is None:
            self._early.append(report)
        for name, kind in (self._common or {}).items():
            if name not in vars(report):
                setattr(report, name, kind() if kind in _EMPTY else None)
