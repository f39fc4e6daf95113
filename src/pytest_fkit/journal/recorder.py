"""Turns what workers report, in the order of its arrival, into events of the journal."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Sequence

from ..own import own_builtins
from ..protocol.border import ItemAttempt, ItemStarted, RepeatedItem, Reported, Told
from ..protocol.endings import Lost
from ..protocol.event_file import NETWORK, Location
from .attempts import Running, by_clock_of_controller, is_whole
from .events import Event, event, now, plain

if TYPE_CHECKING:
    import pytest

own_builtins(globals())

Sink = Callable[[Sequence[Event]], None]

GpusUsed = Dict[str, Dict[str, int]]
"""By GPU id, as far as they are known: "memory" in use, in bytes, and "utilisation" in per cent."""

MOST_SAMPLES = 36_000
"""Samples that are kept: those of an hour in which usage changes all the time."""


class GpuUsage:
    """Samples in order of time; each holds until the next."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, GpusUsed]] = deque(maxlen=MOST_SAMPLES)

    def add(self, wall: float, usage: GpusUsed) -> None:
        self._samples.append((wall, usage))

    def peak(self, gpus: Sequence[str], start: float, end: float) -> int | None:
        """The most memory that these GPUs had in use together, None if it was not sampled.

        :param start: in seconds since the epoch, as `end`.
        """
        most = None
        for wall, usage in reversed(self._samples):
            known = [usage[gpu]["memory"] for gpu in gpus if "memory" in usage.get(gpu, ())]
            if wall <= end and known:
                most = max(most or 0, sum(known))
            if wall <= start:
                break
        return most


