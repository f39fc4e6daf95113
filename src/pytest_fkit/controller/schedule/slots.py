"""Memory of GPUs that workers share: what their tests need of it, and whether another one fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

from ...own import own_builtins
from .gangs import Gang
from .known_workers import Worker
from .reservations import Reservations
from .units import Kind

own_builtins(globals())


def capacity(worker: Worker, gpu: str) -> int:
    """Bytes of a GPU of the worker; where nobody knows, as many as it has slots."""
    return worker.memory[worker.gpus.index(gpu)] or worker.slots


def need(worker: Worker, kind: Kind) -> dict[str, int]:
    """Bytes by GPU of the worker that are a test's of this kind while it runs there.

    Without a word it is a slot's share. What needs memory of a GPU that has nobody knows how much
    has it for itself.
    """
    if worker.slots < 2 or (kind.gpus == 0 and not kind.memory):
        return {}
    found = {}
    for gpu in worker.gpus[: kind.gpus or None]:  # a test that sees fewer sees the first ones
        total = capacity(worker, gpu)
        said = total if kind.memory and total == worker.slots else min(kind.memory, total)
        found[gpu] = max(said, total // worker.slots if kind.share else 0)
    return found


def claim(worker: Worker) -> dict[str, int]:
    """The most that any of the tests needs which the worker has, or goes on with.

    What a test leaves to those that share something with it is gone when the worker has torn down.
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


def is_large(worker: Worker, kind: Kind) -> bool:
    """Whether a test of this kind does not fit beside others that have their shares there."""
    needed = need(worker, kind) if kind.memory else {}
    return any(size > capacity(worker, gpu) // worker.slots for gpu, size in needed.items())


def _goes_on(worker: Worker) -> bool:
    """Whether it has large tests before it that share something."""
    unit = worker.unit
    return unit is not None and bool(unit.tests) and is_large(worker, unit.kind)


@dataclass
class Room:
    """What others leave of the GPUs that they share with a worker.

    :param workers: all, by name; somebody else's.
    :param reservations: who is kept free.
    """

    workers: Mapping[str, Worker]
    reservations: Reservations
    _left: dict[str, dict[str, int]] = field(default_factory=dict)

    def changed(self) -> None:
        """What was looked up may not be so any more."""
        if self._left:
            self._left.clear()

    def fits(self, worker: Worker, kind: Kind) -> bool:
        """Whether such a test may run there, beside what others have."""
        if worker.slots < 2:
            return True
        if worker.name not in self._left:
            self._left[worker.name] = self._look(worker)
        left = self._left[worker.name]
        return all(size <= left[gpu] for gpu, size in need(worker, kind).items())

    def _look(self, worker: Worker) -> dict[str, int]:
        """Bytes that others leave.

        And will leave: what is kept for a large test counts, but not for those for whose end that
        waits, nor does what these have now.
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
        """Who is to run a large test, with those who have to tear down before; as few as can be.

        Nobody who has others of these to go on with.
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

    def _in_the_way(self, worker: Worker, kind: Kind) -> list[str]:
        """Those who have what the test needs, beside others who may go on."""
        left = {gpu: capacity(worker, gpu) - size for gpu, size in need(worker, kind).items()}
        found = []
        claims = [(other.name, claim(other)) for other in self.neighbours(worker)]
        for name, has in sorted(claims, key=lambda each: sum(each[1].values())):
            if any(has.get(gpu, 0) > size for gpu, size in left.items()):
                found.append(name)
            else:
                left = {gpu: size - has.get(gpu, 0) for gpu, size in left.items()}
        return found

    def neighbours(self, worker: Worker) -> list[Worker]:
        """Who shares GPUs with it."""
        return [
            other
            for other in self.workers.values()
            if other is not worker and not set(worker.gpus).isdisjoint(other.gpus)
        ]
