"""Tests put together as they are to be distributed, in the order in which that is to happen."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence

from ...own import own_builtins

own_builtins(globals())

QUICK = 0.2
"""Seconds from which on a test is worth being moved to an earlier place."""


class Kind(NamedTuple):
    """What a worker has to be, to run a test.

    :param gpus: how many the test needs, None for those of the worker.
    :param serial: never two tests of this name at once, "" for none.
    :param having: the collections in which it is, None if it is in all.
    :param avoid: GPUs on which it must not run again.
    :param alone: whether nobody else may use its GPUs meanwhile.
    :param memory: bytes that it needs of each GPU, as far as that is said.
    :param share: whether it needs its share of each, where workers share them.
    """

    gpus: int | None = None
    serial: str = ""
    having: frozenset[int] | None = None
    avoid: frozenset[str] = frozenset()
    alone: bool = False
    memory: int = 0
    share: bool = True

    @property
    def anyhow(self) -> Kind:
        """The same, whatever it needs of GPUs that workers share."""
        return self._replace(memory=0, share=True)


ANY = Kind()


class Test(NamedTuple):
    """A test as the schedule knows it.

    :param number: its place in the order of collection.
    :param group: name of those with which it has something in common, "" for none.
    :param seconds: how long it is expected to take, None if nobody knows.
    """

    number: int
    group: str = ""
    seconds: float | None = None
    kind: Kind = ANY


@dataclass
class Unit:
    """Tests that are moved together only.

    :param rank: the lowest goes first.
    :param tests: by number, in order.
    :param loose: whether they have nothing in common, so that anybody may take the next one.
    :param strict: whether one worker has to run them all.
    :param begun: whether one of them was begun where they are now.
    """

    rank: tuple[float, int]
    kind: Kind
    tests: deque[int] = field(default_factory=deque)
    loose: bool = False
    strict: bool = False
    begun: bool = False


def strict_units(tests: Sequence[Test], expected: Callable[[int], float], sort: bool) -> list[Unit]:
    """One unit for each group and kind, that which takes longest first.

    :param sort: whether to; else they are in order of their first tests.
    """
    found: dict[Any, list[int]] = {}
    kinds: dict[Any, list[Kind]] = {}
    for test in tests:
        key = test.group or test.number, test.kind.anyhow
        found.setdefault(key, []).append(test.number)
        kinds.setdefault(key, []).append(test.kind)
    return [
        Unit(
            rank=(-sum(map(expected, numbers)) if sort else 0.0, numbers[0]),
            kind=_for_all(kinds[key]),
            tests=deque(numbers),
            strict=True,
        )
        for key, numbers in found.items()
    ]


def _for_all(kinds: Sequence[Kind]) -> Kind:
    """One that needs what any of these needs, which differ in memory only."""
    memory = max(kind.memory for kind in kinds)
    return kinds[0]._replace(memory=memory, share=any(kind.share for kind in kinds))


def connected_units(tests: Sequence[Test], connected: Mapping[int, int]) -> list[Unit]:
    """One unit for each that one worker has to run, in the order of their first tests.

    :param connected: by number, the first test of those that are to be together.
    """
    together = [
        test._replace(group=str(connected[test.number]))
        for test in tests
        if test.number in connected
    ]
    return strict_units(together, lambda _: 0.0, sort=False)


def merged_groups(tests: Sequence[Test], connected: Mapping[int, int]) -> list[Test]:
    """With one group in the place of all those of which tests are connected.

    :param connected: see :func:`connected_units`.
    """
    into: dict[str, str] = {}

    def final(group: str) -> str:
        while group in into:
            group = into[group]
        return group

    by_number = {test.number: test for test in tests}
    for number, first in connected.items():
        one, other = final(by_number[number].group), final(by_number[first].group)
        if one != other:
            into[one] = other
    return [test._replace(group=final(test.group)) for test in tests]


def soft_units(tests: Sequence[Test], sort: bool) -> list[Unit]:
    """Neighbours of a group; what has no group, one by one where it takes long, else in a row.

    :param sort: whether units with a test that is expected to take long come first, the longest
        before the others.
    """
    runs = itertools.groupby(tests, lambda test: _belongs(test, sort))
    return list(_units([list(run) for _, run in runs], sort))


def one_unit(tests: Sequence[Test]) -> list[Unit]:
    """All in the order of collection, so far as their kinds are the same."""
    return [
        _unit(list(run), 0.0, loose=True) for _, run in itertools.groupby(tests, lambda t: t.kind)
    ]


def _belongs(test: Test, sort: bool) -> tuple[object, Kind]:
    if test.group:
        return test.group, test.kind
    return (test.number if sort and _is_long(test) else ""), test.kind


def _units(runs: Iterable[list[Test]], sort: bool) -> Iterator[Unit]:
    for run in runs:
        longest = max(test.seconds or 0.0 for test in run)
        rank = -longest if sort and longest >= QUICK else 0.0
        yield _unit(run, rank, loose=not run[0].group)


def _unit(run: list[Test], rank: float, loose: bool) -> Unit:
    numbers = [test.number for test in run]
    return Unit((rank, numbers[0]), run[0].kind, deque(numbers), loose)


def _is_long(test: Test) -> bool:
    return test.seconds is not None and test.seconds >= QUICK
