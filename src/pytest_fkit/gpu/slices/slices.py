"""Which worker owns which GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from ...own import own_builtins
from .masks import Entry, Visible

own_builtins(globals())

DEFAULT_SIZE = 2
"""GPUs per worker, if nothing else is said."""


@dataclass(frozen=True)
class Place:
    """What belongs to a worker, and to the one that replaces it.

    :param worker: its number, from 0 on.
    :param slice: its GPUs, in the order of the caller's mask.
    :param shared: whether another worker has them as well.
    :param hidden: whether it has none where others have.
    :param slots: how many workers may share its GPUs.
    """

    worker: int
    vendor: str = ""
    slice: tuple[Entry, ...] = ()
    shared: bool = False
    numbered: bool = False
    hidden: bool = False
    slots: int = 1

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its GPUs."""
        return tuple(entry.id for entry in self.slice)


@dataclass(frozen=True)
class Assignment:
    """The GPUs of one machine, distributed among its workers.

    :param size: GPUs per worker.
    :param places: by worker.
    :param unowned: GPUs that no worker owns, for tests that need more than one slice, and for
        replacing sick ones.
    :param slots: how many workers may share each slice.
    """

    size: int
    places: tuple[Place, ...]
    unowned: tuple[Entry, ...]
    slots: int = 1

    @property
    def shares(self) -> bool:
        """Whether workers share GPUs."""
        return any(place.shared for place in self.places)


def slice_size(visible: Visible, workers: int | None, wanted: int | None, slots: int = 1) -> int:
    """GPUs per worker.

    :param workers: how many workers the user asked for, None if the GPUs shall decide.
    :param wanted: what ``--fkit-gpus-per-worker`` says, or None.
    :param slots: how many workers may share each slice.
    """
    number = len(visible.entries)
    if wanted is not None:
        return max(1, min(wanted, number))
    if any(entry.device.parent for entry in visible.entries):
        return 1  # a process sees one MIG instance
    each = DEFAULT_SIZE if workers is None else number // max(1, -(-workers // slots))
    return max(1, min(each, DEFAULT_SIZE, number))


def slices(entries: Sequence[Entry], size: int) -> list[tuple[Entry, ...]]:
    """The entries in slices of `size`, in order; what is left over is in none."""
    return [
        tuple(entries[start : start + size]) for start in range(0, len(entries) - size + 1, size)
    ]


def assign(visible: Visible, numbers: Sequence[int], size: int, slots: int = 1) -> Assignment:
    """Give worker *i* slice *i*; if there are more workers than slices, begin again.

    :param numbers: of the workers, in the whole run.
    :param slots: how many workers may share each slice.
    """
    found = slices(visible.entries, size) or [()]
    owners = [index % len(found) for index in range(len(numbers))]
    places = tuple(
        Place(
            number, visible.vendor, found[owner], bool(found[owner]) and owners.count(owner) > 1,
            visible.numbered, slots=slots,
        )
        for number, owner in zip(numbers, owners)
    )  # fmt: skip
    owned = size * min(len(found), len(numbers))
    return Assignment(size, places, tuple(visible.entries[owned:]), slots)
