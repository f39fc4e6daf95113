"""Decides which tests get another attempt after an error, and which workers retire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Sequence

from ...config.settings import Settings
from ...named_tuple import NamedTuple
from ...own import own_builtins, threading
from ...protocol.border import GoOn, Holds, Order, ProbeGpus, Told
from ...protocol.event_file import GpuError
from ..schedule.machines import (
    gpu_ids,
    id_of,
    machine_name,
    machine_of,
    physical,
    physical_name,
    with_gpus,
)
from ..schedule.schedule import Schedule
from ..schedule.units import Kind
from .retries import Attempt, OpenAttempts, Retries, Retry, Rules, decide
from .trust import SliceTrust

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ...journal.recorder import Recorder

own_builtins(globals())

PAUSE = 10.0
"""Seconds before a retired worker's GPUs are probed again; doubled after each probe."""


class Edges(NamedTuple):
    """What others do on its behalf.

    :param tell: has plugins hear what a worker told of a test.
    :param later: has the main thread call a function; called in any thread.
    """

    show: Callable[[str], None]
    tell: Callable[[WorkerController, Sequence[Told]], None]
    order: Callable[[WorkerController, Order], None]
    later: Callable[[Callable[[], None]], None]


class Rerouting:
    """Decides on attempts that met errors of GPUs or the network, and on GPUs that are in doubt."""

    def __init__(self, settings: Settings, edges: Edges, recorder: Recorder | None) -> None:
        self._edges = edges
        self._recorder = recorder
        self._retries = Retries(settings.fail_on_retry)
        self._rules = Rules(settings.max_retries, settings.widen, settings.network_retries)
        self._trust = SliceTrust(settings.retire_after)
        self.open_attempts = OpenAttempts(self._begins, self._attempt_over)
        self._nodes: dict[str, WorkerController] = {}
        self._pauses: dict[frozenset[str], float] = {}
        self._timers: list[threading.Timer] = []
        self._to_probe: set[frozenset[str]] = set()
        self._reported_sick: set[str] = set()
        self._erred: set[str] = set()
        self._holding: dict[str, int] = {}
        self._suspects: set[str] = set()
        self._paused: set[str] = set()
        self._retired_dead_by_gpus: dict[frozenset[str], str] = {}
        self.retired: list[tuple[str, str]] = []
        """Workers with their GPUs that were retired, and why, also if they are back."""
        self.kept: list[tuple[str, str]] = []
        """Workers that went on with sick GPUs, since no other was left, and what is wrong."""

    def start(
        self,
        schedule: Schedule,
        nodeids: Sequence[str],
        kinds: Sequence[Kind],
        number: Callable[[WorkerController, int], int | None],
    ) -> None:
        """The distribution begins.

        :param nodeids: of tests, by their numbers.
        :param number: returns that of the test at a position of a worker's collection.
        """
        self._schedule = schedule
        self._nodeids = nodeids
        self._kinds = kinds
        self._number = number

    def add(self, node: WorkerController) -> None:
        """A worker takes part."""
        name = node.gateway.id
        self._nodes[name] = node
        if not gpu_ids(node):
            return
        gpus = frozenset(physical(node))
        self._trust.add(name, gpus)
        retired = self._retired_dead_by_gpus.pop(gpus, None)
        if self._trust.is_retired(name):
            self._retire_one(name, _shares(self._trust.sharing(name)[1]))
        elif retired is not None and self._trust.retire(name):
            self._retire(name, f"as {retired} before it")
        elif self._trust.in_doubt(name):  # as the one before it, which held
            self._holding[name] = 0
            self._retire_due()

    # --- attempts ---

    def ended(self, node: WorkerController, position: int) -> None:
        """A test that is not tried again ended there."""
        name, test = node.gateway.id, self._number(node, position)
        skipped = self.open_attempts.skipped(node, position)
        if name in self._erred:
            self._erred.discard(name)
        elif not skipped and (test is None or self._kinds[test].gpus != 0):
            # Others have not tried the GPUs.
            self._trust.ended(name)

    def _begins(self, node: WorkerController, position: int) -> bool:
        """A worker begins a test; whether that may be one of several attempts."""
        test = self._number(node, position)
        if test is None or test not in self._retries:
            return test is not None and self._rules.widens
        name, nodeid = node.gateway.id, self._nodeids[test]
        earlier = self._retries.before(test, self._kinds[test]).attempts
        title, last = earlier[-1].title(len(earlier)), earlier[-1]
        gpus = [*map(id_of, self._schedule.reservations.lent(test) or physical(node))]
        place = with_gpus(name, gpus, machine_of(node))
        self._edges.show(f"retrying {nodeid} on {place}; {title}")
        if self._recorder is not None:
            before = last.node.gateway.id, [*map(id_of, last.gpus)]
            self._recorder.retried(before, nodeid, last.told, last.category, (name, gpus))
        return True

    def _attempt_over(self, node: WorkerController, attempt: Attempt) -> Sequence[Told] | Retry:
        test = self._number(node, attempt.complete.position)
        if test is None:
            return attempt.told
        lent = self._schedule.reservations.lent(test)
        if lent:
            attempt = attempt._replace(gpus=lent)
        worker, error = node.gateway.id, attempt.error
        if error is not None and self._recorder is not None:
            self._recorder.erred(worker, self._nodeids[test], error.category, error.text)
        shared = list(attempt.gpus) == physical(node) and len(self._trust.sharing(worker)) > 1
        before = self._retries.before(test, self._kinds[test])
        there = self._on_machine(machine_of(node))
        decided = decide(attempt, before, self._rules, self._schedule.able, shared, there)
        if isinstance(decided, Retry):
            if error is not None:
                self._count(node, test, error, certain=False)
            self._retries.hold(test, attempt, decided.kind)
            return decided
        if test in self._retries:
            self._trust.resolve(test, everywhere=error is not None or attempt.skipped)
        elif error is not None:
            self._count(node, test, error, certain=True)
        if error is not None:
            self._erred.add(worker)
        told = self._retries.conclude(test, decided)
        self._retire_due()
        return told

    def _on_machine(self, machine: str) -> frozenset[str]:
        """A machine, and the GPUs of all workers on it."""
        nodes = [each for each in self._nodes.values() if machine_of(each) == machine]
        return frozenset(
            (machine_name(machine), *(gpu for each in nodes for gpu in physical(each)))
        )

    def _count(self, node: WorkerController, test: int, error: GpuError, certain: bool) -> None:
        """Count the error against the worker's GPUs, of a gang's GPUs against those that it names.

        If it names none, any of them may be at fault: none is trusted before tests ended well
        there.
        """
        lent = set(self._schedule.reservations.lent(test))
        if not lent or lent == set(physical(node)):
            self._trust.error(node.gateway.id, test, error, certain)
            return
        named = lent.intersection(physical_name(node, gpu) for gpu in error.gpus)
        for name, each in self._nodes.items():
            gpus = set(physical(each))
            if gpus & named:
                self._trust.error(name, test, error, certain)
            elif gpus & lent and not named and error.counts:
                self._trust.suspect(name)

    def retry(self, node: WorkerController, retry: Retry) -> str:
        """Requeue the test that ended there; its node id."""
        test = self._number(node, retry.position)
        assert test is not None
        self._schedule.completed(node.gateway.id, test, retry.seconds)
        if retry.pause:
            self._schedule.reopen(test)
            self._after(retry.pause, lambda: self._again(test, retry.kind))
        else:
            self._schedule.requeue(test, retry.kind)
        return self._nodeids[test]

    def _again(self, test: int, kind: Kind) -> None:
        if test in self._retries:
            self._schedule.requeue(test, kind)

    def unrunnable(self, test: int) -> bool:
        """No worker is left for a test; whether its last attempt is its verdict now."""
        if test not in self._retries:
            return False
        self._edges.tell(*self._retries.release(test, "no other worker could make one"))
        self._trust.resolve(test, everywhere=False)
        self._retire_due()
        return True

    def lost(self, name: str, test: int | None) -> bool:
        """A worker is gone.

        :param test: the one that it was running.
        :return: whether an earlier attempt at that is its verdict now.
        """
        node = self._nodes.pop(name, None)
        self.open_attempts.forget(node)
        self._holding.pop(name, None)
        if node is not None:
            gpus = frozenset(physical(node))
            if self._trust.is_retired(name):
                self._retired_dead_by_gpus[gpus] = name
            self._trust.remove(name, gpus)
        if test is None or test not in self._retries:
            return False
        self._edges.tell(*self._retries.release(test, f"worker {name} died during it"))
        self._trust.resolve(test, everywhere=True)  # nobody knows whose fault it was
        return True

    def holds(self, node: WorkerController, said: Holds) -> None:
        """A worker begins no test before it is told to."""
        name, error = node.gateway.id, said.error
        self._holding[name] = said.hold
        test = None if error is None else self._number(node, said.position)
        if error is None or test is None:
            return
        before = self._retries.before(test, self._kinds[test])
        if not before.attempts or (error.retry and self._rules.allow(before, error)):
            self._count(node, test, error, certain=False)
        else:
            self._trust.suspect(name)

    def answer(self) -> list[tuple[WorkerController, GoOn]]:
        """The answers to workers that hold; none to those whose GPUs are in doubt.

        Doubts end when the tests that failed there were tried elsewhere. If nobody else can do
        that, because all are in doubt, the worker goes on on which most tests ended well.
        """
        suspects = self._trust.suspects()
        if suspects != self._suspects:
            self._suspects = suspects
            self._schedule.suspect(suspects)
        going_on = []
        doubtful = []
        for name in list(self._holding):
            retired = self._trust.is_retired(name)
            if not retired and not self._trust.in_doubt(name):
                going_on.append(self._go_on(name))
                continue
            self._schedule.hold(name)
            if not retired:
                doubtful.append(name)
        if doubtful and not any(map(self._will_be_known, doubtful)):
            best = self._trust.sharing(max(doubtful, key=self._trust.well))
            going_on += [self._go_on(name) for name in best if name in doubtful]
            doubtful = [name for name in doubtful if name not in best]
        self._pause({other for name in doubtful for other in self._trust.sharing(name)})
        return going_on

    def _pause(self, names: set[str]) -> None:
        """Give these nothing to begin: workers with the same GPUs hold, or they hold themselves."""
        paused = names - self._holding.keys()
        if paused != self._paused:
            self._paused = paused
            self._schedule.pause(paused)

    def _will_be_known(self, name: str) -> bool:
        """Whether the state of a worker's GPUs will become known while all hold who hold now."""
        if any(self._schedule.running(each) is not None for each in self._trust.sharing(name)):
            return True
        return any(
            test in self._retries and self._schedule.able_now(self._retries.kinds[test], test)
            for test in self._trust.open_errors(name)
        )

    def _go_on(self, name: str) -> tuple[WorkerController, GoOn]:
        self._schedule.go_on(name)
        return self._nodes[name], GoOn(self._holding.pop(name))

    # --- retiring ---

    def probed(self, node: WorkerController, state: str, reason: str) -> None:
        name = node.gateway.id
        self._record("probed", name, answer=state, reason=reason)
        if self._trust.is_retired(name):
            if not self._trust.probed(name, state):
                self._probe_later(frozenset(physical(node)))
                return
            for each in self._trust.sharing(name):
                self._readmit(each, "two probes in a row found it healthy", reason)
        elif state == "sick":
            if self._trust.retire(name):
                self._retire(name, f"probe: {reason}")
            elif name not in self._reported_sick:
                self._reported_sick.add(name)
                self._keep(name, f"probe: {reason}")

    def _retire_due(self) -> None:
        for name, reason in self._trust.to_retire():
            self._retire(name, reason)

    def _retire(self, name: str, reason: str) -> None:
        first, *others = self._trust.sharing(name)
        self._retire_one(first, reason)
        for each in others:
            self._retire_one(each, _shares(first))
        gpus = frozenset(physical(self._nodes[name]))
        self._pauses[gpus] = PAUSE
        self._probe_later(gpus)

    def _retire_one(self, name: str, reason: str) -> None:
        self._schedule.retire(name)
        self.retired.append((self._place(name), reason))
        self._edges.show(f"fkit: {self._place(name)} is retired: {reason}")
        self._record("retired", name, reason=reason)

    def _keep(self, name: str, reason: str) -> None:
        """Say that a worker would be retired if it were not the last."""
        self.kept.append((self._place(name), reason))
        self._edges.show(f"fkit: {self._place(name)} goes on, since no other is left: {reason}")
        self._record("not_retired", name, reason=reason)

    def _readmit(self, name: str, shown: str, recorded: str) -> None:
        self._schedule.readmit(name)
        place = self._place(name)
        self.retired[:] = [
            (each, f"{why}; back: {shown}" if each == place and "; back: " not in why else why)
            for each, why in self.retired
        ]
        self._edges.show(f"fkit: {place} is back: {shown}")
        self._record("readmitted", name, reason=recorded)

    def bring_back(self) -> None:
        """If all workers that are left are retired, give them tests again."""
        for name in self._trust.only_retired():
            self._trust.readmit(name)
            reason = "no other worker is left"
            self._readmit(name, reason, reason)

    def _probe_later(self, gpus: frozenset[str]) -> None:
        if gpus in self._to_probe:
            return
        self._to_probe.add(gpus)
        pause = self._pauses[gpus]
        self._pauses[gpus] = 2 * pause
        self._after(pause, lambda: self._probe(gpus))

    def _after(self, pause: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(pause, lambda: self._edges.later(action))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _probe(self, gpus: frozenset[str]) -> None:
        self._to_probe.discard(gpus)
        for name, node in self._nodes.items():
            if self._trust.is_retired(name) and gpus == frozenset(physical(node)):
                self._edges.order(node, ProbeGpus())
                break  # one probe for all who share them

    def _record(self, event: str, worker: str, **fields: str) -> None:
        if self._recorder is not None:
            self._recorder.about_gpus(event, worker, **fields)

    def _place(self, name: str) -> str:
        node = self._nodes.get(name)
        return name if node is None else with_gpus(name, gpu_ids(node), machine_of(node))

    def close(self) -> None:
        """The run is over: end probing, and tell what was held."""
        for timer in self._timers:
            timer.cancel()
        for node, told in self._retries.release_all():
            self._edges.tell(node, told)


def _shares(other: str) -> str:
    return f"it has the same GPUs as {other}"
