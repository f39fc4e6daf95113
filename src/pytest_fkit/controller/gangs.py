"""Which workers give their GPUs to a test that needs more than one has: a choice among values."""

from __future__ import annotations

from typing import Iterable, NamedTuple, Sequence

from .roster import Worker
from .units import Kind


class Gang(NamedTuple):
    """Who has to be free for a test.

    :param leader: the one that runs it.
    :param members: with the leader.
    :param gpus: for the test.
    """

    leader: str
    members: frozenset[str]
    gpus: tuple[str, ...]


def choose_gang(
    kind: Kind, test: int | None, workers: Sequence[Worker], unowned: Iterable[str]
) -> Gang | None:
    """Neighbours who have the GPUs, as few as can be; rather those who have nothing to do.

    :param test: that the leader has to have collected.
    :param workers: who may take part.
    :param unowned: GPUs that may besides theirs.
    """
    spare = [gpu for gpu in unowned if gpu not in kind.avoid]
    hosts: dict[str, list[Worker]] = {}
    for worker in workers:
        if worker.gpus and not (worker.retired or kind.avoid & set(worker.gpus)):
            hosts.setdefault(_host(worker.gpus[0]), []).append(worker)
    best: tuple[int, int, list[Worker], list[str]] | None = None
    for host, there in hosts.items():
        spare_there = [gpu for gpu in spare if _host(gpu) == host]
        for first in range(len(there)):
            found = _enough(there[first:], spare_there, kind.gpus)
            if found is None:
                break
            members, gpus = found
            members.sort(key=lambda member: test in member.lacks)
            if test in members[0].lacks:
                continue
            busy = sum(not member.waits for member in members)
            if best is None or (len(members), busy) < best[:2]:
                best = len(members), busy, members, gpus
    if best is None:
        return None
    leader, gpus = best[2][0].name, best[3]
    return Gang(leader, frozenset(member.name for member in best[2]), tuple(gpus))


def _host(gpu: str) -> str:
    return gpu.rpartition("/")[0]


def _enough(
    workers: Sequence[Worker], spare: Sequence[str], number: int | None
) -> tuple[list[Worker], list[str]] | None:
    """The first of these who together, and with what is spare, have so many GPUs.

    :param number: None for those of the first.
    """
    gpus: dict[str, None] = {}
    for count, worker in enumerate(workers, 1):
        gpus.update(dict.fromkeys(worker.gpus))
        if number is None or len(gpus) + len(spare) >= number:
            return list(workers[:count]), [*gpus, *spare][:number]
    return None
