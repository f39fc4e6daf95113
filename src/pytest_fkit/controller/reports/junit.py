"""What the JUnit file says beyond what pytest itself writes with workers."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Sequence

import pytest

from ...compat import pytest_junit
from ...config.settings import ALONE
from ...own import own_builtins
from ..retry.tried import attempts_of, gpus_of
from ..workers.death_texts import death_of

own_builtins(globals())


class Junit:
    """Plugin of the process that writes the JUnit file: deaths are errors, no record is lost.

    :param log: pytest's plugin.
    :param gpus: ids of those that this process owns, at ``-n0``.
    :param share: whether tests share processes, so that fixtures are set up again after a death.
    """

    def __init__(self, log: Any, gpus: Sequence[str], share: bool) -> None:
        self._share = share
        self._deaths: Counter[Any] = Counter()
        self._log = log
        self._gpus = gpus
        self._properties: dict[Any, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._endings: dict[str, str] = {}
        pytest_junit.junit_errors_for_deaths(log, _junit_error)
        pytest_junit.junit_properties(log, self._of_test)

    def _of_test(self, report: Any) -> dict[str, str]:
        properties = {
            "fkit_worker": str(getattr(report, "worker_id", ALONE)),
            "fkit_attempts": str(attempts_of(report)),
            "fkit_ending": self._endings.get(report.nodeid, "finished"),
        }
        gpus = gpus_of(report, self._gpus)
        if gpus:
            properties["fkit_gpus"] = ",".join(gpus)
        if getattr(report, "fkit_resumed", False):
            properties["fkit_resumed"] = "true"
        return properties

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add what fixtures of the test recorded, before the log sees the report."""
        headline = death_of(report)
        if headline is not None:
            self._endings[report.nodeid] = headline.partition(" at ")[0]
        worker = getattr(report, "node", None)
        for kind, name, value in getattr(report, "fkit_junit", ()):
            if kind != "property" or self._is_new(worker, name, value):
                pytest_junit.add_junit_record(self._log, report, kind, name, value)
        if self._share and headline is not None:
            self._deaths[worker] += 1

    def _is_new(self, worker: Any, name: str, value: str) -> bool:
        """Whether no other process said so as often: each has session fixtures of its own."""
        mine = self._properties[worker, self._deaths[worker]]
        others = max((said[name, value] for said in self._properties.values()), default=0)
        mine[name, value] += 1
        return mine[name, value] > others


def _junit_error(report: Any) -> tuple[str, str] | None:
    headline = death_of(report)
    if headline is None or not hasattr(report, "when"):
        return None
    output = "".join(f"\n--- {name} ---\n{text}" for name, text in report.sections)
    return f"died in {report.when}: {headline}", f"{report.longrepr}{output}"
