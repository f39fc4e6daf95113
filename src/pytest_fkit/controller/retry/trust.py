"""Which workers' GPUs can be trusted, by the GPU errors that tests met there in a row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Hashable

from ...own import own_builtins
from ...protocol.event_file import GpuError

own_builtins(globals())

_HEALTHY_PROBES = 2
"""Healthy probes in a row after which a retired worker gets tests again."""


@dataclass
class _Slice:
    """What is known of the GPUs of a worker, or of several that share them.

    :param errors: by test, since the last test without one: whether it is known that the error was
        not the test's own.
    :param events: errors of cached fixtures that were counted.
    :param suspect: whether no test has ended well here yet, or since an error, be it a test's own.
    :param well: how many tests ended without an error.
    :param healthy: healthy probes in a row since it was retired.
    """

    errors: dict[int, bool] = field(default_factory=dict)
    events: set[str] = field(default_factory=set)
    last_error: str = ""
    suspect: bool = True
    well: int = 0
    healthy: int = 0
    retired: bool = False


class SliceTrust:
    """Counts errors per slice.

    An error counts if the test that met it met none elsewhere, or is not tried elsewhere: tests
    that fail everywhere retire nobody.

    :param retire_after: errors in a row, 0 for never.
    """

    def __init__(self, retire_after: int) -> None:
        self._retire_after = retire_after
        self._slices: dict[str, _Slice] = {}
        self._places: dict[str, Hashable] = {}
        self._vacant: dict[Hashable, _Slice] = {}

    def add(self, worker: str, place: Hashable = None) -> None:
        """A worker with GPUs has started.

        :param place: its GPUs; workers with the same ones share a slice, and a replacement takes
            over what is known of it.
        """
        shared = next((name for name, each in self._places.items() if place and each == place), "")
        self._places[worker] = place
        if shared:
            self._slices[worker] = self._slices[shared]
            return
        known = self._vacant.pop(place, None) or _Slice()
        self._slices[worker] = replace(known, healthy=0, retired=False)

    def remove(self, worker: str, place: Hashable = None) -> None:
        found = self._slices.pop(worker, None)
        self._places.pop(worker, None)
        if found is not None and place is not None and place not in self._places.values():
            self._vacant[place] = found

    def sharing(self, worker: str) -> list[str]:
        """The worker, followed by the others with the same GPUs."""
        found = self._slices.get(worker)
        if found is None:
            return [worker]
        others = [each for each, its in self._slices.items() if its is found and each != worker]
        return [worker, *others]

    # --- errors ---

    def ended(self, worker: str) -> None:
        found = self._slices.get(worker)
        if found is not None:
            found.errors.clear()
            found.suspect = False
            found.well += 1

    def error(self, worker: str, test: int, error: GpuError, certain: bool) -> None:
        """A test met an error there; this replaces an earlier one of that test.

        :param certain: whether no attempt elsewhere will show if it is the test's own.
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
        found.last_error = error.text

    def resolve(self, test: int, everywhere: bool) -> None:
        """The test's last attempt has ended.

        :param everywhere: whether that one met an error, too, so that the errors are the test's.
        """
        for found in (*self._slices.values(), *self._vacant.values()):
            if test in found.errors:
                if everywhere:
                    del found.errors[test]
                else:
                    found.errors[test] = True

    def suspect(self, worker: str) -> None:
        """A test met an error there that it has met elsewhere."""
        if worker in self._slices:
            self._slices[worker].suspect = True

    def suspects(self) -> set[str]:
        """Workers in use whose GPUs have not shown that they work."""
        return {
            worker for worker, found in self._slices.items() if found.suspect and not found.retired
        }

    def in_doubt(self, worker: str) -> bool:
        """Whether to retire the worker if none of its errors turns out to be a test's own."""
        found = self._slices.get(worker)
        if found is None or found.retired or not 0 < self._retire_after <= len(found.errors):
            return False
        return self._is_other_in_use(found)

    def open_errors(self, worker: str) -> list[int]:
        """Tests with errors there that an attempt elsewhere is going to explain."""
        return [test for test, certain in self._slices[worker].errors.items() if not certain]

    def well(self, worker: str) -> int:
        return self._slices[worker].well

    # --- retiring ---

    def _is_other_in_use(self, found: _Slice) -> bool:
        return any(not each.retired for each in self._slices.values() if each is not found)

    def to_retire(self) -> list[tuple[str, str]]:
        """Retire workers with too many errors, but for the last; their names, and why."""
        due = []
        for worker, found in self._slices.items():
            number = sum(found.errors.values())
            if 0 < self._retire_after <= number and not found.retired:
                due.append((worker, f"{number} GPU errors in a row, the last: {found.last_error}"))
        return [each for each in due if self.retire(each[0])]

    def retire(self, worker: str) -> bool:
        """Give the worker no more tests, unless it is the last; whether it was retired now."""
        found = self._slices.get(worker)
        if found is None or found.retired or not self._is_other_in_use(found):
            return False
        found.retired, found.healthy = True, 0
        return True

    def is_retired(self, worker: str) -> bool:
        found = self._slices.get(worker)
        return found is not None and found.retired

    def only_retired(self) -> list[str]:
        """All workers, if all are retired, else none."""
        if any(not found.retired for found in self._slices.values()):
            return []
        return list(self._slices)

    def readmit(self, worker: str) -> None:
        found = self._slices[worker]
        found.retired = False
        found.errors.clear()

    def probed(self, worker: str, state: str) -> bool:
        """The GPUs of a retired worker were probed.

        :param state: "healthy", "sick" or "unknown", which says nothing.
        :return: whether the worker was readmitted.
        """
        found = self._slices.get(worker)
        if found is None or not found.retired:
            return False
        if state != "unknown":
            found.healthy = found.healthy + 1 if state == "healthy" else 0
        if found.healthy < _HEALTHY_PROBES:
            return False
        self.readmit(worker)
        return True
