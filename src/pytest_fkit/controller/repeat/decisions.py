"""When tests are repeated, and when it is enough: decisions on values."""

from __future__ import annotations

from typing import Iterator

from ...config.values import Repeat
from ...named_tuple import NamedTuple
from ...own import own_builtins

own_builtins(globals())

MOST = 10_000
"""Repetitions of a round, unless there are more tests."""


class Enough(NamedTuple):
    """No more repetitions.

    :param reason: why not, to follow "stopped after 7:".
    :param at_once: whether what runs is interrupted, too; else each test is run once.
    """

    reason: str
    at_once: bool = False


def rounds(repeat: Repeat, tests: int, workers: int) -> Iterator[range]:
    """The repetitions of each test, in rounds; in one, those of a test follow each other.

    Where nobody says how many there are going to be, the first has something to do for each
    worker, and each round has twice as many as the one before: so wide fixtures are not set up for
    each repetition, and no test gets far more repetitions than another.
    """
    most = max(1, MOST // max(1, tests))
    done, size = 0, -(-workers // max(1, tests)) if repeat.times is None else most
    while repeat.times is None or done < repeat.times:
        left = most if repeat.times is None else repeat.times - done
        size = min(size, most, left)
        yield range(done, done + size)
        done += size
        size *= 2


def decide(repeat: Repeat, maxfail: int, seconds: float, failing: int) -> Enough | None:
    """Whether it is enough.

    :param maxfail: how many failing tests end the run, 0 for no limit.
    :param seconds: since the first test began.
    :param failing: how many tests have failed, each at least once.
    """
    if maxfail and failing >= maxfail:
        tests = "1 failing test ends" if failing == 1 else f"{failing} failing tests end"
        return Enough(f"{tests} the run", at_once=True)
    if repeat.seconds is not None and seconds >= repeat.seconds:
        return Enough(f"{repeat} have passed")
    if repeat == Repeat() and failing:
        return Enough("a test failed")
    return None


def needs_more(unfinished: int, last_round: int, workers: int) -> bool:
    """Whether it is time for another round: workers begin tests ahead, and none shall be idle.

    :param unfinished: repetitions that run or wait.
    """
    return unfinished <= max(last_round // 2, workers)
