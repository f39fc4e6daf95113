"""How many verdicts each selected test has, by what was reported: a value, without a process."""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Sequence

from ...own import own_builtins
from ..schedule.collected import Collected, Union

own_builtins(globals())

_REPORTED, _SAID, _COMPLETE, _FINAL, _TWICE = (1 << bit for bit in range(5))
_OVER = _FINAL | _TWICE


class Wrong(NamedTuple):
    """A test that does not have one verdict.

    :param complete: whether it was said to be over, though reports on it are missing.
    :param twice: whether it has more than one.
    """

    number: int
    nodeid: str
    complete: bool
    twice: bool


class Ledger:
    """Counts tests, not node ids, of which one may occur twice.

    :param calls: whether a test whose setup passed is called; not with ``--setup-only``.
    """

    def __init__(self, calls: bool = True) -> None:
        self._calls = calls
        self._tests = Union()
        self._flags = bytearray()

    def add(self, ids: Sequence[str]) -> Collected:
        """Tests were selected, by one of those who run them."""
        collected = self._tests.add(ids)
        self._flags.extend(bytes(len(self._tests.nodeids) - len(self._flags)))
        return collected

    def begins(self, number: int) -> None:
        """An attempt begins; what was said of one before it is no verdict."""
        self._flags[number] &= _OVER

    def reported(self, number: int, report: Any) -> None:
        """There is a report on the test, on a phase or on a part of it."""
        # By pytest-rerunfailures, and on a subtest.
        if report.outcome == "rerun" or hasattr(report, "context"):
            return
        self._flags[number] |= _REPORTED | (_SAID if is_verdict(report) else 0)

    def complete(self, number: int) -> None:
        """All is said of the test. Another plugin that ran it may have reported nothing."""
        flags = self._flags[number]
        self._flags[number] |= _COMPLETE
        if flags & _SAID or not flags & _REPORTED or not self._calls:
            self.final(number)

    def final(self, number: int) -> None:
        """The test has a verdict."""
        self._flags[number] |= _TWICE if self._flags[number] & _FINAL else _FINAL

    def number(self, nodeid: str, occurrence: int) -> int:
        """That of a test, by which of those with its node id it is."""
        found = -1
        for _ in range(occurrence + 1):
            found = self._tests.nodeids.index(nodeid, found + 1)
        return found

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever said of any test."""
        return not any(self._flags)

    def wrong(self) -> Iterator[Wrong]:
        """The tests that do not have one verdict."""
        for number, flags in enumerate(self._flags):
            if flags & _OVER != _FINAL:
                yield Wrong(
                    number, self._tests.nodeids[number], bool(flags & _COMPLETE),
                    bool(flags & _TWICE),
                )  # fmt: skip


def is_verdict(report: Any) -> bool:
    """Whether a report says how a test ended: on its call, or of something that went wrong."""
    return report.when not in ("setup", "teardown") or report.outcome != "passed"
