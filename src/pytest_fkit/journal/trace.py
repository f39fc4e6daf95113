"""A journal as a timeline in Chrome's Trace Event Format, which ui.perfetto.dev opens.

The format is that of the document "Trace Event Format" by the Chromium authors: complete events
("X") nest by their times within one thread of one process; times are microseconds.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator

from ..own import own_builtins
from .events import Event, encode_list, gpu_names, xid_title
from .trace_events import LANES, TraceEvent, complete, counter, flow, instant, named

own_builtins(globals())

HEAD = b'{"displayTimeUnit":"ms","traceEvents":[\n'
TAIL = b"\n]}\n"

_FIGURES = (
    "user", "system", "peak_memory", "minor_faults", "major_faults", "read", "written",
    "gpu_peak_memory",
)  # fmt: skip


class Timeline:
    """Turns events, in the order of a journal, into trace events.

    A worker of one run is a process of the trace. Times count from the first event; what a clock
    that was set back would put before the last slice of its lane begins where that one ends.
    """

    def __init__(self) -> None:
        self._base: float | None = None
        self._run: Event = {}
        self._number = 0
        self._pids: dict[tuple[int, str], int] = {}
        self._ends: dict[tuple[int, str], int] = {}
        self._up: dict[str, float] = {}
        self._gpus: dict[str, list[str]] = {}
        self._followed: dict[str, tuple[int, int, int]] = {}
        self._arrows = 0

    def take(self, happened: Event) -> Iterator[TraceEvent]:
        """What an event adds to the trace."""
        if self._base is None:
            self._base = happened["wall"]
        name = happened["event"]
        if name == "run":
            self._run, self._number = happened, self._number + 1
            self._up.clear()
            self._gpus = dict(happened.get("slices", {}))
            self._followed.clear()
        elif name == "gpus":
            yield from self._gpus_used(happened)
        elif name == "xid":
            yield from self._xid(happened)
        elif name in _HANDLERS:
            worker = str(happened.get("worker"))
            if name == "worker_up":
                self._gpus[worker] = happened.get("gpus", [])
            yield from self._announced(worker)
            yield from _HANDLERS[name](self, self._pids[self._number, worker], worker, happened)

    def _ts(self, wall: float) -> int:
        assert self._base is not None
        return round((wall - self._base) * 1e6)

    def _announced(self, worker: str) -> Iterator[TraceEvent]:
        """Name the process and its lanes, the first time."""
        key = self._number, worker
        if key in self._pids:
            return
        pid = self._pids[key] = len(self._pids) + 1
        host = self._run.get("machine", {}).get("host", "")
        title = ", ".join(filter(None, (worker, gpu_names(self._gpus.get(worker, [])))))
        yield named("process", pid, 0, f"{title} ({host})" if host else title, pid)
        for lane, tid in LANES.items():
            yield named("thread", pid, tid, lane, tid)

    def _collection(self, pid: int, worker: str, happened: Event) -> Iterator[TraceEvent]:
        began = self._up.get(worker, float(self._run["wall"]))
        span = self._place(pid, "worker", began, happened["wall"] - began)
        about = {"tests": happened.get("tests")}
        yield complete(pid, "worker", "collection", "worker", span, about)

    def _worker(self, pid: int, worker: str, happened: Event) -> Iterator[TraceEvent]:
        if happened["event"] == "worker_up":
            self._up[worker] = happened["wall"]
        error = happened.get("error")
        text = "worker died" if error else happened["event"].replace("_", " ")
        about = {"error": error, "pid": happened.get("pid")}
        yield instant(pid, "worker", text, "worker", self._now(happened), about)

    def _gpu(self, pid: int, worker: str, happened: Event) -> Iterator[TraceEvent]:
        del worker
        name = happened["event"].replace("_", " ")
        what = happened.get("answer") or happened.get("category")
        about = {key: happened.get(key) for key in ("test", "reason", "message", "to", "to_gpus")}
        about["gpus"] = ",".join(happened.get("gpus", ()))
        title = f"{name}: {what}" if what else name
        lane = "tests" if "test" in happened else "worker"
        yield instant(pid, lane, title, "gpu", self._now(happened), about)

    def _gpus_used(self, happened: Event) -> Iterator[TraceEvent]:
        """Counters of each GPU, with the worker that owns it, or one of those that share it."""
        owners = {gpu: worker for worker, gpus in self._gpus.items() for gpu in gpus}
        at = self._now(happened)
        for gpu, figures in happened.get("used", {}).items():
            worker = owners.get(gpu)
            if worker is None:
                continue
            yield from self._announced(worker)
            pid = self._pids[self._number, worker]
            if "memory" in figures:
                size = round(figures["memory"] / 2**20, 1)
                yield counter(pid, f"GPU {gpu} memory", "MiB", size, at)
            if "utilisation" in figures:
                yield counter(pid, f"GPU {gpu}", "%", figures["utilisation"], at)

    def _xid(self, happened: Event) -> Iterator[TraceEvent]:
        """A mark with each worker that owns one of its GPUs."""
        gpus = set(happened.get("gpus", ()))
        about = {key: happened.get(key) for key in ("message", "process", "source")}
        about.update(gpus=",".join(sorted(gpus)), pid=happened.get("pid"))
        for worker, owned in list(self._gpus.items()):
            if gpus.intersection(owned):
                yield from self._announced(worker)
                pid = self._pids[self._number, worker]
                at = self._now(happened)
                yield instant(pid, "worker", xid_title(happened), "gpu", at, about)

    def _now(self, happened: Event) -> int:
        return max(0, self._ts(happened["wall"]))

    def _attempt(self, pid: int, worker: str, happened: Event) -> Iterator[TraceEvent]:
        del worker
        nodeid = str(happened.get("test"))
        for step in happened.get("wide", ()):
            span = self._place(pid, "wide fixtures", step["start"], step["duration"])
            name = f"{step['what']}: {step['label']}"
            yield complete(pid, "wide fixtures", name, "fixture", span, {"test": nodeid})
        span = self._place(pid, "tests", happened["start"], happened["duration"])
        yield complete(pid, "tests", nodeid, "test", span, _arguments(happened))
        yield from self._phases(pid, happened, span)
        yield from self._arrow(pid, nodeid, span)
        if happened.get("again"):
            self._followed[nodeid] = (pid, *span)
        ending = happened.get("ending", {})
        if ending.get("type", "Finished") != "Finished":
            title = str(ending.get("title", ending["type"]))
            yield instant(pid, "tests", title, "ending", span[1], {"test": nodeid, **ending})
        yield from _counters(pid, happened, span)

    def _phases(self, pid: int, happened: Event, span: tuple[int, int]) -> Iterator[TraceEvent]:
        phases = happened.get("phases", ())
        begins = [self._ts(each["start"]) for each in phases]
        end = span[0]
        for phase, begin, following in zip(phases, begins, [*begins[1:], span[1]]):
            begin = max(end, min(begin, span[1]))
            # A setup counts the time of wide fixtures, which has a lane of its own.
            end = max(begin, min(begin + round(phase["duration"] * 1e6), following, span[1]))
            about = {"outcome": phase["outcome"]}
            yield complete(pid, "tests", phase["when"], "phase", (begin, end), about)

    def _arrow(self, pid: int, nodeid: str, span: tuple[int, int]) -> Iterator[TraceEvent]:
        """From the attempt before, if there was one, to this."""
        before = self._followed.pop(nodeid, None)
        if before is None or before[1] > span[0]:  # a clock was set back
            return
        self._arrows += 1
        other, begin, end = before
        # An arrow belongs to the slice around its time, and a slice does not have its end.
        yield flow("s", other, self._arrows, max(begin, min(end - 1, span[0])))
        yield flow("f", pid, self._arrows, span[0])

    def _place(self, pid: int, lane: str, start: float, seconds: float) -> tuple[int, int]:
        """Begin and end of a slice that does not begin before the last of its lane ended."""
        begin = max(self._ts(start), self._ends.get((pid, lane), 0))
        end = self._ends[pid, lane] = max(begin, self._ts(start + seconds))
        return begin, end


def _arguments(attempt: Event) -> dict[str, Any]:
    names = ("pid", "attempt", "category", "shared", *_FIGURES)
    found = {name: attempt.get(name) for name in names}
    found["outcomes"] = ", ".join(str(each["outcome"]) for each in attempt.get("phases", ()))
    found["ending"] = attempt.get("ending", {}).get("title")
    found["xids"] = ", ".join(map(xid_title, attempt.get("xids", ())))
    found.update((f"metric {name}", it) for name, it in attempt.get("metrics", {}).items())
    return found


def _counters(pid: int, attempt: Event, span: tuple[int, int]) -> Iterator[TraceEvent]:
    """Peak memory, and CPU time per second, while the test ran; nothing after it."""
    if "user" not in attempt:
        return
    begin, end = span
    used = attempt["user"] + attempt["system"]
    share = 100 * used / ((end - begin) / 1e6) if end > begin else 0.0
    for name, unit, value in (
        ("peak memory", "MiB", attempt["peak_memory"] / 2**20),
        ("CPU", "%", share),
    ):
        for at, shown in ((begin, round(value, 1)), (end, 0)):
            yield counter(pid, name, unit, shown, at)


_HANDLERS: dict[str, Callable[[Timeline, int, str, Event], Iterator[TraceEvent]]] = {
    "attempt": Timeline._attempt,
    "worker_up": Timeline._worker,
    "worker_down": Timeline._worker,
    "collection": Timeline._collection,
    "gpu_error": Timeline._gpu,
    "retired": Timeline._gpu,
    "readmitted": Timeline._gpu,
    "probed": Timeline._gpu,
}


def is_shown(happened: Event) -> bool:
    """Whether a timeline has to know of the event."""
    return happened["event"] in _HANDLERS or happened["event"] in ("run", "gpus", "xid")


class Encoder:
    """Turns events into the text of a trace, piece by piece."""

    def __init__(self) -> None:
        self._timeline = Timeline()
        self._separator = b""

    def encode(self, events: Iterable[Event]) -> bytes:
        """What the events add to the text, between HEAD and TAIL."""
        added = [each for happened in events for each in self._timeline.take(happened)]
        if not added:
            return b""
        text = self._separator + encode_list(added)
        self._separator = b",\n"
        return text


def lines(events: Iterable[Event]) -> Iterator[bytes]:
    """A whole trace, in pieces.

    :param events: of one or more journals.
    """
    encoder = Encoder()
    yield HEAD
    for happened in events:
        yield encoder.encode((happened,))
    yield TAIL
