"""Numbers of our own for tests: workers may collect different ones, in different orders."""

from __future__ import annotations

from collections import defaultdict
from typing import Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.repetitions import repeated, repetition_of, test_of

own_builtins(globals())


class Collected(NamedTuple):
    """What one worker collected.

    :param numbers: by position, None where they are the same.
    :param positions: by number, None where they are the same.
    """

    numbers: Sequence[int] | None = None
    positions: dict[int, int] | None = None

    def number(self, position: int) -> int:
        if self.numbers is None:
            return position
        return repeated(self.numbers[test_of(position)], repetition_of(position))

    def position(self, number: int) -> int:
        if self.positions is None:
            return number
        return repeated(self.positions[test_of(number)], repetition_of(number))


class CollectedTests:
    """All that any worker collected."""

    def __init__(self) -> None:
        self.nodeids: list[str] = []
        self._numbers: dict[tuple[str, int], int] | None = None
        self._first: Sequence[str] | None = None

    def add(self, ids: Sequence[str]) -> Collected:
        """Add the collection of a worker; a node id may be in it more than once."""
        if self._first is None:
            self._first = ids
            self.nodeids = list(ids)
            return Collected()
        if ids == self._first:
            return Collected()
        if self._numbers is None:
            self._numbers = {key: number for number, key in enumerate(_keys(self._first))}
        numbers = [self._number(key) for key in _keys(ids)]
        return Collected(numbers, {number: position for position, number in enumerate(numbers)})

    def _number(self, key: tuple[str, int]) -> int:
        assert self._numbers is not None
        if key not in self._numbers:
            self._numbers[key] = len(self.nodeids)
            self.nodeids.append(key[0])
        return self._numbers[key]

    def lacking(self, collected: Collected) -> frozenset[int]:
        if collected.positions is None:
            assert self._first is not None
            return frozenset(range(len(self._first), len(self.nodeids)))
        return frozenset(
            number for number in range(len(self.nodeids)) if number not in collected.positions
        )


def _keys(ids: Sequence[str]) -> list[tuple[str, int]]:
    seen: dict[str, int] = defaultdict(int)
    keys = []
    for nodeid in ids:
        keys.append((nodeid, seen[nodeid]))
        seen[nodeid] += 1
    return keys
