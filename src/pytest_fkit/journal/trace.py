"""A journal as a timeline in Chrome's Trace Event Format, which ui.perfetto.dev opens.

The format is that of the document "Trace Event Format" by the Chromium authors: complete events
("X") nest by their times within one thread of one process; times are microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, Sequence

from ..gpu.devices import gpu_names
from ..own import own_builtins
from .events import (
    USAGE,
    Event,
    death_title,
    encode_list,
    is_of_machine,
    wide_title,
    xid_title,
)

if TYPE_CHECKING:
    from .files import AppendedFile

own_builtins(globals())

TraceEvent = Dict[str, Any]

_LANES = {"worker": 1, "wide fixtures": 2, "tests": 3}
"""The threads of a worker's process, by name."""

_HEAD = b'{"displayTimeUnit":"ms","traceEvents":[\n'
_TAIL = b"\n]}\n"


def _complete(
    pid: int, lane: str, name: str, category: str, span: tuple[int, int], arguments: Event
) -> TraceEvent:
    begin, end = span
    return {
        "ph": "X", "name": name, "cat": category, "pid": pid, "tid": _LANES[lane],
        "ts": begin, "dur": end - begin, "args": _without_empty(arguments),
    }  # fmt: skip


def _instant(
    pid: int, lane: str, name: str, category: str, at: int, arguments: Event
) -> TraceEvent:
    return {
        "ph": "i", "s": "t", "name": name, "cat": category, "pid": pid, "tid": _LANES[lane],
        "ts": at, "args": _without_empty(arguments),
    }  # fmt: skip


def _flow(what: str, pid: int, number: int, at: int) -> TraceEvent:
    """One end of an arrow between attempts: "s" where it starts, "f" where it ends."""
    end = {
        "ph": what, "name": "another attempt", "cat": "attempts", "id": number, "pid": pid,
        "tid": _LANES["tests"], "ts": at,
    }  # fmt: skip
    return {**end, "bp": "e"} if what == "f" else end


def _named(what: str, pid: int, tid: int, name: str, sort_index: int) -> TraceEvent:
    return {
        "ph": "M", "name": f"{what}_name", "pid": pid, "tid": tid, "ts": 0,
        "args": {"name": name, "sort_index": sort_index},
    }  # fmt: skip


def _counter(pid: int, name: str, unit: str, value: float, at: int) -> TraceEvent:
    """A number that holds from a moment on."""
    return {"ph": "C", "name": name, "pid": pid, "tid": 0, "ts": at, "args": {unit: value}}


def _without_empty(arguments: Event) -> Event:
    return {key: value for key, value in arguments.items() if value is not None and value != ""}


