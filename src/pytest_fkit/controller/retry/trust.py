"""Which workers' GPUs are to be trusted: errors counted per worker, in a row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Hashable

from ...gpu.errors.failure import GpuError
from ...own import own_builtins

own_builtins(globals())


@dataclass
class _Slice:
    """What is known of a worker's GPUs.

    :param errors: since the last test that met none, by test: whether it is known that the error
        was not the test's own.
    :param events: errors of cached fixtures that were counted.
    :param suspect: whether no test ended well yet, or none since one met an error, be it its own.
    :param well: tests that ended and met none.
    :param healthy: probes in a row that found nothing, since it was retired.
    """

    errors: dict[int, bool] = field(default_factory=dict)
    events: set[str] = field(default_factory=set)
    last: str = ""
    suspect: bool = True
    well: int = 0
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
        self._left: dict[Hashable, _Slice] = {}
        self._places: dict[str, Hashable] = {}

    def add(self, worker: str, place: Hashable = None) -> None:
        """A worker that owns GPUs.

        :param place: these; what is known of them stays known if the worker is replaced, and holds
            for all who have them.
        """
        shared = next((name for name, each in self._places.items() if place and each == place), "")
        self._places[worker] = place
        if shared:  # who have the same GPUs stand and fall together
            self._slices[worker] = self._slices[shared]
            return
        left = self._left.pop(place, None) or _Slice()
        self._slices[worker] = replace(left, healthy=0, retired=False)

    def remove(self, worker: str, place: Hashable = None) -> None:
        """It is gone."""
        found = self._slices.pop(worker, None)
        self._places.pop(worker, None)
        if found is not None and place is not None and place not in self._places.values():
            self._left[place] = found

    def sharing(self, worker: str) -> list[str]:
        """The worker, and then others that have the same GPUs."""
        found = self._slices.get(worker)
        others = [each for each, its in self._slices.items() if its is found and each != worker]
        return [worker, *(others if found is not None else ())]

    def ended(self, worker: str) -> None:
        """A test ended there, and met no error."""
        found = self._slices.get(worker)
        if found is not None:
            found.errors.clear()
            found.suspect = False
            found.well += 1

    def error(self, worker: str, test: int, error: GpuError, certain: bool) -> None:
        """A test met an error there; this replaces what was said of that test before.

        :param certain: whether it is not tried elsewhere, which would show whose fault it is.
        """
        found = self._slices.get(worker)
        if found is None or not error.counts:
            return
        found.suspect = True
        if error.event:
            if error.event in found.events and test not in found.errors:
                return
            found.events.add(error.event)
        found.errors[test] = certain
        found.last = error.text

    def resolve(self, test: int, everywhere: bool) -> None:
        """The test's last attempt is over.

        :param everywhere: whether that met a GPU error, too: then it is the test's own.
        """
        for found in (*self._slices.values(), *self._left.values()):
            if test in found.errors:
                if everywhere:
                    del found.errors[test]
                else:
                    found.errors[test] = True

    def in_doubt(self, worker: str) -> bool:
        """Whether it is to be retired if none of its errors is its tests' own."""
        found = self._slices.get(worker)
        if found is None or found.retired or not 0 < self._retire_after <= len(found.errors):
            return False
        return self._is_other_there(found)

    def suspects(self) -> set[str]:
        """Workers that are not retired, and have not shown that their GPUs work."""
        return {
            worker for worker, found in self._slices.items() if found.suspect and not found.retired
        }

    def suspect(self, worker: str) -> None:
        """A test met an error there which it has met elsewhere."""
        if worker in self._slices:
            self._slices[worker].suspect = True

    def open_errors(self, worker: str) -> list[int]:
        """Tests with errors there, of which it will be known when they were tried elsewhere."""
        return [test for test, certain in self._slices[worker].errors.items() if not certain]

    def well(self, worker: str) -> int:
        """How many tests ended there, and met no error."""
        return self._slices[worker].well

    def _is_other_there(self, found: _Slice) -> bool:
        return any(not each.retired for each in self._slices.values() if each is not found)

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
        if not self._is_other_there(found):
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
