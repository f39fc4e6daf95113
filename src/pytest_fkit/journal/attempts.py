"""The events on one attempt at a test, and on its verdict."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Iterable, Sequence

from ..own import own_builtins
from ..protocol.endings import Ending, Finished, from_wire, to_wire
from .events import Event, event, now, plain
from .verdicts import Kept, message, verdict

own_builtins(globals())

# Of a Usage (sandbox/child/usage.py), in its order.
_USED = ("user", "system", "peak_memory", "minor_faults", "major_faults", "read", "written")


class Running:
    """A test that has begun on a worker and has no verdict.

    :param before: attempts at it that other workers made.
    """

    def __init__(self, nodeid: str, worker: str, location: Any, before: int) -> None:
        self._about = {"test": nodeid, "worker": worker}
        self._location = location
        self._before = before
        self._begun = now()
        self._written: int | None = None  # reports, None before its start
        self.reports: list[Kept] = []
        self.facts: dict[str, Any] | None = None
        self.left = 0
        """Reports that are still to come when `facts` are known."""

    def unfinished(self) -> Iterable[Event]:
        """What was not told yet, before it is over."""
        if self._written is None:
            self._written = 0
            yield {"event": "start", **self._begun, **self._about, "location": self._location}
        for report in self.reports[self._written :]:
            yield event("report", **self._about, **report)
        self._written = len(self.reports)

    @property
    def attempt_number(self) -> int:
        """Of the attempt, from 1; those of pytest-rerunfailures count, too."""
        return self._before + 1 + max([each.get("rerun", 0) for each in self.reports], default=0)

    def attempt(
        self,
        at: Event,
        facts: dict[str, Any],
        gpus: Sequence[str],
        again: bool = False,
        category: str = "",
    ) -> Event:
        """The event on an attempt that is over.

        :param at: its times, see :func:`.events.now`.
        :param facts: see Attempt.facts.
        :param gpus: ids of those that it could use.
        :param again: whether another attempt follows.
        :param category: of the GPU error that it met, if so.
        """
        phases = [
            {
                "when": when,
                "start": round(start, 6),
                "duration": round(seconds, 6),
                "outcome": outcome,
            }
            for when, start, seconds, outcome in facts["phases"]
        ]
        attempt = {
            "event": "attempt", **at, **self._about, "attempt": self.attempt_number,
            "pid": facts["pid"], "start": round(facts["start"], 6),
            "duration": _span(facts["start"], phases), "phases": phases,
            "ending": _ending(tuple(facts["ending"])), **dict(zip(_USED, facts["used"])),
        }  # fmt: skip
        if gpus:
            attempt["gpus"] = list(gpus)
        if again:
            attempt["again"] = again
        if category:
            attempt["category"] = category
        _add_what_is_there(attempt, facts)
        return attempt

    def verdict(self, at: Event) -> Event:
        """The event on the verdict.

        :param at: its times, see :func:`.events.now`.
        """
        outcome = {
            "event": "verdict", **at, **self._about, "attempt": self.attempt_number,
            "outcome": verdict(self.reports), "location": self._location, "reports": self.reports,
        }  # fmt: skip
        reason = message(self.reports)
        if reason:
            outcome["message"] = reason
        return outcome


def _described(ending: Ending) -> dict[str, Any]:
    return {"type": type(ending).__name__, "title": ending.title, **asdict(ending)}


_FINISHED = to_wire(Finished()), _described(Finished())


def _ending(data: tuple[Any, ...]) -> dict[str, Any]:
    wire, described = _FINISHED
    return described if data == wire else _described(from_wire(data))


def _span(start: float, phases: list[dict[str, Any]]) -> float:
    end: float = max([each["start"] + each["duration"] for each in phases], default=start)
    return round(end - start, 6)


def _add_what_is_there(attempt: Event, facts: dict[str, Any]) -> None:
    if facts["wide"]:
        attempt["wide"] = [
            {"what": what, "label": label, "start": round(start, 6), "duration": round(seconds, 6)}
            for what, label, start, seconds in facts["wide"]
        ]
    if facts["metrics"]:
        attempt["metrics"] = {name: plain(value) for name, value in facts["metrics"].items()}
    for name in ("shared", "leftovers", "xids"):
        if facts.get(name):
            attempt[name] = facts[name]
