"""When what happened, and where: lanes, spans and marks on the axis of a session's time.

The axis has seconds since the session began. A run that was resumed after a night goes on a second
after the one that was cut off: only time in which something could run is on the axis.
"""

from __future__ import annotations

import re
from typing import Callable, Iterable

from ...gpu.devices import gpu_names
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ..events import Event, death_title, is_of_machine, wide_title, xid_title
from ..history import AttemptHistory
from .readable import readable

own_builtins(globals())

_GAP = 1.0
"""Seconds between two runs of a session."""

MOST_SAMPLES = 20_000
"""Samples of a GPU's memory that are kept; of neighbours the larger one is."""

MOST_OF_ALL = 100_000
"""Samples of all GPUs: they are most of what a page reads before it can be used."""

FINISHED, DIED, ERROR, SICK, WELL, XID, RUN, NETWORK = range(8)
"""Kinds of marks; the script has the same list."""


class Lane(NamedTuple):
    """A worker of a session, and the ids of its GPUs."""

    session: int
    worker: str
    gpus: tuple[str, ...]


class LaneAttempt(NamedTuple):
    """An attempt at a test, and where it is shown.

    :param lane: index of its lane.
    """

    attempt: AttemptHistory
    lane: int
    start: float
    duration: float


class Wide(NamedTuple):
    """The set-up or teardown of a wide fixture, or the collection."""

    lane: int
    start: float
    duration: float
    label: str


class Mark(NamedTuple):
    """A moment.

    :param lane: -1 if it is the whole session's.
    :param nodeid: of the test that it is about, or "".
    """

    session: int
    lane: int
    at: float
    kind: int
    text: str
    nodeid: str = ""


class GpuMemoryLine(NamedTuple):
    """Bytes in use of a GPU, each from its moment on."""

    session: int
    gpu: str
    samples: list[tuple[float, float]]