class Recorder:
    """Hands events to its sinks.

    No plugin may see a report before :meth:`commit` was called. The start and the reports of a test
    are recorded if it is still running by then; if it has ended, its attempt and its verdict are
    enough.
    """

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self._running: dict[tuple[str, str], Running] = {}
        self._touched: dict[tuple[str, str], None] = {}
        self._events: list[Event] = []
        self._gpus: dict[str, list[str]] = {}
        self._ahead: dict[str, float] = {}
        self._earlier_attempts: dict[str, int] = {}
        self._usage = GpuUsage()
        self.mask: Callable[[Event], Event] | None = None
        """What takes secrets out of events."""
        self.samplers: list[Callable[[], None]] = []
        """Called before a test with GPUs is recorded; they call :meth:`gpus_used` and
        :meth:`xid`."""

    def add(self, happened: Event) -> None:
        self._events.append(happened)
        self.commit()

    # --- workers ---

    def owns(self, worker: str, gpus: Sequence[str]) -> None:
        self._gpus[worker] = list(gpus)

    def worker_up(
        self, worker: str, pid: int, gpus: Sequence[str], machine: str = "", ahead: float = 0.0
    ) -> None:
        """A worker has started.

        :param pid: 0 if unknown.
        :param machine: its machine, "" for the controller's.
        :param ahead: seconds by which the clock there is ahead of this one.
        """
        self._ahead[worker] = ahead
        self.owns(worker, gpus)
        where = {"host": machine} if machine else {}
        self.add(event("worker_up", worker=worker, pid=pid, gpus=list(gpus), **where))

    def gpus_used(self, wall: float, mono: float, usage: GpusUsed) -> None:
        """Add a sample of the GPUs' usage; it is written with the next event."""
        self._usage.add(wall, usage)
        self._events.append({"event": "gpus", "wall": wall, "mono": mono, "used": usage})

    def xid(self, wall: float, mono: float, facts: Event) -> None:
        """NVIDIA's driver reported a GPU error; it is written with the next event.

        :param facts: see :meth:`.gpu.xids.Xid.facts`.
        """
        self._events.append({"event": "xid", "wall": wall, "mono": mono, **facts})

    def about_gpus(self, name: str, worker: str, **fields: object) -> None:
        """Add an event of this name about the GPUs of a worker, as "retired"."""
        self.add(event(name, worker=worker, gpus=self._gpus.get(worker, []), **fields))

    # --- tests ---

    def running(
        self, name: str, worker: str, gpus: Sequence[str], nodeid: str, **fields: object
    ) -> None:
        """A test runs.

        :param name: "slow", or "running" if somebody asked.
        """
        known = {each: plain(value) for each, value in fields.items()}
        self.add(event(name, test=nodeid, worker=worker, gpus=list(gpus), **known))

    def record(self, worker: str, messages: Iterable[object]) -> None:
        """Record what a worker said of tests (:data:`.border.Told`), and commit."""
        for each in messages:
            if isinstance(each, Reported):
                self.report(worker, each.report)
            elif isinstance(each, ItemStarted):
                self.begin(worker, *each)
            elif isinstance(each, ItemAttempt):
                self._attempt(worker, each)
            elif isinstance(each, RepeatedItem):
                self._repeated(worker, each)
        self.commit()

    def begin(self, worker: str, nodeid: str, location: Location | None) -> None:
        """A test begins, or another attempt at it on the same worker."""
        key = worker, str(nodeid)
        if key not in self._running:
            self._running[key] = self._new_running(key, location)
        self._touched[key] = None

    def _new_running(self, key: tuple[str, str], location: Location | None) -> Running:
        worker, nodeid = key
        return Running(nodeid, worker, location, self._earlier_attempts.get(nodeid, 0))

    def report(self, worker: str, report: pytest.TestReport) -> None:
        key = worker, str(report.nodeid)
        if key not in self._running:
            self.begin(worker, report.nodeid, report.location)
        running = self._running[key]
        running.add(report)
        self._touched[key] = None
        if running.facts is not None:
            running.awaited -= 1
            self._conclude_if_complete(key, running)

    def _attempt(self, worker: str, attempt: ItemAttempt) -> None:
        key = worker, str(attempt.nodeid)
        running = self._running.get(key)
        if running is not None and attempt.again:
            self._end_attempt(worker, running, now(), attempt)
        elif running is not None and (running.reports or attempt.left):
            running.facts, running.awaited = attempt, attempt.left
            self._conclude_if_complete(key, running)

    def repetition(
        self,
        worker: str,
        nodeid: str,
        reports: Iterable[pytest.TestReport],
        attempt: ItemAttempt | None,
        about: Event,
    ) -> None:
        """A repetition of a test has ended on a worker, and plugins do not hear of it.

        :param attempt: what the worker sent of it, None if the worker died.
        """
        key = worker, str(nodeid)
        running = self.forget(*key) or self._new_running(key, None)
        self._earlier_attempts.pop(key[1], None)
        running.reports.clear()
        for each in reports:
            running.add(each)
        known = attempt or ItemAttempt(nodeid, now()["wall"], Lost(f"worker {worker} died"))
        self._end_attempt(worker, running, now(), known._replace(again=False))
        self._events[-1]["repetition"] = about
        if running.message:
            self._events[-1]["message"] = running.message

    def _repeated(self, worker: str, repeated: RepeatedItem) -> None:
        """Conclude a test of which plugins hear the reports of one repetition."""
        running = self.forget(worker, repeated.nodeid)
        if running is not None:
            verdict = running.verdict(now())
            self._events.append({**verdict, "repeated": repeated.result.event()})

    def _conclude_if_complete(self, key: tuple[str, str], running: Running) -> None:
        # Otherwise reports were lost, and the verdict is the error that reports that.
        if running.awaited <= 0 and is_whole(running.reports):
            assert running.facts is not None
            del self._running[key]
            self._earlier_attempts.pop(key[1], None)
            at = now()
            self._end_attempt(key[0], running, at, running.facts)
            self._events.append(running.verdict(at))

    def _end_attempt(
        self, worker: str, running: Running, at: Event, facts: ItemAttempt, category: str = ""
    ) -> None:
        gpus = self._gpus.get(worker, []) if running.gpus is None else running.gpus
        facts = by_clock_of_controller(facts, self._ahead.get(worker, 0.0))
        attempt = running.attempt(at, facts, gpus, category)
        if gpus and self.samplers:
            for sample in self.samplers:
                sample()
            start = attempt["start"]
            peak = self._usage.peak(gpus, start, start + attempt["duration"])
            if peak is not None:
                attempt["gpu_peak_memory"] = peak
        self._events.append(attempt)

    def erred(self, worker: str, nodeid: str, category: str, message: str) -> None:
        """A test met an error of its worker's GPUs or the network; a retry is recorded separately.

        :param category: as in "memory".
        """
        if category == NETWORK:
            self.about_gpus("network_error", worker, test=nodeid, message=message)
        else:
            self.about_gpus("gpu_error", worker, test=nodeid, category=category, message=message)

    def retried(
        self,
        before: tuple[str, Sequence[str]],
        nodeid: str,
        messages: Iterable[Told],
        category: str,
        to: tuple[str, Sequence[str]],
    ) -> None:
        """An attempt gives no verdict: another worker, or the same one, runs the test again.

        :param before, to: the workers, and the GPUs that the test had, and has now.
        :param messages: what the first one sent of the attempt, which was held back from plugins.
        """
        worker, gpus = before
        key = worker, str(nodeid)
        running = self.forget(*key) or self._new_running(key, None)
        for each in messages:
            if isinstance(each, Reported):
                running.add(each.report)
            elif isinstance(each, ItemAttempt):
                running.facts = each
        if running.facts is not None:
            facts = running.facts._replace(again=True)
            self._end_attempt(worker, running, now(), facts, category)
        number = self._earlier_attempts[key[1]] = running.attempt_number
        self.add(
            event(
                "retried", test=key[1], attempt=number, category=category, worker=worker,
                gpus=list(gpus), to=to[0], to_gpus=list(to[1]),
            )
        )  # fmt: skip

    def forget(self, worker: str, nodeid: str) -> Running | None:
        """Discard, and return, what is known of a test that has begun on a worker."""
        key = worker, str(nodeid)
        self._touched.pop(key, None)
        return self._running.pop(key, None)

    def commit(self) -> None:
        for key in self._touched:
            if key in self._running:
                self._events += self._running[key].unwritten()
        self._touched.clear()
        if self._events:
            events, self._events = self._events, []
            if self.mask is not None:
                events = [self.mask(each) for each in events]
            for sink in self.sinks:
                sink(events)
