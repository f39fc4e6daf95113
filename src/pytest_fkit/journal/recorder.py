"""What is told of tests, in the order of its arrival, as events of the journal."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Sequence

from ..own import own_builtins
from ..protocol.border import ItemAttempt, ItemStarted, Reported, Told
from .attempts import Running
from .events import Event, event, now
from .gpu_usage import GpuUsage, Seen, sample_event
from .verdicts import is_whole, kept

own_builtins(globals())

Sink = Callable[[Sequence[Event]], None]


class Recorder:
    """Tells its sinks what happens.

    Nobody else may hear of a report before :meth:`commit` was called. Of a test that is not over
    by then, its start and its reports are told; of any other, only the attempt and the verdict,
    which say the same.
    """

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self._running: dict[tuple[str, str], Running] = {}
        self._touched: dict[tuple[str, str], None] = {}
        self._events: list[Event] = []
        self._gpus: dict[str, list[str]] = {}
        self._before: dict[str, int] = {}
        self._usage = GpuUsage()
        self.looks: list[Callable[[], None]] = []
        """Called before a test that had GPUs is over; they call :meth:`gpus_used`, :meth:`xid`."""

    def add(self, happened: Event) -> None:
        """Something else than a test."""
        self._events.append(happened)
        self.commit()

    # --- workers ---

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

    def retired(self, worker: str, reason: str) -> None:
        """A worker gets no more tests, because of its GPUs."""
        self._about_gpus("retired", worker, reason=reason)

    def readmitted(self, worker: str, reason: str) -> None:
        """A worker that was retired gets tests again."""
        self._about_gpus("readmitted", worker, reason=reason)

    def probed(self, worker: str, answer: str, reason: str = "") -> None:
        """The GPUs of a worker were tried.

        :param answer: "healthy", "sick" or "unknown".
        """
        self._about_gpus("probed", worker, answer=answer, reason=reason)

    def gpus_used(self, wall: float, mono: float, seen: Seen) -> None:
        """What GPUs were seen to use, at these times; it is told with what comes next."""
        self._usage.add(wall, seen)
        self._events.append(sample_event(wall, mono, seen))

    def xid(self, wall: float, mono: float, facts: Event) -> None:
        """NVIDIA's driver reported an error of a GPU; it is told with what comes next.

        :param facts: see :meth:`.gpu.xids.Xid.facts`.
        """
        self._events.append({"event": "xid", "wall": wall, "mono": mono, **facts})

    def _about_gpus(self, name: str, worker: str, **fields: Any) -> None:
        self.add(event(name, worker=worker, gpus=self._gpus.get(worker, []), **fields))

    # --- tests ---

    def take(self, worker: str, told: Iterable[object]) -> None:
        """What a worker said of tests (:data:`.border.Told`, the rest says nothing), and commit."""
        for each in told:
            if isinstance(each, Reported):
                self.report(worker, each.report)
            elif isinstance(each, ItemStarted):
                self.begin(worker, *each)
            elif isinstance(each, ItemAttempt):
                self.attempt(worker, *each)
        self.commit()

    def begin(self, worker: str, nodeid: str, location: Any) -> None:
        """The test begins."""
        key = worker, str(nodeid)
        if key not in self._running:  # otherwise another attempt
            before = self._before.get(key[1], 0)
            self._running[key] = Running(key[1], worker, location, before)
        self._touched[key] = None

    def report(self, worker: str, report: Any) -> None:
        """A report on the test."""
        key = worker, str(report.nodeid)
        running = self._running.get(key)
        if running is None:
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
        running = self._running.get(key)
        if running is not None and again:
            self._attempt_over(worker, running, now(), facts, again)
        elif running is not None and (running.reports or left):
            running.facts, running.left = facts, left
            self._conclude_if_complete(key, running)

    def _conclude_if_complete(self, key: tuple[str, str], running: Running) -> None:
        # Otherwise the rest was lost: the verdict is the error that is made of that.
        if running.left <= 0 and is_whole(running.reports):
            assert running.facts is not None
            del self._running[key]
            self._before.pop(key[1], None)
            at = now()
            self._attempt_over(key[0], running, at, running.facts)
            self._events.append(running.verdict(at))

    def _attempt_over(
        self,
        worker: str,
        running: Running,
        at: Event,
        facts: dict[str, Any],
        again: bool = False,
        category: str = "",
    ) -> None:
        gpus = self._gpus.get(worker, [])
        attempt = running.attempt(at, facts, gpus, again, category)
        if gpus and self.looks:
            for look in self.looks:
                look()
            start = attempt["start"]
            peak = self._usage.peak(gpus, start, start + attempt["duration"])
            if peak is not None:
                attempt["gpu_peak_memory"] = peak
        self._events.append(attempt)

    def gpu_error(self, worker: str, nodeid: str, category: str, message: str = "") -> None:
        """A test met an error of its worker's GPUs; whether it is retried is told apart.

        :param category: as in "out of memory".
        :param message: a line of the error.
        """
        self._about_gpus("gpu_error", worker, test=nodeid, category=category, message=message)

    def retried(
        self, worker: str, nodeid: str, told: Iterable[Told], category: str, to: str
    ) -> None:
        """An attempt on `worker` gives no verdict: the test is run again by the worker `to`.

        :param told: what `worker` sent of it and was held back, see :meth:`take`.
        :param category: of the GPU error.
        """
        key = worker, str(nodeid)
        running = self._running.pop(key, None) or Running(
            key[1], worker, None, self._before.get(key[1], 0)
        )
        self._touched.pop(key, None)
        gpus = self._gpus.get(worker, [])
        for each in told:
            if isinstance(each, Reported):
                running.reports.append(kept(each.report))
            elif isinstance(each, ItemAttempt):
                running.facts = each.facts
        if running.facts is not None:
            self._attempt_over(worker, running, now(), running.facts, True, category)
        number = self._before[key[1]] = running.attempt_number
        self.add(
            event(
                "retried", test=key[1], attempt=number, category=category, worker=worker,
                gpus=gpus, to=to, to_gpus=self._gpus.get(to, []),
            )
        )  # fmt: skip

    def forget(self, worker: str, nodeid: str) -> None:
        """Discard what was said of the test: another worker runs it again."""
        key = worker, str(nodeid)
        self._running.pop(key, None)
        self._touched.pop(key, None)

    def commit(self) -> None:
        """Tell the sinks."""
        for key in self._touched:
            if key in self._running:
                self._events += self._running[key].unfinished()
        self._touched.clear()
        if self._events:
            events, self._events = self._events, []
            for sink in self.sinks:
                sink(events)