class _Timeline:
    """Turns events, in the order of a journal, into trace events.

    Each worker of each run is a process of the trace. Times count from the first event. If a clock
    was set back, so that a slice would begin before the last one of its lane ended, it begins where
    that one ends.
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
        self._hosts: dict[str, str] = {}
        self._arrows = 0
        self._separator = b""

    def encode(self, events: Iterable[Event]) -> bytes:
        """What the events add to the text of a trace, between head and tail."""
        added = [each for happened in events for each in self.convert(happened)]
        if not added:
            return b""
        separator, self._separator = self._separator, b",\n"
        return separator + encode_list(added)

    def convert(self, happened: Event) -> Iterator[TraceEvent]:
        if self._base is None:
            self._base = happened["wall"]
        name = happened["event"]
        if name == "run":
            self._run, self._number = happened, self._number + 1
            self._up.clear()
            self._gpus = dict(happened.get("slices", {}))
            self._followed.clear()
            self._hosts.clear()
        elif name == "gpus":
            yield from self._gpu_usage(happened)
        elif name == "xid":
            yield from self._xid(happened)
        elif name in _HANDLERS:
            worker = str(happened.get("worker"))
            if name == "worker_up":
                self._gpus[worker] = happened.get("gpus", [])
                self._hosts[worker] = str(happened.get("host", ""))
            yield from self._introduce(worker)
            yield from _HANDLERS[name](self, self._pid(worker), worker, happened)

    def _pid(self, worker: str) -> int:
        return self._pids[self._number, worker]

    def _ts(self, wall: float) -> int:
        assert self._base is not None
        return round((wall - self._base) * 1e6)

    def _now(self, happened: Event) -> int:
        return max(0, self._ts(happened["wall"]))

    def _introduce(self, worker: str) -> Iterator[TraceEvent]:
        """Name the process and its lanes, the first time."""
        key = self._number, worker
        if key in self._pids:
            return
        pid = self._pids[key] = len(self._pids) + 1
        host = self._hosts.get(worker) or self._run.get("machine", {}).get("host", "")
        title = ", ".join(filter(None, (worker, gpu_names(self._gpus.get(worker, [])))))
        yield _named("process", pid, 0, f"{title} ({host})" if host else title, pid)
        for lane, tid in _LANES.items():
            yield _named("thread", pid, tid, lane, tid)

    def _collection(self, pid: int, worker: str, happened: Event) -> Iterator[TraceEvent]:
        began = self._up.get(worker, float(self._run["wall"]))
        span = self._slice(pid, "worker", began, happened["wall"] - began)
        about = {"tests": happened.get("tests")}
        yield _complete(pid, "worker", "collection", "worker", span, about)

    def _worker(self, pid: int, worker: str, happened: Event) -> Iterator[TraceEvent]:
        if happened["event"] == "worker_up":
            self._up[worker] = happened["wall"]
        error = happened.get("error")
        text = "worker died" if error else happened["event"].replace("_", " ")
        about = {"error": error, "pid": happened.get("pid")}
        yield _instant(pid, "worker", text, "worker", self._now(happened), about)

    def _gpu(self, pid: int, _: str, happened: Event) -> Iterator[TraceEvent]:
        name = happened["event"].replace("_", " ")
        what = happened.get("answer") or happened.get("category")
        about = {key: happened.get(key) for key in ("test", "reason", "message", "to", "to_gpus")}
        about["gpus"] = ",".join(happened.get("gpus", ()))
        title = f"{name}: {what}" if what else name
        if is_of_machine(happened):
            title = "error of the machine"
        lane = "tests" if "test" in happened else "worker"
        yield _instant(pid, lane, title, "gpu", self._now(happened), about)

    def _network(self, pid: int, _: str, happened: Event) -> Iterator[TraceEvent]:
        about = {key: happened.get(key) for key in ("test", "message")}
        yield _instant(pid, "tests", "network error", "network", self._now(happened), about)

    def _gpu_usage(self, happened: Event) -> Iterator[TraceEvent]:
        """Counters of each GPU, with the worker that owns it, or one of those that share it."""
        owners = {gpu: worker for worker, gpus in self._gpus.items() for gpu in gpus}
        at = self._now(happened)
        for gpu, figures in happened.get("used", {}).items():
            worker = owners.get(gpu)
            if worker is None:
                continue
            yield from self._introduce(worker)
            pid = self._pid(worker)
            if "memory" in figures:
                size = round(figures["memory"] / 2**20, 1)
                yield _counter(pid, f"GPU {gpu} memory", "MiB", size, at)
            if "utilisation" in figures:
                yield _counter(pid, f"GPU {gpu}", "%", figures["utilisation"], at)

    def _xid(self, happened: Event) -> Iterator[TraceEvent]:
        """A mark with each worker that owns one of its GPUs."""
        gpus = set(happened.get("gpus", ()))
        about = {key: happened.get(key) for key in ("message", "process", "source", "pid")}
        about["gpus"] = ",".join(sorted(gpus))
        at, title = self._now(happened), xid_title(happened)
        for worker, owned in list(self._gpus.items()):
            if gpus.intersection(owned):
                yield from self._introduce(worker)
                yield _instant(self._pid(worker), "worker", title, "gpu", at, about)

    def _attempt(self, pid: int, _: str, happened: Event) -> Iterator[TraceEvent]:
        nodeid = str(happened.get("test"))
        for step in happened.get("wide", ()):
            span = self._slice(pid, "wide fixtures", step["start"], step["duration"])
            about = {"test": nodeid}
            yield _complete(pid, "wide fixtures", wide_title(step), "fixture", span, about)
        span = self._slice(pid, "tests", happened["start"], happened["duration"])
        yield _complete(pid, "tests", nodeid, "test", span, _arguments(happened))
        yield from self._phases(pid, happened, span)
        yield from self._arrow(pid, nodeid, span)
        if happened.get("again"):
            self._followed[nodeid] = (pid, *span)
        death = death_title(happened)
        if death:
            about = {"test": nodeid, **happened["ending"]}
            yield _instant(pid, "tests", death, "ending", span[1], about)
        yield from _counters(pid, happened, span)

    def _phases(self, pid: int, happened: Event, span: tuple[int, int]) -> Iterator[TraceEvent]:
        phases = happened.get("phases", ())
        begins = [self._ts(each["start"]) for each in phases]
        end = span[0]
        for phase, begin, following in zip(phases, begins, [*begins[1:], span[1]]):
            begin = max(end, min(begin, span[1]))
            # A setup includes the time of wide fixtures, which have a lane of their own.
            end = max(begin, min(begin + round(phase["duration"] * 1e6), following, span[1]))
            about = {"outcome": phase["outcome"]}
            yield _complete(pid, "tests", phase["when"], "phase", (begin, end), about)

    def _arrow(self, pid: int, nodeid: str, span: tuple[int, int]) -> Iterator[TraceEvent]:
        """From the attempt before, if there was one, to this."""
        before = self._followed.pop(nodeid, None)
        if before is None or before[1] > span[0]:  # a clock was set back
            return
        self._arrows += 1
        other, begin, end = before
        # An arrow belongs to the slice around its time, which does not include its own end.
        yield _flow("s", other, self._arrows, max(begin, min(end - 1, span[0])))
        yield _flow("f", pid, self._arrows, span[0])

    def _slice(self, pid: int, lane: str, start: float, seconds: float) -> tuple[int, int]:
        """Begin and end of a slice that does not begin before the last one of its lane ended."""
        begin = max(self._ts(start), self._ends.get((pid, lane), 0))
        end = self._ends[pid, lane] = max(begin, self._ts(start + seconds))
        return begin, end


def _arguments(attempt: Event) -> Event:
    names = ("pid", "attempt", "category", "shared", *USAGE)
    found = {name: attempt.get(name) for name in names}
    found["outcomes"] = ", ".join(str(each["outcome"]) for each in attempt.get("phases", ()))
    found["ending"] = attempt.get("ending", {}).get("title")
    found["xids"] = ", ".join(map(xid_title, attempt.get("xids", ())))
    found.update((f"metric {name}", it) for name, it in attempt.get("metrics", {}).items())
    return found


def _counters(pid: int, attempt: Event, span: tuple[int, int]) -> Iterator[TraceEvent]:
    """Peak memory, and CPU time per second, while the test ran; 0 after it."""
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
            yield _counter(pid, name, unit, shown, at)


_HANDLERS: dict[str, Callable[[_Timeline, int, str, Event], Iterator[TraceEvent]]] = {
    "attempt": _Timeline._attempt,
    "worker_up": _Timeline._worker,
    "worker_down": _Timeline._worker,
    "collection": _Timeline._collection,
    "gpu_error": _Timeline._gpu,
    "network_error": _Timeline._network,
    "retired": _Timeline._gpu,
    "not_retired": _Timeline._gpu,
    "readmitted": _Timeline._gpu,
    "probed": _Timeline._gpu,
}


def lines(events: Iterable[Event]) -> Iterator[bytes]:
    timeline = _Timeline()
    yield _HEAD
    for happened in events:
        yield timeline.encode((happened,))
    yield _TAIL


_BATCH = 200
_BATCH_SECONDS = 1.0


class TraceFile:
    """A sink of the recorder: the trace is written while the run goes on.

    Events are converted in batches: one by one, after each test, with other processes on the
    processor in between, took about twice as long.
    """

    def __init__(self, file: AppendedFile) -> None:
        self._file = file
        self._timeline = _Timeline()
        self._batch: list[Event] = []
        file.write(_HEAD)

    def add(self, events: Sequence[Event]) -> None:
        """Add events; write the batch if it is large, or old, or the run has ended."""
        self._batch += (
            each
            for each in events
            if each["event"] in _HANDLERS or each["event"] in ("run", "gpus", "xid")
        )
        last = events[-1]
        if last["event"] == "end":
            self.flush()
            self._file.write(_TAIL)
        elif self._batch and (
            len(self._batch) >= _BATCH or last["mono"] - self._batch[0]["mono"] >= _BATCH_SECONDS
        ):
            self.flush()

    def flush(self) -> None:
        batch, self._batch = self._batch, []
        self._file.write(self._timeline.encode(batch))
