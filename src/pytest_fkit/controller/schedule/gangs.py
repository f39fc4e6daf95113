"""Workers that are kept free for a test that needs GPUs of several, or a GPU alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Tuple

from ...gpu.devices import FAR, Nearness
from ...named_tuple import NamedTuple
from ...own import own_builtins
from .known_workers import KnownWorker
from .machines import machine_of_gpu
from .units import Kind, Unit

own_builtins(globals())

_Distance = Tuple[int, int]
"""How GPUs are connected; where that is unknown, FAR, and how far they are apart in order."""


class Gang(NamedTuple):
    """Workers that have to be free for a test.

    :param leader: the one that runs it.
    :param members: all, with the leader.
    """

    leader: str
    members: frozenset[str]
    gpus: tuple[str, ...]


class _Candidate(NamedTuple):
    """Workers of a machine that have enough GPUs; the best one is the lowest.

    :param spread: the distance of the two of their GPUs that are farthest from each other.
    :param busy: how many of them have something to do.
    :param length: how many places they are apart.
    """

    size: int
    spread: _Distance
    busy: int
    length: int
    members: list[KnownWorker]
    gpus: list[str]


def choose_gang(
    kind: Kind,
    test: int | None,
    workers: Iterable[KnownWorker],
    unowned: Iterable[str],
    nearness: Nearness,
) -> Gang | None:
    """The gang with the fewest workers, the closest GPUs and the fewest busy members.

    :param test: the leader has to have collected it.
    :param unowned: GPUs that may take part besides theirs.
    """
    several = (kind.gpus or 0) > 1

    def may_take_part(gpus: Iterable[str]) -> bool:
        return not any(gpu in kind.avoid or (several and nearness.is_part(gpu)) for gpu in gpus)

    spare = [gpu for gpu in unowned if may_take_part([gpu])]
    by_machine: dict[str, list[KnownWorker]] = {}
    for worker in workers:
        if worker.gpus and not worker.retired and may_take_part(worker.gpus):
            by_machine.setdefault(machine_of_gpu(worker.gpus[0]), []).append(worker)
    found = [
        candidate
        for machine, there in by_machine.items()
        for candidate in _Machine(
            there, [gpu for gpu in spare if machine_of_gpu(gpu) == machine], nearness
        ).candidates(kind.gpus)
        if any(test not in member.lacks for member in candidate.members)
    ]
    if not found:
        return None
    best = min(found, key=lambda candidate: candidate[:4])
    leader = next(member for member in best.members if test not in member.lacks)
    return Gang(leader.name, frozenset(each.name for each in best.members), tuple(best.gpus))


class _Machine:
    """Workers of one machine, and its GPUs that nobody owns, in its order."""

    def __init__(
        self, workers: Iterable[KnownWorker], spare: Sequence[str], nearness: Nearness
    ) -> None:
        self._workers = sorted(workers, key=lambda worker: nearness.place(worker.gpus[0]))
        self._spare = spare
        self._between: Callable[[str, str], int | None] = nearness.between
        owned = (gpu for worker in self._workers for gpu in worker.gpus)
        self._places = {gpu: place for place, gpu in enumerate(dict.fromkeys([*owned, *spare]))}

    def candidates(self, number: int | None) -> list[_Candidate]:
        """For each worker the gang of it and those closest to it.

        :param number: of GPUs; None for those of the worker.
        """
        found = []
        for first in self._workers:
            if number is None:
                members, spread = [first], (0, 0)
            else:
                gathered = self._gather(first, number)
                if gathered is None:
                    return []  # all together have too few
                members, spread = gathered
            members.sort(key=self._workers.index)
            gpus = list(dict.fromkeys(gpu for member in members for gpu in member.gpus))
            if number is not None:
                nearest = sorted(self._spare, key=lambda gpu: self._to_gpu(gpus, gpu))
                gpus = [*gpus, *nearest][:number]
                spread = max([spread, *(self._to_gpu(gpus, gpu) for gpu in gpus if gpu in nearest)])
            busy = sum(not member.waits for member in members)
            length = self._workers.index(members[-1]) - self._workers.index(members[0])
            found.append(_Candidate(len(members), spread, busy, length, members, gpus))
        return found

    def _gather(
        self, first: KnownWorker, number: int
    ) -> tuple[list[KnownWorker], _Distance] | None:
        """Add the closest worker until all have, with the spare ones, so many GPUs."""
        members, gpus = [first], set(first.gpus)
        spread = max(self._to_gpu(first.gpus, gpu) for gpu in first.gpus)
        far = {worker.name: self._to_worker(first, worker) for worker in self._workers}
        while len(gpus) + len(self._spare) < number:
            others = [worker for worker in self._workers if not gpus.issuperset(worker.gpus)]
            if not others:
                return None
            place = self._workers.index(first)
            nearest = min(
                others,
                key=lambda worker: (
                    far[worker.name], not worker.waits, abs(self._workers.index(worker) - place),
                ),
            )  # fmt: skip
            members.append(nearest)
            gpus.update(nearest.gpus)
            spread = max(spread, far[nearest.name])
            for worker in others:
                far[worker.name] = max(far[worker.name], self._to_worker(nearest, worker))
        return members, spread

    def _to_worker(self, one: KnownWorker, other: KnownWorker) -> _Distance:
        return max(self._to_gpu(one.gpus, gpu) for gpu in other.gpus)

    def _to_gpu(self, gpus: Iterable[str], gpu: str) -> _Distance:
        """The distance of the one that is farthest from it."""
        return max((self._distance(each, gpu) for each in gpus), default=(0, 0))

    def _distance(self, one: str, other: str) -> _Distance:
        way = self._between(one, other)
        return (FAR, abs(self._places[one] - self._places[other])) if way is None else (way, 0)


@dataclass
class Reservation:
    """A gang that is kept free, or runs the test.

    :param unit: of the test alone, to be given back if the reservation is cancelled.
    :param begun: whether the test was given to the leader.
    :param whole: whether the leader is to get the unit as its own; then the others go on.
    """

    test: int
    unit: Unit
    gang: Gang
    begun: bool = False
    whole: bool = False


class Reservations:
    """The reservations of a run, the oldest first.

    :param workers: all, by name; the Schedule's own.
    """

    def __init__(
        self, workers: Mapping[str, KnownWorker], unowned: Sequence[str], nearness: Nearness
    ) -> None:
        self._workers = workers
        self._unowned = unowned
        self._nearness = nearness
        self._all: list[Reservation] = []

    def __iter__(self) -> Iterator[Reservation]:
        return iter(self._all)

    def needed(self, kind: Kind) -> bool:
        """Whether such a test needs a reservation: no worker runs it just as it comes."""
        if kind.alone and kind.gpus != 0:
            return True
        if not kind.gpus or kind.gpus < 2:
            return False
        return not any(worker.could(kind) for worker in self._workers.values())

    def possible(self, kind: Kind, test: int | None, held: bool) -> bool:
        """Whether there is a gang for such a test, now or later.

        :param held: whether workers that begin nothing now may be in it.
        """
        workers = [each for each in self._workers.values() if held or not each.stopped]
        return choose_gang(kind, test, workers, self._unowned, self._nearness) is not None

    def choose(self, kind: Kind, test: int) -> Gang | None:
        """A gang of workers that are not reserved, and everybody who shares GPUs with it."""
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

    def _trusted(self, kind: Kind, test: int) -> list[KnownWorker]:
        """Who may be in a gang now; suspects only if the others are too few."""
        workers = [each for each in self._workers.values() if not each.stopped]
        others = [each for each in workers if not each.suspect]
        if not kind.avoid or len(others) == len(workers):
            return workers
        few = choose_gang(kind, test, others, self._unowned, self._nearness) is None
        return workers if few else others

    def reserved(self) -> dict[str, Reservation]:
        """The workers that are kept free, by name, and for what."""
        return {name: each for each in self._all for name in each.gang.members}

    def add(self, test: int, unit: Unit, gang: Gang, whole: bool) -> None:
        self._all.append(Reservation(test, unit, gang, whole=whole))

    def ready(self) -> Iterator[Reservation]:
        """Those whose gang is free, and has to be given the test."""
        for each in self._all:
            if each.begun or each.whole:
                continue
            if all(self._workers[name].is_free for name in each.gang.members):
                yield each

    def join(self, worker: KnownWorker) -> None:
        """A new worker may have GPUs of a gang, in place of a member that is gone."""
        for each in self._all:
            if not (each.whole or set(each.gang.gpus).isdisjoint(worker.gpus)):
                each.gang = each.gang._replace(members=each.gang.members | {worker.name})

    def pop_whole(self) -> list[Reservation]:
        """End those whose leader can be given its unit now."""
        found = [each for each in self._all if each.whole and self._may_have_whole(each.gang)]
        self._all = [each for each in self._all if each not in found]
        return found

    def _may_have_whole(self, gang: Gang) -> bool:
        leader = self._workers[gang.leader]
        others = gang.members - {gang.leader}
        at_rest = leader.waits and not leader.queue and not leader.recalled
        return at_rest and all(self._workers[name].is_free for name in others)

    def begun(self) -> set[int]:
        return {each.test for each in self._all if each.begun}

    def lent(self, test: int) -> tuple[str, ...]:
        """The GPUs with which a gang's leader runs the test, none if it does not."""
        return next((each.gang.gpus for each in self._all if each.test == test and each.begun), ())

    def end(self, test: int) -> None:
        self._all = [each for each in self._all if each.test != test]

    def give_back(self, tests: Collection[int]) -> None:
        """A leader has not begun these tests, and will not."""
        self._all = [each for each in self._all if not (each.begun and each.test in tests)]

    def cancel(self, name: str) -> list[Reservation]:
        """End those that a worker is a member of, and whose test was not given to the leader."""
        cancelled = [each for each in self._all if name in each.gang.members and not each.begun]
        self._all = [each for each in self._all if each not in cancelled]
        return cancelled

    def lose_leader(self, name: str) -> None:
        """A worker is gone; if it was another member, a test that was begun goes on."""
        self._all = [each for each in self._all if each.gang.leader != name]
