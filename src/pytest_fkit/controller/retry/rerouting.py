"""GPU errors on the controller: which tests are tried again elsewhere, which workers retire."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Iterable, NamedTuple, Sequence

from ...config.settings import Settings
from ...gpu.errors.failure import GpuError
from ...own import own_builtins, threading
from ...protocol.border import GoOn, Order, ProbeGpus, Told
from ..schedule.decisions import Retry
from ..schedule.schedule import Schedule
from ..schedule.units import Kind
from .retries import Attempt, Retries, Screen, ids, physical, physical_name
from .trust import Slices

if TYPE_CHECKING:
    from ...journal.recorder import Recorder

own_builtins(globals())

PAUSE = 10.0
"""Seconds before a retired worker's GPUs are tried again; twice as many each time after that."""


class Edges(NamedTuple):
    """What is done for it elsewhere.

    :param show: writes a line to the terminal.
    :param tell: has plugins hear what a worker told of a test.
    :param order: sends a worker a message.
    :param later: calls a function on the main thread, called in any.
    """

    show: Callable[[str], None]
    tell: Callable[[Any, Sequence[Told]], None]
    order: Callable[[Any, Order], None]
    later: Callable[[Callable[[], None]], None]


class Rerouting:
    """Decides on attempts that met GPU errors, and on workers whose GPUs are in doubt.

    :param recorder: hears of it, if there is one.
    """

    def __init__(self, settings: Settings, edges: Edges, recorder: Recorder | None) -> None:
        self._edges = edges
        self._recorder = recorder
        self._retries = Retries(settings.max_retries, settings.fail_on_retry)
        self._slices = Slices(settings.retire_after)
        self._widens = settings.widen
        self._screen = Screen(self._has_attempts, self._over)
        self._announced: set[tuple[int, int]] = set()
        self._nodes: dict[str, Any] = {}
        self._pauses: dict[frozenset[str], float] = {}
        self._timers: list[threading.Timer] = []
        self._to_probe: set[frozenset[str]] = set()
        self._said: set[str] = set()
        self._erred: set[str] = set()
        self._holding: dict[str, int] = {}
        self._suspects: set[str] = set()
        self._paused: set[str] = set()
        # By their GPUs, which those who replace them have.
        self._left_retired: dict[frozenset[str], str] = {}
        self.retired: list[tuple[str, str]] = []
        """Workers with their GPUs that were retired, and why."""

    def start(
        self,
        schedule: Schedule,
        nodeids: Sequence[str],
        kinds: Sequence[Kind],
        number: Callable[[Any, int], int | None],
    ) -> None:
        """The distribution begins.

        :param nodeids: of tests, by their numbers.
        :param kinds: what they need.
        :param number: of the test at a position of a worker's collection.
        """
        self._schedule = schedule
        self._nodeids = nodeids
        self._kinds = kinds
        self._number = number

    def add(self, node: Any) -> None:
        """A worker takes part."""
        name = node.gateway.id
        self._nodes[name] = node
        if ids(node):
            gpus = frozenset(physical(node))
            self._slices.add(name, gpus)
            retired = self._left_retired.pop(gpus, None)
            if self._slices.is_retired(name):
                self._retire_one(name, _shares(self._slices.sharing(name)[1]))
            elif retired is not None and self._slices.retire(name):
                self._retire(name, f"as {retired} before it")
            elif self._slices.in_doubt(name):  # as the one before it was, which held
                self._holding[name] = 0
                self._retire_who_is_due()

    # --- what is told ---

    def pass_on(self, node: Any, told: Iterable[Told]) -> list[Told | Retry]:
        """See Screen."""
        return self._screen.pass_on(node, told)

    def ended(self, node: Any) -> None:
        """A test ended there that is not tried again."""
        name = node.gateway.id
        if name in self._erred:
            self._erred.discard(name)
        else:
            self._slices.ended(name)

    def _has_attempts(self, node: Any, position: int) -> bool:
        test = self._number(node, position)
        return test is not None and (self._widens or test in self._retries)

    def _over(
        self, node: Any, position: int, attempt: Attempt, seconds: float
    ) -> Sequence[Told | Retry]:
        test = self._number(node, position)
        if test is None:
            return attempt.told
        lent = self._schedule.reservations.lent(test)
        if lent:
            attempt = replace(attempt, gpus=lent)
        if attempt.error is not None and self._recorder is not None:
            self._recorder.gpu_error(
                node.gateway.id, self._nodeids[test], attempt.error.category, attempt.error.text
            )
        if self._holds(test, node, attempt):
            return [Retry(position, seconds)]
        worker, error = node.gateway.id, attempt.error
        if test in self._retries:
            self._slices.resolve(test, everywhere=error is not None or attempt.skipped)
        elif error is not None:
            self._count(node, test, error, certain=True)
        if error is not None:
            self._erred.add(worker)
        told = self._retries.conclude(test, attempt)
        self._retire_who_is_due()
        return told

    def _holds(self, test: int, node: Any, attempt: Attempt) -> bool:
        kind = self._next_kind(test, node, attempt)
        if kind is None or not self._schedule.able(kind):
            return False
        if attempt.error is not None:
            self._count(node, test, attempt.error, certain=False)
        self._retries.hold(test, attempt, kind)
        return True

    def _count(self, node: Any, test: int, error: GpuError, certain: bool) -> None:
        """The error counts for the worker's GPUs, of a gang's for those that it names.

        If it names none, nobody knows for which: none of the gang's are trusted before tests ended
        well there.
        """
        lent = set(self._schedule.reservations.lent(test))
        if not lent or lent == set(physical(node)):
            self._slices.error(node.gateway.id, test, error, certain)
            return
        named = lent.intersection(physical_name(node, gpu) for gpu in error.gpus)
        for name, each in self._nodes.items():
            gpus = set(physical(each))
            if gpus & named:
                self._slices.error(name, test, error, certain)
            elif gpus & lent and not named and error.counts:
                self._slices.suspect(name)

    def _next_kind(self, test: int, node: Any, attempt: Attempt) -> Kind | None:
        """What another attempt needs, None if there is to be none."""
        error = attempt.error
        if error is None:
            wanted = attempt.wanted_gpus if self._widens and test not in self._retries else 0
            # What wide fixtures said when they were torn down after it is the failure of others.
            if not wanted or attempt.failed:
                return None
            return self._kinds[test]._replace(gpus=wanted)
        if not error.retry or not self._retries.may_follow(test):
            return None
        # With as many GPUs as this one had.
        kind = (self._retries.kinds if test in self._retries else self._kinds)[test]
        by_others = error.alone and not kind.alone and self._shared_gpus(node, attempt)
        kind = kind._replace(alone=error.alone)
        never = self._kinds[test].avoid
        avoiding = kind._replace(avoid=never.union(self._retries.gpus(test), attempt.gpus))
        if self._schedule.able(avoiding):
            return avoiding
        # Not all of a gang's GPUs can be others where there are few.
        workers = self._retries.workers_gpus(test).union(physical(node))
        elsewhere = kind._replace(avoid=never.union(workers))
        if by_others and not self._schedule.able(elsewhere):
            return kind._replace(avoid=never)
        return elsewhere

    def _shared_gpus(self, node: Any, attempt: Attempt) -> bool:
        """Whether others may have had memory that it lacked: not of a gang's GPUs."""
        own = list(attempt.gpus) == physical(node)
        return own and len(self._slices.sharing(node.gateway.id)) > 1

    def retry(self, node: Any, position: int, seconds: float) -> str:
        """Have the test tried elsewhere that ended there; its node id."""
        test = self._number(node, position)
        assert test is not None
        self._schedule.completed(node.gateway.id, test, seconds)
        self._schedule.requeue(test, self._retries.kinds[test])
        return self._nodeids[test]

    def sent(self, name: str, tests: Iterable[int]) -> None:
        """Tests are on their way to a worker: announce those that are tried again."""
        for test in tests:
            if test not in self._retries:
                continue
            attempt = self._retries.last(test)
            if (test, id(attempt)) in self._announced:
                continue
            self._announced.add((test, id(attempt)))
            nodeid = self._nodeids[test]
            self._edges.show(
                f"retrying {nodeid} on {name} after {attempt.reason} on {attempt.place}"
            )
            if self._recorder is not None:
                worker = attempt.node.gateway.id
                self._recorder.retried(worker, nodeid, attempt.told, attempt.category, name)

    def unrunnable(self, test: int) -> bool:
        """Nobody is left for a test; whether it had an attempt, which is its verdict now."""
        if test not in self._retries:
            return False
        self._edges.tell(*self._retries.release(test, "no other worker could make one"))
        self._slices.resolve(test, everywhere=False)
        self._retire_who_is_due()
        return True

    def lost(self, name: str, test: int | None) -> bool:
        """A worker is gone.

        :param test: the one that it was running.
        :return: whether that had an attempt before, which is its verdict now.
        """
        node = self._nodes.pop(name, None)
        self._screen.forget(node)
        self._holding.pop(name, None)
        if node is not None:
            gpus = frozenset(physical(node))
            if self._slices.is_retired(name):
                self._left_retired[gpus] = name
            self._slices.remove(name, gpus)
        if test is None or test not in self._retries:
            return False
        self._edges.tell(*self._retries.release(test, f"worker {name} died during it"))
        self._slices.resolve(test, everywhere=True)  # nobody knows whose fault it was
        return True

    # --- workers that hold ---

    def holds(self, node: Any, hold: int, position: int, error: GpuError | None) -> None:
        """A worker begins no test before it is told to.

        :param hold: number of that.
        :param position: of the test that met a GPU error, if one did.
        """
        name = node.gateway.id
        self._holding[name] = hold
        test = None if error is None else self._number(node, position)
        if error is None or test is None:
            return
        if test not in self._retries or (error.retry and self._retries.may_follow(test)):
            self._count(node, test, error, certain=False)
        else:
            self._slices.suspect(name)

    def answer(self) -> list[tuple[Any, GoOn]]:
        """What is to be sent to workers that hold, unless their GPUs are in doubt.

        That ends when tests that failed there were tried elsewhere. Where nobody else can do that,
        because all are in doubt, the one goes on that had most tests end well.
        """
        suspects = self._slices.suspects()
        if suspects != self._suspects:
            self._suspects = suspects
            self._schedule.suspect(suspects)
        going_on = []
        doubtful = []
        for name in list(self._holding):
            if self._slices.is_retired(name) or self._slices.in_doubt(name):
                self._schedule.hold(name)
                doubtful.append(name)
            else:
                going_on.append(self._go_on(name))
        doubtful = [name for name in doubtful if not self._slices.is_retired(name)]
        if doubtful and not any(map(self._will_be_known, doubtful)):
            best = self._slices.sharing(max(doubtful, key=self._slices.well))
            going_on += [self._go_on(name) for name in best if name in doubtful]
            doubtful = [name for name in doubtful if name not in best]
        self._pause({other for name in doubtful for other in self._slices.sharing(name)})
        return going_on

    def _pause(self, names: set[str]) -> None:
        """These begin nothing, since others with the same GPUs hold, or hold themselves."""
        paused = names - self._holding.keys()
        if paused != self._paused:
            self._paused = paused
            self._schedule.pause(paused)

    def _will_be_known(self, name: str) -> bool:
        """Whether more will be known of a worker's GPUs, though nobody goes on who holds."""
        if any(self._schedule.running(each) is not None for each in self._slices.sharing(name)):
            return True
        return any(
            test in self._retries and self._schedule.able_now(self._retries.kinds[test], test)
            for test in self._slices.open_errors(name)
        )

    def _go_on(self, name: str) -> tuple[Any, GoOn]:
        self._schedule.go_on(name)
        return self._nodes[name], GoOn(self._holding.pop(name))

    # --- retiring ---

    def probed(self, node: Any, state: str, reason: str) -> None:
        """A worker's GPUs were tried."""
        name = node.gateway.id
        if self._recorder is not None:
            self._recorder.probed(name, state, reason)
        if self._slices.is_retired(name):
            if self._slices.probed(name, state):
                self._readmit(name, reason)
            else:
                self._probe_later(self._gpus(name))
        elif state == "sick":
            if self._slices.retire(name):
                self._retire(name, f"probe: {reason}")
            elif name not in self._said:
                self._said.add(name)
                self._edges.show(
                    f"fkit: {self._place(name)}: probe: sick: {reason}; "
                    "it goes on, since no other worker is left"
                )

    def _retire_who_is_due(self) -> None:
        for name, reason in self._slices.to_retire():
            self._retire(name, reason)

    def _retire(self, name: str, reason: str) -> None:
        first, *others = self._slices.sharing(name)
        self._retire_one(first, reason)
        for each in others:
            self._retire_one(each, _shares(first))
        self._pauses[self._gpus(name)] = PAUSE
        self._probe_later(self._gpus(name))

    def _retire_one(self, name: str, reason: str) -> None:
        self._schedule.retire(name)
        self.retired.append((self._place(name), reason))
        self._edges.show(f"fkit: {self._place(name)} is retired: {reason}")
        if self._recorder is not None:
            self._recorder.retired(name, reason)

    def _readmit(self, name: str, reason: str) -> None:
        for each in self._slices.sharing(name):
            self._schedule.readmit(each)
            self._edges.show(
                f"fkit: {self._place(each)} is back: two probes in a row found it healthy"
            )
            if self._recorder is not None:
                self._recorder.readmitted(each, reason)

    def bring_back(self) -> None:
        """Nobody else is left: those who were retired get tests again, as the last one does."""
        for name in self._slices.only_retired():
            self._slices.readmit(name)
            self._schedule.readmit(name)
            self._edges.show(f"fkit: {self._place(name)} is back: no other worker is left")
            if self._recorder is not None:
                self._recorder.readmitted(name, "no other worker is left")

    def _gpus(self, name: str) -> frozenset[str]:
        return frozenset(physical(self._nodes[name]))

    def _probe_later(self, gpus: frozenset[str]) -> None:
        if gpus in self._to_probe:
            return
        self._to_probe.add(gpus)
        pause = self._pauses[gpus]
        self._pauses[gpus] = 2 * pause
        timer = threading.Timer(pause, lambda: self._edges.later(lambda: self._probe(gpus)))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _probe(self, gpus: frozenset[str]) -> None:
        self._to_probe.discard(gpus)
        for name, node in self._nodes.items():  # one for all who share them
            if self._slices.is_retired(name) and self._gpus(name) == gpus:
                self._edges.order(node, ProbeGpus())
                break

    def _place(self, name: str) -> str:
        gpus = ",".join(ids(self._nodes[name])) if name in self._nodes else ""
        return f"{name} (GPU {gpus})" if gpus else name

    def close(self) -> None:
        """The run is over: what was held is a verdict, nobody is probed any more."""
        for timer in self._timers:
            timer.cancel()
        for node, told in self._retries.release_all("the run ended before it"):
            self._edges.tell(node, told)


def _shares(other: str) -> str:
    return f"it has the same GPUs as {other}"
