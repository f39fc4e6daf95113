"""Workers that are kept free for a test: one that needs GPUs of several, or a GPU alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Collection, Iterator, Mapping, Sequence

from ...gpu.devices import Nearness
from ...own import own_builtins
from .gangs import Gang, choose_gang
from .known_workers import Worker
from .units import Kind, Unit

own_builtins(globals())


@dataclass
class Reservation:
    """A gang that is kept free, or that runs the test.

    :param unit: of nothing but the test, to be given back.
    :param begun: whether the test was given to the leader.
    :param fillers: tests that members were given meanwhile.
    :param whole: whether the leader is to have the unit as its own, and the others go on then.
    """

    test: int
    unit: Unit
    gang: Gang
    begun: bool = False
    fillers: set[int] = field(default_factory=set)
    whole: bool = False


class Reservations:
    """Those of a run, the oldest first.

    :param workers: all, by name; somebody else's.
    :param unowned: GPUs that belong to no worker.
    :param nearness: of GPUs to each other.
    :param known: seconds that a test is known to take, None if nobody knows.
    """

    def __init__(
        self,
        workers: Mapping[str, Worker],
        unowned: Sequence[str],
        nearness: Nearness,
        known: Callable[[int], float | None],
    ) -> None:
        self._workers = workers
        self._unowned = unowned
        self._nearness = nearness
        self._known = known
        self._all: list[Reservation] = []

    def __iter__(self) -> Iterator[Reservation]:
        return iter(self._all)

    def needed(self, kind: Kind) -> bool:
        """Whether no worker runs such a test just as it comes."""
        if kind.alone and kind.gpus != 0:
            return True
        if not kind.gpus or kind.gpus < 2:
            return False
        return not any(worker.could(kind) for worker in self._workers.values())

    def possible(self, kind: Kind, test: int | None = None, held: bool = True) -> bool:
        """Whether a gang is there for such a test, now or later.

        :param held: whether of those, too, who begin nothing now.
        """
        workers = [each for each in self._workers.values() if held or not each.stopped]
        return choose_gang(kind, test, workers, self._unowned, self._nearness) is not None

    def choose(self, kind: Kind, test: int) -> Gang | None:
        """A gang of workers who are not reserved, and everybody who shares GPUs with it."""
        reserved = self.reserved()
        lent = {gpu for each in self._all for gpu in each.gang.gpus}
        workers = [each for each in self._trusted(kind, test) if each.name not in reserved]
        spare = [gpu for gpu in self._unowned if gpu not in lent]
        gang = choose_gang(kind, test, workers, spare, self._nearness)
        if gang is None:
            return None
        sharing = {
            worker.name for worker in self._workers.values() if set(worker.gpus) & set(gang.gpus)
        }
        if sharing & reserved.keys():
            return None
        return gang._replace(members=frozenset({gang.leader, *sharing}))

    def _trusted(self, kind: Kind, test: int) -> list[Worker]:
        """Who may be in a gang now; those who are suspect only where others are too few."""
        workers = [each for each in self._workers.values() if not each.stopped]
        others = [each for each in workers if not each.suspect]
        if not kind.avoid or len(others) == len(workers):
            return workers
        few = choose_gang(kind, test, others, self._unowned, self._nearness) is None
        return workers if few else others

    def reserved(self) -> dict[str, Reservation]:
        """Who is kept free, by name, and for what."""
        return {name: each for each in self._all for name in each.gang.members}

    def deadline(self, reservation: Reservation) -> float | None:
        """When the last member is expected to be free, None if that is not known, or all are.

        Tests that members were given meanwhile do not count: what has to end before is settled
        once and for all when the workers are reserved, so that no test waits for ever.
        """
        ends: list[float] = []
        for name in reservation.gang.members:
            worker = self._workers[name]
            tests = [test for test in worker.pending if test not in reservation.fillers]
            seconds = [self._known(test) for test in tests]
            if None in seconds:
                return None
            if seconds:
                ends.append(worker.since + sum(each for each in seconds if each is not None))
        return max(ends, default=None)

    def add(self, test: int, unit: Unit, gang: Gang, whole: bool = False) -> None:
        """Keep the gang free from now on."""
        self._all.append(Reservation(test, unit, gang, whole=whole))

    def ready(self) -> Iterator[Reservation]:
        """Those whose gang is free, and has to be given the test."""
        for each in self._all:
            if each.begun or each.whole:
                continue
            if all(self._workers[name].is_free for name in each.gang.members):
                yield each

    def join(self, worker: Worker) -> None:
        """One is new that may have GPUs of a gang: in the place of a member that is gone."""
        for each in self._all:
            if not (each.whole or set(each.gang.gpus).isdisjoint(worker.gpus)):
                each.gang = each.gang._replace(members=each.gang.members | {worker.name})

    def take_whole(self) -> list[Reservation]:
        """Those whose leader has to be given a unit, and who are not kept free any more."""
        found = [each for each in self._all if each.whole and self._may_have_whole(each.gang)]
        self._all = [each for each in self._all if each not in found]
        return found

    def _may_have_whole(self, gang: Gang) -> bool:
        leader = self._workers[gang.leader]
        others = gang.members - {gang.leader}
        at_rest = leader.waits and not leader.queue and not leader.recalled
        return at_rest and all(self._workers[name].is_free for name in others)

    def begun(self) -> set[int]:
        """Tests that were given to leaders."""
        return {each.test for each in self._all if each.begun}

    def lent(self, test: int) -> tuple[str, ...]:
        """The GPUs with which the test runs, if a gang was kept free for it."""
        return next((each.gang.gpus for each in self._all if each.test == test and each.begun), ())

    def end(self, test: int) -> None:
        """The test is over."""
        self._all = [each for each in self._all if each.test != test]

    def give_back(self, tests: Collection[int]) -> None:
        """A leader has not begun these, and will not."""
        self._all = [each for each in self._all if not (each.begun and each.test in tests)]

    def cancel(self, name: str) -> list[Reservation]:
        """What a worker was kept free for, but its leader was not given: somebody else has to."""
        cancelled = [each for each in self._all if name in each.gang.members and not each.begun]
        self._all = [each for each in self._all if each not in cancelled]
        return cancelled

    def lose_leader(self, name: str) -> None:
        """A worker is gone; without another member a test that was begun goes on."""
        self._all = [each for each in self._all if each.gang.leader != name]
