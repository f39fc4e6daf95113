"""Repetitions of tests, for ``--fkit-repeat``: each is known by one number, as a test is.

A test has a number in the controller, and a position in the collection of each worker. To these a
repetition adds a multiple of what no collection reaches, so that whoever knows nothing of
repetitions takes each for a test of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, FrozenSet, Sequence, TypeVar, overload

from ..own import own_builtins

if TYPE_CHECKING:
    import pytest

own_builtins(globals())

T = TypeVar("T")

_STRIDE = 1 << 32

FRESH_EVERY = 10
"""One of so many repetitions, the last, runs in a fresh interpreter."""

HASH_SEED = "PYTHONHASHSEED"

SEEDS = 1 << 32
"""How many seeds there are: as many as NumPy's and PYTHONHASHSEED take."""


def test_of(number: int) -> int:
    """The test that a number, or position, is of."""
    return number if number < _STRIDE else number % _STRIDE


def repetition_of(number: int) -> int:
    """Which repetition it is, from 0."""
    return number // _STRIDE if number > 0 else 0


def repeated(test: int, repetition: int) -> int:
    """The number, or position, of a repetition of a test."""
    return test + repetition * _STRIDE


def is_fresh(repetition: int) -> bool:
    """Whether the repetition runs in a fresh interpreter, whatever the test."""
    return repetition % FRESH_EVERY == FRESH_EVERY - 1


def seed_of(first: int, repetition: int) -> int:
    """The seed of a repetition; neighbours have nothing in common."""
    if not repetition:
        return first % SEEDS
    # SplitMix64: Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (2014).
    state = (first + repetition * 0x9E3779B97F4A7C15) % (1 << 64)
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % (1 << 64)
    return (state ^ (state >> 31)) % SEEDS


def item_at(items: Sequence[pytest.Item], position: int) -> pytest.Item:
    """The item of a session at a position."""
    return items[test_of(position)]


class ByTest(Sequence[T]):
    """What is known of tests, for all their repetitions."""

    def __init__(self, known: Sequence[T]) -> None:
        self._known = known

    @overload
    def __getitem__(self, number: int) -> T: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[T]: ...

    def __getitem__(self, number: int | slice) -> T | Sequence[T]:
        return self._known[number if isinstance(number, slice) else test_of(number)]

    def __len__(self) -> int:
        return len(self._known)


class AllOf(FrozenSet[int]):
    """Tests with all their repetitions."""

    def __contains__(self, number: object) -> bool:
        return super().__contains__(test_of(number) if isinstance(number, int) else number)
