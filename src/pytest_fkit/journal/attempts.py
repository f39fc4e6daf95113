"""What a journal keeps of pytest's reports, of an attempt at a test, and of its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterable, Sequence

from ..own import own_builtins
from ..protocol.border import ItemAttempt
from ..protocol.endings import Ending
from ..protocol.event_file import Location, Quarantined, ReportFacts, facts_of
from .added import added
from .events import Event, capped, event, now, plain

if TYPE_CHECKING:
    import pytest

own_builtins(globals())

KeptReport = Dict[str, Any]
"""A report as a journal has it: see docs/reference/journal.md."""

_FACTS = ("death", "worker", "core", "artifacts", "leftovers", "gpu_memory", "shared", "sanitizers")
"""The fields of our ReportFacts that a journal keeps, as in "fkit_death"."""

# The fields of a Usage (sandbox/child/usage.py), in its order.
_USED = ("user", "system", "peak_memory", "minor_faults", "major_faults", "read", "written")


def kept(report: pytest.TestReport) -> KeptReport:
    """What a journal keeps of a report; empty fields are left out."""
    found: KeptReport = {
        "when": report.when,
        "outcome": report.outcome,
        "duration": round(report.duration, 6),
    }
    start = getattr(report, "start", 0.0)
    if start:
        found["start"] = round(start, 6)
    if report.longrepr:
        _keep_longrepr(found, report.longrepr)
    if report.sections:
        found["sections"] = [[name, capped(text)] for name, text in report.sections]
    if report.user_properties:
        found["properties"] = [[str(name), plain(it)] for name, it in report.user_properties]
    if hasattr(report, "wasxfail"):
        found["xfail"] = str(report.wasxfail)
    if getattr(report, "rerun", 0):
        found["rerun"] = report.rerun
    of_plugins = added(report)
    if of_plugins:
        found["added"] = of_plugins
    _keep_facts(found, facts_of(report))
    return found


def _keep_facts(found: KeptReport, facts: ReportFacts) -> None:
    if facts.quarantined is not None:
        found["fkit_quarantined"] = facts.quarantined.reason
        found["text"], found["message"] = map(capped, facts.quarantined[1:])
    for name in _FACTS:
        if getattr(facts, name):
            found[f"fkit_{name}"] = getattr(facts, name)


def facts_again(report: KeptReport) -> dict[str, Any]:
    """The fields of our ReportFacts that a journal has kept."""
    said = {name: report[f"fkit_{name}"] for name in _FACTS if f"fkit_{name}" in report}
    again = {name: tuple(it) if isinstance(it, list) else it for name, it in said.items()}
    if "fkit_quarantined" in report:
        texts = (report["fkit_quarantined"], report.get("text", ""), report.get("message", ""))
        again["quarantined"] = Quarantined(*texts)
    return again


def _keep_longrepr(found: KeptReport, longrepr: Any) -> None:
    if isinstance(longrepr, tuple):
        path, line, reason = longrepr
        number = line if isinstance(line, int) else None
        found["skip"] = [str(path), number, capped(str(reason))]
        return
    found["text"] = capped(str(longrepr))
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        found["message"] = capped(str(crash.message))


def verdict(reports: Sequence[KeptReport]) -> str:
    """One word for all reports on a test.

    The first of "error" (in setup or teardown, or the test's process died), "failed",
    "quarantined", "xfailed", "xpassed" and "skipped" that applies to a report, else "passed".
    Attempts that another plugin repeated have outcomes of their own and don't count. A test that
    passed has a report on its call: without one a report was lost, and the verdict is "error".
    """
    words = {_word(report) for report in reports}
    for word in ("error", "failed", "quarantined", "xfailed", "xpassed", "skipped"):
        if word in words:
            return word
    return "passed" if is_whole(reports) else "error"


def is_whole(reports: Sequence[KeptReport]) -> bool:
    """Whether one of these says how the test ended: by its call, or by what went wrong."""
    return any(
        report["outcome"] != "rerun"
        and (report["when"] not in ("setup", "teardown") or report["outcome"] != "passed")
        for report in reports
    )


def _word(report: KeptReport) -> str:
    outcome = str(report["outcome"])
    if "fkit_quarantined" in report:
        return "quarantined"
    if outcome == "failed":
        return "failed" if report["when"] == "call" and "fkit_death" not in report else "error"
    if "xfail" in report and outcome in ("skipped", "passed"):
        return "xfailed" if outcome == "skipped" else "xpassed"
    return outcome


def by_clock_of_controller(attempt: ItemAttempt, ahead: float) -> ItemAttempt:
    """An attempt with the times of the controller's clock.

    :param ahead: seconds by which the clock of the worker's machine is ahead of that.
    """
    if not ahead:
        return attempt
    phases = tuple((name, start - ahead, took, said) for name, start, took, said in attempt.phases)
    wide = tuple((what, label, start - ahead, took) for what, label, start, took in attempt.wide)
    return attempt._replace(start=attempt.start - ahead, phases=phases, wide=wide)


class Running:
    """A test that has begun on a worker and has no verdict yet.

    :param earlier_attempts: how many other workers have made.
    """

    def __init__(
        self, nodeid: str, worker: str, location: Location | None, earlier_attempts: int
    ) -> None:
        self._about = {"test": nodeid, "worker": worker}
        self._location = location
        self._earlier_attempts = earlier_attempts
        self._begun = now()
        self._written: int | None = None  # reports, None before its start
        self.reports: list[KeptReport] = []
        self.gpus: Sequence[str] | None = None
        """The ids of the GPUs that the test saw, None for those of its worker."""
        self.facts: ItemAttempt | None = None
        self.awaited = 0
        """How many reports are still to come when `facts` are known."""

    def add(self, report: pytest.TestReport) -> None:
        self.reports.append(kept(report))
        self.gpus = facts_of(report).gpus

    def unwritten(self) -> Iterable[Event]:
        """Events on its start and its reports that the journal lacks while it runs."""
        if self._written is None:
            self._written = 0
            yield {"event": "start", **self._begun, **self._about, "location": self._location}
        for report in self.reports[self._written :]:
            yield event("report", **self._about, **report)
        self._written = len(self.reports)

    @property
    def attempt_number(self) -> int:
        """Number of the attempt, from 1; those of pytest-rerunfailures count, too."""
        reruns = max([each.get("rerun", 0) for each in self.reports], default=0)
        return self._earlier_attempts + 1 + reruns

    def attempt(
        self, at: Event, facts: ItemAttempt, gpus: Sequence[str], category: str = ""
    ) -> Event:
        """The event on an attempt that has ended.

        :param at: its times, see :func:`.events.now`.
        :param category: of the GPU error that it met, if any.
        """
        phases = [
            {
                "when": when,
                "start": round(start, 6),
                "duration": round(seconds, 6),
                "outcome": outcome,
            }
            for when, start, seconds, outcome in facts.phases
        ]
        attempt = {
            "event": "attempt", **at, **self._about, "attempt": self.attempt_number,
            "pid": facts.pid, "start": round(facts.start, 6),
            "duration": _span(facts.start, phases), "phases": phases,
            "ending": _described(facts.ending), **dict(zip(_USED, facts.used)),
        }  # fmt: skip
        wide = [
            {"what": what, "label": label, "start": round(start, 6), "duration": round(seconds, 6)}
            for what, label, start, seconds in facts.wide
        ]
        optional = {
            "gpus": list(gpus), "again": facts.again, "category": category, "wide": wide,
            "metrics": {name: plain(value) for name, value in facts.metrics},
            "shared": facts.shared, "leftovers": facts.leftovers, "xids": facts.xids,
        }  # fmt: skip
        attempt.update((name, value) for name, value in optional.items() if value)
        return attempt

    @property
    def message(self) -> str:
        """The one-line reason why the test did not pass, "" if it did."""
        for report in self.reports:
            if report["outcome"] == "failed":
                text = report.get("fkit_death") or report.get("message") or report.get("text", "")
                return str(text).partition("\n")[0]
        for report in self.reports:
            if "skip" in report or "xfail" in report:
                return str(report["skip"][2] if "skip" in report else report["xfail"])
        return ""

    def verdict(self, at: Event) -> Event:
        """The event on the verdict."""
        outcome = {
            "event": "verdict", **at, **self._about, "attempt": self.attempt_number,
            "outcome": verdict(self.reports), "location": self._location, "reports": self.reports,
        }  # fmt: skip
        if self.message:
            outcome["message"] = self.message
        return outcome


def _described(ending: Ending) -> Event:
    return {"type": type(ending).__name__, "title": ending.title, **ending._asdict()}


def _span(start: float, phases: list[Event]) -> float:
    end: float = max([each["start"] + each["duration"] for each in phases], default=start)
    return round(end - start, 6)
