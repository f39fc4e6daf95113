"""Tests of which no worker reported a verdict."""

from __future__ import annotations

from typing import Any, Callable, Generator, Sequence

import pytest

from .. import private_api
from ..own import own_builtins
from .deaths import DeathText

own_builtins(globals())


class Unreported:
    """Plugin of the controller: a run that nobody stopped does not end without them.

    :param unrunnable: says why nobody could run a test, or "".
    """

    def __init__(self, config: pytest.Config, unrunnable: Callable[[str], str]) -> None:
        self._config = config
        self._unrunnable = unrunnable
        self._collected: dict[str, None] = {}
        self._last_ids: Sequence[str] = ()
        self._reported: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Take in what a worker collected; mostly that is what all others did."""
        if ids != self._last_ids:
            self._collected.update(dict.fromkeys(ids))
            self._last_ids = ids

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: Any) -> None:
        """A setup that passed is not a verdict yet, nor is what pytest-rerunfailures repeats."""
        if (report.when, report.outcome) != ("setup", "passed") and report.outcome != "rerun":
            self._reported.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """When xdist is through, report what is missing."""
        result = yield
        reason = private_api.xdist_gave_up(self._config)
        # Where nothing ran, for no such reason, the collection was refused, and is reported.
        if (reason or self._reported or any(map(self._unrunnable, self._collected))) and not (
            session.shouldfail or session.shouldstop
        ):
            for nodeid in self._collected:
                if nodeid not in self._reported:
                    self._report(nodeid, reason or self._unrunnable(nodeid) or "no worker ran it")
        return result

    def _report(self, nodeid: str, reason: str) -> None:
        path, _, name = nodeid.partition("::")
        location = (path, None, name.replace("::", "."))
        text = DeathText(
            f"not run: {reason}. The reports on tests whose worker died tell more; "
            "--max-worker-restart=N lets more workers take the places of dead ones"
        )
        text.message = f"not run: {reason}"
        hook: Any = self._config.hook
        hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
        for when, outcome, longrepr in (("setup", "failed", text), ("teardown", "passed", None)):
            hook.pytest_runtest_logreport(
                report=pytest.TestReport(nodeid, location, {}, outcome, longrepr, when)  # type: ignore[arg-type]
            )
        hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)
