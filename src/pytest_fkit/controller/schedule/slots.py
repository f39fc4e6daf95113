"""GPU memory that workers share: what their tests need of it, and whether another one fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

from ...own import own_builtins
from .gangs import Gang, Reservations
from .known_workers import KnownWorker
from .units import Kind

own_builtins(globals())


def capacity(worker: KnownWorker, gpu: str) -> int:
    """Bytes of a GPU of the worker; where unknown, as many as it has slots."""
    return worker.memory[worker.gpus.index(gpu)] or worker.slots


def need(worker: KnownWorker, kind: Kind) -> dict[str, int]:
    """Bytes of each of the worker's GPUs that belong to a test of this kind while it runs there.

    A test that says nothing gets a slot's share. If the GPU's size is unknown, one that needs
    memory gets all of it.
    """
    if worker.slots < 2 or (kind.gpus == 0 and not kind.memory):
        return {}
    found = {}
    for gpu in worker.gpus[: kind.gpus or None]:  # a test that sees fewer sees the first ones
        total = capacity(worker, gpu)
        said = total if kind.memory and total == worker.slots else min(kind.memory, total)
        found[gpu] = max(said, total // worker.slots if kind.share else 0)
    return found


def claim(worker: KnownWorker) -> dict[str, int]:
    """The most that any test needs that the worker has, or goes on with.

    Fixtures of a shared scope keep their memory until the worker has torn down.
    """
    if worker.slots < 2 or worker.is_free:
        return {}
    kinds = {unit.kind for unit in worker.queue.values()}
    if worker.running_unit is not None:
        kinds.add(worker.running_unit.kind)
    if worker.unit is not None and worker.unit.tests:
        kinds.add(worker.unit.kind)
    found: dict[str, int] = {}
    for kind in kinds:
        for gpu, size in need(worker, kind).items():
            found[gpu] = max(size, found.get(gpu, 0))
    return found


def is_large(worker: KnownWorker, kind: Kind) -> bool:
    """Whether a test of this kind does not fit beside others that have their shares."""
    needed = need(worker, kind) if kind.memory else {}
    return any(size > capacity(worker, gpu) // worker.slots for gpu, size in needed.items())


def _goes_on(worker: KnownWorker) -> bool:
    """Whether large tests of its unit are still to come."""
    unit = worker.unit
    return unit is not None and bool(unit.tests) and is_large(worker, unit.kind)


@dataclass
class Room:
    """What others leave of the GPUs that they share with a worker.

    :param workers: all, by name; the Schedule's own.
    """

    workers: Mapping[str, KnownWorker]
    reservations: Reservations
    _left: dict[str, dict[str, int]] = field(default_factory=dict)

    def is_large_anywhere(self, kind: Kind) -> bool:
        """Whether a test of this kind does not fit beside the shares of others on any worker."""
        return bool(kind.memory) and any(is_large(each, kind) for each in self.workers.values())

    def changed(self) -> None:
        if self._left:
            self._left.clear()

    def fits(self, worker: KnownWorker, kind: Kind) -> bool:
        """Whether such a test may run there, beside the tests of others."""
        if worker.slots < 2:
            return True
        if worker.name not in self._left:
            self._left[worker.name] = self._look_up(worker)
        left = self._left[worker.name]
        return all(size <= left[gpu] for gpu, size in need(worker, kind).items())

    def _look_up(self, worker: KnownWorker) -> dict[str, int]:
        """Bytes that others leave, now and when the large tests begin that GPUs are kept for.

        For a worker whose end such a test waits for, only now counts.
        """
        reserved = self.reservations.reserved()
        now = {gpu: capacity(worker, gpu) for gpu in worker.gpus}
        then = dict(now)
        for other in self.neighbours(worker):
            has = claim(other)
            kept = reserved.get(other.name)
            will_have = has
            if kept is not None and kept.whole:
                leads = kept.gang.leader == other.name
                will_have = need(other, kept.unit.kind) if leads else {}
            for gpu in now.keys() & set(other.gpus):
                now[gpu] -= has.get(gpu, 0)
                then[gpu] -= will_have.get(gpu, 0)
        if worker.name in reserved:
            return now
        return {gpu: min(now[gpu], then[gpu]) for gpu in now}

    def choose(self, kind: Kind, test: int) -> Gang | None:
        """Who is to run a large test, with the fewest who have to tear down before.

        None of them may be in the middle of another unit of large tests.
        """
        reserved = self.reservations.reserved()
        workers = [
            worker
            for worker in self.workers.values()
            if worker.could(kind) and not worker.stopped and test not in worker.lacks
            if worker.name not in reserved
            and not any(other.name in reserved for other in self.neighbours(worker))
        ]
        trusted = [worker for worker in workers if not (worker.suspect and kind.avoid)]
        found = [
            (others, worker)
            for worker in trusted or workers
            for others in [self._in_the_way(worker, kind)]
            if not any(map(_goes_on, (worker, *map(self.workers.__getitem__, others))))
        ]
        if not found:
            return None
        others, leader = min(
            found, key=lambda each: (len(each[0]), not each[1].waits, each[1].order)
        )
        return Gang(leader.name, frozenset({leader.name, *others}), leader.gpus)

    def _in_the_way(self, worker: KnownWorker, kind: Kind) -> list[str]:
        """Those who have to tear down so that the test fits beside all others."""
        left = {gpu: capacity(worker, gpu) - size for gpu, size in need(worker, kind).items()}
        found = []
        claims = [(other.name, claim(other)) for other in self.neighbours(worker)]
        for name, has in sorted(claims, key=lambda each: sum(each[1].values())):
            if any(has.get(gpu, 0) > size for gpu, size in left.items()):
                found.append(name)
            else:
                left = {gpu: size - has.get(gpu, 0) for gpu, size in left.items()}
        return found

    def neighbours(self, worker: KnownWorker) -> list[KnownWorker]:
        return [
            other
            for other in self.workers.values()
            if other is not worker and not set(worker.gpus).isdisjoint(other.gpus)
        ]
