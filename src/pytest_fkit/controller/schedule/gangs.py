"""Which workers give their GPUs to a test that needs more than one has: a choice among values."""

from __future__ import annotations

from typing import Callable, Iterable, NamedTuple, Sequence, Tuple

from ...gpu.devices import APART, Nearness
from ...own import own_builtins
from .known_workers import Worker
from .units import Kind

own_builtins(globals())

_Far = Tuple[int, int]
"""The way between GPUs, and how many are counted from one to the other where it is not known."""


class Gang(NamedTuple):
    """Who has to be free for a test.

    :param leader: the one that runs it.
    :param members: with the leader.
    :param gpus: for the test.
    """

    leader: str
    members: frozenset[str]
    gpus: tuple[str, ...]


class _Candidate(NamedTuple):
    """Workers of a machine who have enough, the best first.

    :param spread: of the two of their GPUs that are farthest from each other.
    :param busy: how many of them have something to do.
    :param length: how many places they are apart.
    """

    size: int
    spread: _Far
    busy: int
    length: int
    members: list[Worker]
    gpus: list[str]


def choose_gang(
    kind: Kind,
    test: int | None,
    workers: Iterable[Worker],
    unowned: Iterable[str],
    nearness: Nearness,
) -> Gang | None:
    """Those who have the GPUs: as few as can be, closest to each other, rather idle ones.

    :param test: that the leader has to have collected.
    :param workers: who may take part.
    :param unowned: GPUs that may besides theirs.
    """
    spare = [gpu for gpu in unowned if gpu not in kind.avoid]
    hosts: dict[str, list[Worker]] = {}
    for worker in workers:
        if worker.gpus and not (worker.retired or kind.avoid & set(worker.gpus)):
            hosts.setdefault(_host(worker.gpus[0]), []).append(worker)
    found = [
        candidate
        for host, there in hosts.items()
        for candidate in _Machine(
            there, [gpu for gpu in spare if _host(gpu) == host], nearness
        ).candidates(kind.gpus)
        if any(test not in member.lacks for member in candidate.members)
    ]
    if not found:
        return None
    best = min(found, key=lambda candidate: candidate[:4])
    leader = next(member for member in best.members if test not in member.lacks)
    return Gang(leader.name, frozenset(each.name for each in best.members), tuple(best.gpus))


def _host(gpu: str) -> str:
    return gpu.rpartition("/")[0]


class _Machine:
    """Workers of one machine, and GPUs of it that nobody owns, in its order."""

    def __init__(self, workers: Iterable[Worker], spare: Sequence[str], nearness: Nearness) -> None:
        self._workers = sorted(workers, key=lambda worker: nearness.place(worker.gpus[0]))
        self._spare = spare
        self._between: Callable[[str, str], int | None] = nearness.between
        owned = (gpu for worker in self._workers for gpu in worker.gpus)
        self._places = {gpu: place for place, gpu in enumerate(dict.fromkeys([*owned, *spare]))}

    def candidates(self, number: int | None) -> list[_Candidate]:
        """For each worker one gang with it, of those closest to it.

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
                nearest = sorted(self._spare, key=lambda gpu: self._from(gpus, gpu))
                gpus = [*gpus, *nearest][:number]
                spread = max([spread, *(self._from(gpus, gpu) for gpu in gpus if gpu in nearest)])
            busy = sum(not member.waits for member in members)
            length = self._workers.index(members[-1]) - self._workers.index(members[0])
            found.append(_Candidate(len(members), spread, busy, length, members, gpus))
        return found

    def _gather(self, first: Worker, number: int) -> tuple[list[Worker], _Far] | None:
        """Add the closest one until all have, with what nobody owns, so many GPUs."""
        members, gpus = [first], set(first.gpus)
        spread = max(self._from(first.gpus, gpu) for gpu in first.gpus)
        far = {worker.name: self._from_to(first, worker) for worker in self._workers}
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
                far[worker.name] = max(far[worker.name], self._from_to(nearest, worker))
        return members, spread

    def _from_to(self, one: Worker, other: Worker) -> _Far:
        return max(self._from(one.gpus, gpu) for gpu in other.gpus)

    def _from(self, gpus: Iterable[str], gpu: str) -> _Far:
        """To the one that is farthest from it."""
        return max((self._far(each, gpu) for each in gpus), default=(0, 0))

    def _far(self, one: str, other: str) -> _Far:
        way = self._between(one, other)
        return (APART, abs(self._places[one] - self._places[other])) if way is None else (way, 0)
