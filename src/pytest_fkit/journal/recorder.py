"""What is told of tests, in the order of its arrival, as events of the journal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Iterable, Sequence

from ..endings import from_wire
from .events import Event, event, plain
from .verdicts import Kept, kept, message, verdict

Sink = Callable[[Sequence[Event]], None]

# Of a Usage (sandbox/usage.py), in its order.
_USED = ("user", "system", "peak_memory", "minor_faults", "major_faults", "read", "written")


class _Running:
    """A test that has begun and has no verdict."""

    def __init__(self, location: Any) -> None:
        self.location = location
        self.begun = event("start")
        self.reports: list[Kept] = []
        self.written: int | None = None  # reports, None before its start
        self.facts: dict[str, Any] | None = None
        self.left = 0


class Recorder:
    """Tells its sinks what happens.

    Nobody else may hear of a report before :meth:`commit` was called. Of a test that is not over
    by then, its start and its reports are told; of any other, only the attempt and the verdict,
    which say the same.
    """

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self._running: dict[tuple[str, str], _Running] = {}
        self._touched: dict[tuple[str, str], None] = {}
        self._events: list[Event] = []
        self._gpus: dict[str, list[str]] = {}

    def owns(self, worker: str, gpus: Sequence[str]) -> None:
        """From now on these GPUs, by their ids, are the worker's."""
        self._gpus[worker] = list(gpus)

    def worker_up(self, worker: str, pid: int, gpus: Sequence[str]) -> None:
        """A worker has started.

        :param pid: 0 if unknown.
        :param gpus: the ids of those that it owns.
        """
        self.owns(worker, gpus)
        self.add(event("worker_up", worker=worker, pid=pid, gpus=list(gpus)))

    def add(self, happened: Event) -> None:
        """Something else than a test."""
        self._events.append(happened)
        self.commit()

    def take(self, worker: str, told: Iterable[tuple[Any, ...]]) -> None:
        """What a worker's WorkerReports sent, its reports made report objects, and commit."""
        for kind, *values in told:
            if kind == "logstart":
                self.begin(worker, *values)
            elif kind == "testreport":
                self.report(worker, *values)
            elif kind == "attempt":
                self.attempt(worker, *values)
        self.commit()

    def begin(self, worker: str, nodeid: str, location: Any) -> None:
        """The test begins."""
        key = worker, str(nodeid)
        if key not in self._running:  # otherwise another attempt
            self._running[key] = _Running(location)
        self._touched[key] = None

    def report(self, worker: str, report: Any) -> None:
        """A report on the test."""
        key = worker, str(report.nodeid)
        if key not in self._running:
            self.begin(worker, report.nodeid, report.location)
        running = self._running[key]
        running.reports.append(kept(report))
        self._touched[key] = None
        if running.facts is not None:
            running.left -= 1
            self._conclude_if_complete(key, running)

    def attempt(
        self, worker: str, nodeid: str, facts: dict[str, Any], left: int, again: bool = False
    ) -> None:
        """What Attempt.facts knows of the test, after which `left` more reports come.

        :param again: whether another attempt follows, and no verdict.
        """
        key = worker, str(nodeid)
        if again and key in self._running:
            self._events.append(self._attempt(key, self._running[key], facts))
            return
        running = self._running.get(key)
        if running is not None and (running.reports or left):
            running.facts, running.left = facts, left
            self._conclude_if_complete(key, running)

    def commit(self) -> None:
        """Tell the sinks."""
        for key in self._touched:
            if key in self._running:
                self._events += _unfinished(key, self._running[key])
        self._touched.clear()
        if self._events:
            events, self._events = self._events, []
            for sink in self.sinks:
                sink(events)

    def _conclude_if_complete(self, key: tuple[str, str], running: _Running) -> None:
        if running.left <= 0:
            del self._running[key]
            assert running.facts is not None
            attempt = self._attempt(key, running, running.facts)
            self._events += attempt, _verdict(key, running, attempt["attempt"])

    def _attempt(self, key: tuple[str, str], running: _Running, facts: dict[str, Any]) -> Event:
        return _attempt(key, running, facts, self._gpus.get(key[0], ()))


def _unfinished(key: tuple[str, str], running: _Running) -> Iterable[Event]:
    worker, nodeid = key
    if running.written is None:
        running.written = 0
        yield {**running.begun, "test": nodeid, "worker": worker, "location": running.location}
    for report in running.reports[running.written :]:
        yield event("report", test=nodeid, worker=worker, **report)
    running.written = len(running.reports)


def _number(running: _Running) -> int:
    """Of the attempt, from 1, as pytest-rerunfailures counts."""
    return 1 + max((each.get("rerun", 0) for each in running.reports), default=0)


def _attempt(
    key: tuple[str, str], running: _Running, facts: dict[str, Any], gpus: Sequence[str]
) -> Event:
    worker, nodeid = key
    ending = from_wire(tuple(facts["ending"]))
    phases = [
        {"when": when, "start": round(start, 6), "duration": round(seconds, 6), "outcome": outcome}
        for when, start, seconds, outcome in facts["phases"]
    ]
    attempt = event(
        "attempt", test=nodeid, worker=worker, attempt=_number(running), pid=facts["pid"],
        start=round(facts["start"], 6), duration=_span(facts["start"], phases), phases=phases,
        ending={"type": type(ending).__name__, "title": ending.title, **asdict(ending)},
    )  # fmt: skip
    attempt.update(zip(_USED, facts["used"]))
    if gpus:
        attempt["gpus"] = list(gpus)
    _add_what_is_there(attempt, facts)
    return attempt


def _verdict(key: tuple[str, str], running: _Running, attempt: int) -> Event:
    worker, nodeid = key
    outcome = event(
        "verdict", test=nodeid, worker=worker, attempt=attempt,
        outcome=verdict(running.reports), location=running.location, reports=running.reports,
    )  # fmt: skip
    reason = message(running.reports)
    if reason:
        outcome["message"] = reason
    return outcome


def _span(start: float, phases: list[dict[str, Any]]) -> float:
    end: float = max((each["start"] + each["duration"] for each in phases), default=start)
    return round(end - start, 6)


def _add_what_is_there(attempt: Event, facts: dict[str, Any]) -> None:
    if facts["wide"]:
        attempt["wide"] = [
            {"what": what, "label": label, "start": round(start, 6), "duration": round(seconds, 6)}
            for what, label, start, seconds in facts["wide"]
        ]
    if facts["metrics"]:
        attempt["metrics"] = {name: plain(value) for name, value in facts["metrics"].items()}
    for name in ("shared", "leftovers"):
        if facts[name]:
            attempt[name] = facts[name]
