"""Which workers' GPUs are to be trusted: errors counted per worker, in a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Hashable

from ..gpu.errors import GpuError
from ..own import own_builtins

own_builtins(globals())


@dataclass
class _Slice:
    """What is known of a worker's GPUs.

    :param errors: since the last test that met none, by test: whether it is known that the error
        was not the test's own.
    :param events: errors of cached fixtures that were counted.
    :param healthy: probes in a row that found nothing, since it was retired.
    """

    errors: dict[Hashable, bool] = field(default_factory=dict)
    events: set[str] = field(default_factory=set)
    last: str = ""
    healthy: int = 0
    retired: bool = False


_HEALTHY = 2
"""Probes in a row that have to find nothing before a retired worker gets tests again."""


class Slices:
    """Counts.

    An error counts when the test that met it has met none elsewhere, or will not be tried
    elsewhere: tests that break everywhere retire nobody.

    :param retire_after: errors in a row, 0 for never.
    """

    def __init__(self, retire_after: int) -> None:
        self._retire_after = retire_after
        self._slices: dict[str, _Slice] = {}

    def add(self, worker: str) -> None:
        """A worker that owns GPUs."""
        self._slices[worker] = _Slice()

    def remove(self, worker: str) -> None:
        """It is gone."""
        self._slices.pop(worker, None)

    def ended(self, worker: str) -> None:
        """A test ended there, and met no error."""
        found = self._slices.get(worker)
        if found is not None:
            found.errors.clear()

    def error(self, worker: str, test: Hashable, error: GpuError, certain: bool) -> None:
        """A test met an error there.

        :param certain: whether it is not tried elsewhere, which would show whose fault it is.
        """
        found = self._slices.get(worker)
        if found is None or not error.counts:
            return
        if error.event:
            if error.event in found.events:
                return
            found.events.add(error.event)
        found.errors[test] = certain
        found.last = error.text

    def resolve(self, test: Hashable, everywhere: bool) -> None:
        """The test's last attempt is over.

        :param everywhere: whether that met a GPU error, too: then it is the test's own.
        """
        for found in self._slices.values():
            if test in found.errors:
                if everywhere:
                    del found.errors[test]
                else:
                    found.errors[test] = True

    def to_retire(self) -> list[tuple[str, str]]:
        """Workers that are to get no more tests, with the reason; not the last one."""
        due = []
        for worker, found in self._slices.items():
            number = sum(found.errors.values())
            if 0 < self._retire_after <= number and not found.retired:
                due.append((worker, f"{number} GPU errors in a row, the last: {found.last}"))
        return [each for each in due if self.retire(each[0])]

    def retire(self, worker: str) -> bool:
        """It gets no more tests, unless it is the last one; whether that is so."""
        found = self._slices.get(worker)
        if found is None or found.retired:
            return False
        if not any(not each.retired for each in self._slices.values() if each is not found):
            return False
        found.retired, found.healthy = True, 0
        return True

    def only_retired(self) -> list[str]:
        """Workers, if there is none but such that get no tests."""
        if any(not found.retired for found in self._slices.values()):
            return []
        return list(self._slices)

    def readmit(self, worker: str) -> None:
        """It gets tests again."""
        found = self._slices[worker]
        found.retired = False
        found.errors.clear()

    def is_retired(self, worker: str) -> bool:
        """Whether it gets no tests."""
        found = self._slices.get(worker)
        return found is not None and found.retired

    def probed(self, worker: str, state: str) -> bool:
        """A retired worker's GPUs were tried.

        :param state: "healthy", "sick" or "unknown", which says nothing.
        :return: whether it gets tests again.
        """
        found = self._slices.get(worker)
        if found is None or not found.retired:
            return False
        if state != "unknown":
            found.healthy = found.healthy + 1 if state == "healthy" else 0
        if found.healthy < _HEALTHY:
            return False
        self.readmit(worker)
        return True