class Timeline:
    """Takes the events of journals in their order, as :func:`..history.history` does."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.wide: list[Wide] = []
        self.marks: list[Mark] = []
        self.ends: list[float] = []
        """By session, where its axis ends."""
        self.starts: list[list[tuple[float, float]]] = []
        """By session, where on the axis each run begins, and the time of day."""
        self._memory: dict[tuple[int, str], list[tuple[float, float]]] = {}
        self._samples: dict[tuple[int, str], list[tuple[float, float]]] = {}
        self._numbers: dict[tuple[int, str], int] = {}
        self._session = ""
        self._base = 0.0
        self._up: dict[int, float] = {}

    @property
    def memory(self) -> list[GpuMemoryLine]:
        most = min(MOST_SAMPLES, MOST_OF_ALL // max(len(self._memory), 1) + 1)
        return [
            GpuMemoryLine(session, gpu, _thinned(samples, most))
            for (session, gpu), samples in sorted(
                self._memory.items(), key=lambda each: (each[0][0], in_natural_order(each[0][1]))
            )
        ]

    def add(self, happened: Event) -> None:
        enter = _HANDLERS.get(happened["event"])
        if happened["event"] == "run":
            self._run(happened)
        else:
            at = self._at(happened["wall"])
            if enter is not None:
                enter(self, at, happened)

    def placed(self, session: int, attempt: AttemptHistory) -> LaneAttempt:
        """Where an attempt is on the axis, once all events have been added."""
        event, starts = attempt.event, self.starts[session]
        base, wall = starts[attempt.run]
        begin = event["wall"] if attempt.is_cut_off else event["start"]
        start = max(begin - wall + base, base)
        if attempt.is_cut_off:
            is_last = attempt.run + 1 == len(starts)
            end = self.ends[session] if is_last else starts[attempt.run + 1][0] - _GAP
        else:
            end = max(begin + max(event["duration"], 0.0) - wall + base, base)
        return LaneAttempt(
            attempt, self._numbers[session, str(event["worker"])], start, end - start
        )

    def _run(self, run: Event) -> None:
        if str(run.get("session", "")) == self._session and self.ends:
            at = self.ends[-1] + _GAP
            self._base = run["wall"] - at
            self._enter(Mark(self._number, -1, at, RUN, "resumed"))
            self.starts[-1].append((at, run["wall"]))
        else:
            self._session = str(run.get("session", ""))
            self._base = run["wall"]
            self.ends.append(0.0)
            self.starts.append([(0.0, run["wall"])])
        self._at(run["wall"])
        for worker, gpus in run.get("slices", {}).items():
            self._lane(worker, gpus)

    @property
    def _number(self) -> int:
        return len(self.ends) - 1

    def _at(self, wall: float) -> float:
        """Where it is on the axis, which reaches at least that far; never before its begin."""
        at = max(wall - self._base, self.starts[-1][-1][0])
        self.ends[-1] = max(self.ends[-1], at)
        return at

    def _lane(self, worker: str, gpus: Iterable[str] = ()) -> int:
        key = self._number, worker
        if key not in self._numbers:
            self._numbers[key] = len(self.lanes)
            self.lanes.append(Lane(self._number, readable(worker), ()))
        number = self._numbers[key]
        known = tuple(map(readable, gpus))
        if known and not self.lanes[number].gpus:
            self.lanes[number] = self.lanes[number]._replace(gpus=known)
        return number

    def _enter(self, mark: Mark) -> None:
        self.marks.append(mark._replace(text=readable(mark.text)))

    # --- events ---

    def _start(self, _: float, happened: Event) -> None:
        self._lane(str(happened["worker"]))

    def _worker_up(self, at: float, happened: Event) -> None:
        lane = self._lane(str(happened["worker"]), happened.get("gpus", ()))
        if happened.get("host"):
            name = readable(f"{happened['worker']} on {happened['host']}")
            self.lanes[lane] = self.lanes[lane]._replace(worker=name)
        self._up[lane] = at

    def _collection(self, at: float, happened: Event) -> None:
        lane = self._lane(str(happened["worker"]))
        begin = self._up.pop(lane, self.starts[-1][-1][0])
        self.wide.append(Wide(lane, begin, at - begin, "collection"))

    def _attempt(self, _: float, happened: Event) -> None:
        lane = self._lane(str(happened["worker"]), happened.get("gpus", ()))
        self._at(happened["start"])
        end = self._at(happened["start"] + max(happened["duration"], 0.0))
        for step in happened.get("wide", ()):
            begin = self._at(step["start"])
            wide = self._at(step["start"] + max(step["duration"], 0.0))
            self.wide.append(Wide(lane, begin, wide - begin, readable(wide_title(step))))
        death = death_title(happened)
        if death:
            self._enter(Mark(self._number, lane, end, DIED, death, str(happened["test"])))

    def _used(self, at: float, happened: Event) -> None:
        session = self._number
        for gpu, figures in happened["used"].items():
            if "memory" in figures:
                samples = self._samples.get((session, gpu))
                if samples is None:
                    samples = self._memory.setdefault((session, readable(gpu)), [])
                    self._samples[session, gpu] = samples
                samples.append((at, figures["memory"]))

    def _xid(self, at: float, happened: Event) -> None:
        gpus = set(map(readable, happened["gpus"]))
        text = " on ".join(filter(None, (xid_title(happened), gpu_names(sorted(gpus)))))
        owners = [
            number
            for number, lane in enumerate(self.lanes)
            if lane.session == self._number and gpus.intersection(lane.gpus)
        ]
        for lane in owners or [-1]:
            self._enter(Mark(self._number, lane, at, XID, text))

    def _mark(self, at: float, happened: Event) -> None:
        name = happened["event"]
        kind, text = _MARKED[name], name.replace("_", " ")
        if name == "worker_down":
            if not happened.get("error"):
                return
            text = f"the worker died: {happened['error']}"
        elif name == "probed":
            if happened.get("answer") == "healthy":
                return
            text = f"probe: {happened.get('answer', '?')}"
        elif name == "gpu_error":
            text = f"GPU error: {happened.get('category', '?')}"
            if is_of_machine(happened):
                text = "error of the machine"
        reason = happened.get("reason") or happened.get("message")
        if reason:
            text = f"{text}: {reason}"
        worker = happened.get("worker")
        lane = -1 if worker is None else self._lane(str(worker), happened.get("gpus", ()))
        self._enter(Mark(self._number, lane, at, kind, text, str(happened.get("test", ""))))


_MARKED = {
    "worker_down": DIED,
    "gpu_error": ERROR,
    "network_error": NETWORK,
    "retired": SICK,
    "not_retired": SICK,
    "probed": SICK,
    "readmitted": WELL,
    "session_timeout": RUN,
}
"""Events that are marks, with their kinds."""

_HANDLERS: dict[str, Callable[[Timeline, float, Event], None]] = {
    "start": Timeline._start,
    "attempt": Timeline._attempt,
    "worker_up": Timeline._worker_up,
    "collection": Timeline._collection,
    "gpus": Timeline._used,
    "xid": Timeline._xid,
    **dict.fromkeys(_MARKED, Timeline._mark),
}


def in_natural_order(name: str) -> list[tuple[int, str]]:
    """Sorts "gw10" after "gw9"."""
    parts = re.split("([0-9]{1,15})", name)
    return [(int(part), "") if at % 2 else (0, part) for at, part in enumerate(parts)]


def _thinned(samples: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    step = -(-len(samples) // most)
    if step <= 1:
        return samples
    values = [value for _, value in samples]
    return [
        (samples[first][0], max(values[first : first + step]))
        for first in range(0, len(samples), step)
    ]
