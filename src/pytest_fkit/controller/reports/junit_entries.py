"""Our entries in the JUnit file: deaths are errors, no record is lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Sequence

import pytest

from ...compat import pytest_junit
from ...config.settings import ALONE
from ...own import own_builtins
from ...protocol.event_file import facts_of
from .report_attributes import attempts_of, death_of, gpus_of, split_headline

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ...compat.pytest_junit import LogXML

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
