"""Which tests make one order, and which are ordered before these are over."""

from __future__ import annotations

from typing import Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.messages import Ended, Run, RunTogether
from .sources import Taken

own_builtins(globals())

SECONDS = 0.1
"""How long the tests of one order to a shared process should take: a round trip costs about 1 ms.
"""

MOST_SECONDS = 0.2
"""After these, none of an order's tests begins. One that is over ends what was ordered ahead."""

FIRST = 32
"""Tests in one order before it is known how long they take."""

MOST_IN_ORDER = 1024
"""Tests in one order."""


class Refusal(NamedTuple):
    """Why the test at a position can't be run.

    :param skipped: whether it is skipped; else that is an error.
    """

    position: int
    reason: str
    skipped: bool = False


class Pace:
    """Learns how many tests to put into one order.

    :param limit: the most that there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.most = min(limit, FIRST)

    def took(self, number: int, seconds: float) -> None:
        """Learn that so many tests took so long."""
        if seconds > SECONDS:
            self.most = max(1, int(number * SECONDS / seconds))
        elif number == self.most and seconds < SECONDS / 2:
            self.most = min(self._limit, 2 * self.most)


class Batch(NamedTuple):
    """The tests of one order.

    :param following: position of the test after these, None if it is not known.
    """

    runs: list[Run]
    following: int | None

    def order(self) -> Run | RunTogether:
        """The order to run these, one after the other."""
        if len(self.runs) == 1:
            return self.runs[0]
        tests = tuple((run.position, run.location) for run in self.runs)
        return RunTogether(self.runs[-1], tests, MOST_SECONDS)


def first_batch(runs: Sequence[Run | Refusal], following: int | None, most: int) -> Batch:
    """The first test, and those after it that can be ordered with it, to run in the same process.

    The keeper enforces the limits of the first one for all of them.

    :param following: position of the test after all these, None if it is not known.
    :param most: tests in the batch.
    """
    first = runs[0]
    assert isinstance(first, Run)
    chosen = [first]
    for each in runs[1:most]:
        if not isinstance(each, Run) or not _are_alike(first, each):
            break
        chosen.append(each)
    return _batch(runs, chosen, following)


def batch_ahead(
    running: Batch, runs: Sequence[Run | Refusal], following: int | None, most: int
) -> Batch | None:
    """Tests to be ordered while others run, which the keeper is to begin at once after these.

    In a shared process what follows them must be known: it tears down for that test.

    :param running: the tests before.
    :param runs: the tests after.
    """
    last = running.runs[-1]
    if not runs or runs[0].position != running.following or not isinstance(runs[0], Run):
        return None
    if not last.key.is_shared:
        return None if runs[0].key.is_shared else _batch(runs, [runs[0]], following)
    if not _are_alike(last, runs[0]):
        return None
    batch = first_batch(runs, following, most)
    if batch.following is None:
        batch = _batch(runs, batch.runs[:-1], following)
    # Only the process knows by then how many tests have failed.
    counted = [run._replace(tests_failed=-1) for run in batch.runs]
    return batch._replace(runs=counted) if counted else None


def _batch(runs: Sequence[Run | Refusal], chosen: list[Run], following: int | None) -> Batch:
    """These, the first of the runs."""
    return Batch(chosen, [*(run.position for run in runs), following][len(chosen)])


def _are_alike(first: Run, other: Run) -> bool:
    """Whether two tests can be run by one order."""
    # A fresh interpreter has its limits from the first test on, and has to start before that.
    return (
        first.key.is_shared
        and not first.key.is_spawned
        and (first.key, first.timeout) == (other.key, other.timeout)
        # The keeper has to watch memory for it alone.
        and not (first.memory_limit or first.gpu_memory)
        and not (other.memory_limit or other.gpu_memory)
    )


class Batches:
    """Makes batches of the tests that were taken.

    :param one_by_one: whether each test gets an order of its own, after the one before is over.
    :param own_ahead: whether a test with a process of its own may begin before the worker has
        heard of the one before.
    :param shared_ahead: the same of tests that share a process.
    """

    def __init__(self, one_by_one: bool, own_ahead: bool, shared_ahead: bool) -> None:
        self._own_ahead = own_ahead
        self._shared_ahead = shared_ahead and not one_by_one
        self._pace = Pace(1 if one_by_one else MOST_IN_ORDER)
        self.to_take = 1
        """How many tests to take next."""
        self._ahead: Batch | None = None

    @property
    def ordered(self) -> Sequence[Run]:
        """What the keeper begins before it is told."""
        return () if self._ahead is None else self._ahead.runs

    def first(self, runs: Sequence[Run | Refusal], taken: Taken) -> tuple[Batch, Batch | None]:
        """The batch to run now, and the one to be ordered while it runs.

        :param runs: for the tests that were taken; not a refusal at first.
        """
        most = self._pace.most
        batch = self._ahead or first_batch(runs, taken.following, most)
        ahead = self._own_ahead
        if batch.runs[0].key.is_shared:  # slow ones another worker may be free to run
            ahead = self._shared_ahead and most > 1
        rest = runs[len(batch.runs) :]
        return batch, batch_ahead(batch, rest, taken.following, most) if ahead else None

    def ended(self, batch: Batch, after: Batch | None, begun: int, ended: Ended) -> int:
        """Learn how a batch ended; how many tests the keeper has begun to run since.

        :param begun: how many of its tests were begun.
        """
        self._ahead = after if ended.goes_on else None
        number = len(self.ordered)
        self.to_take = 2
        if batch.runs[0].key.is_shared:
            self._pace.took(begun, ended.seconds)
            self.to_take = 1 + self._pace.most + (number or self._pace.most)
        return number
