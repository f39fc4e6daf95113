"""From the GPUs that were found, or named by the user, to those that each worker owns."""

from __future__ import annotations

from collections import Counter
from typing import Iterable, Mapping, Sequence

import pytest

from ...config.settings import GpuSettings
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.endings import count
from ..devices import Device, Fleet
from ..machine import Machine
from ..vendors.detection import VENDORS, visible
from ..vendors.vendor import Entry, Vendor, Visible

own_builtins(globals())

DEFAULT_SIZE = 2
"""GPUs per worker by default."""


class Place(NamedTuple):
    """The GPUs of a worker, and of the one that replaces it.

    :param worker: its number, from 0 on.
    :param slice: its GPUs, in the order of the caller's mask.
    :param shared: whether another worker has them as well.
    :param hidden: whether it has none, and must not see those of others.
    :param slots: how many workers may share its GPUs.
    """

    worker: int
    vendor: str = ""
    slice: tuple[Entry, ...] = ()
    shared: bool = False
    hidden: bool = False
    slots: int = 1

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.slice)


class Assignment(NamedTuple):
    """The GPUs of one machine, distributed among its workers.

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
        return any(place.shared for place in self.places)


def slice_size(seen: Visible, workers: int | None, wanted: int | None, slots: int = 1) -> int:
    """GPUs per worker.

    :param workers: how many workers the user asked for, None if that depends on the GPUs.
    :param wanted: what ``--fkit-gpus-per-worker`` says, or None.
    :param slots: how many workers may share each slice.
    """
    number = len(seen.entries)
    if wanted is not None:
        return max(1, min(wanted, number))
    if any(entry.device.parent for entry in seen.entries):
        return 1  # a process sees one MIG instance
    each = DEFAULT_SIZE if workers is None else number // max(1, -(-workers // slots))
    return max(1, min(each, DEFAULT_SIZE, number))


def slices(entries: Sequence[Entry], size: int) -> list[tuple[Entry, ...]]:
    """The entries in slices of `size`, in order, without a rest that fills none."""
    return [
        tuple(entries[start : start + size]) for start in range(0, len(entries) - size + 1, size)
    ]


def assign(seen: Visible, numbers: Sequence[int], size: int, slots: int = 1) -> Assignment:
    """Give worker *i* slice *i*, and start over if there are more workers than slices.

    :param numbers: of the workers, in the whole run.
    :param slots: how many workers may share each slice.
    """
    found = slices(seen.entries, size) or [()]
    owners = [index % len(found) for index in range(len(numbers))]
    places = tuple(
        Place(number, seen.vendor, found[at], bool(found[at]) and owners.count(at) > 1, slots=slots)
        for number, at in zip(numbers, owners)
    )
    owned = size * min(len(found), len(numbers))
    return Assignment(size, places, tuple(seen.entries[owned:]), slots)


# --- distribution -------------------------------------------------------------------------------

_UUIDS = ("GPU-", "MIG-")


def usable(fleet: Fleet, settings: GpuSettings, environ: Mapping[str, str]) -> Visible:
    """What the masks in `environ` leave of `fleet`, or those of it that the user named.

    :raises pytest.UsageError: if none of the GPUs that the user named is there.
    """
    if isinstance(settings.gpus, str):
        return visible(fleet, environ)
    if fleet.devices:
        return _named(visible(fleet, environ), settings.gpus, settings.source)
    return _named(_unseen(settings, environ), settings.gpus, settings.source)


def _named(seen: Visible, ids: Sequence[str], source: str) -> Visible:
    found = {each: _entry(seen.entries, each) for each in ids}
    entries = tuple(entry for entry in found.values() if entry is not None)
    there = ",".join(entry.id for entry in seen.entries) or "none"
    if not entries:
        raise pytest.UsageError(
            f"pytest-fkit: {source}: there is no such GPU here; there are: {there}"
        )
    notices = seen.notices
    missing = [each for each, entry in found.items() if entry is None]
    if missing:
        notices += (f"{source}: not here: {','.join(missing)}; there are: {there}",)
    return seen._replace(entries=tuple(dict.fromkeys(entries)), notices=notices)


def _entry(entries: Sequence[Entry], name: str) -> Entry | None:
    exact = [entry for entry in entries if name in (entry.id, entry.device.uuid)]
    if exact:
        return exact[0]
    if name.isdigit():
        return None
    found = [entry for entry in entries if entry.device.uuid.lower().startswith(name.lower())]
    return found[0] if len(found) == 1 else None


def _unseen(settings: GpuSettings, environ: Mapping[str, str]) -> Visible:
    """The GPUs that the user named, taken on trust, where none was found."""
    vendor = _probable_vendor(environ)
    named = [*settings.gpus, *_words(environ.get(name, "") for name in vendor.masks)]
    numbers = {int(each) for each in named if each.isdigit() and len(each) < 4}
    devices = [Device(vendor.name, number) for number in range(max(numbers, default=-1) + 1)]
    for uuid in dict.fromkeys(each for each in named if each.startswith(_UUIDS)):
        devices.append(Device(vendor.name, len(devices), uuid))
    seen = visible(Fleet(vendor.name, tuple(devices)), environ)
    notice = f"{settings.source}: no GPU was found, these are taken on trust for {vendor.title}'s"
    return seen._replace(notices=(notice, *seen.notices))


def _words(masks: Iterable[str]) -> list[str]:
    return [word.strip() for mask in masks for word in mask.split(",")]


def _probable_vendor(environ: Mapping[str, str]) -> Vendor:
    """The one whose own masks are set, else the first of whose driver there is a sign."""
    first, *others = VENDORS.values()
    for vendor in others:
        if any(name in environ for name in vendor.masks if name not in first.masks):
            return vendor
    machine = Machine.here()
    return next((vendor for vendor in VENDORS.values() if not vendor.absent(machine)), first)


class Distribution(NamedTuple):
    """The GPUs that workers of one machine may have, and who owns which.

    :param notices: what a user has to know about it.
    """

    visible: Visible
    assignment: Assignment
    notices: tuple[str, ...]


def distribute(
    fleet: Fleet, settings: GpuSettings, environ: Mapping[str, str], numbers: Sequence[int]
) -> Distribution:
    """Distribute the usable GPUs of a machine.

    :param numbers: of the workers on this machine.
    :raises pytest.UsageError: see :func:`usable`, and for more workers than there are slots.
    """
    seen = usable(fleet, settings, environ)
    size = slice_size(seen, len(numbers), settings.gpus_per_worker, settings.gpu_slots)
    _check_slots(len(numbers), len(slices(seen.entries, size)), settings.gpu_slots)
    assignment = assign(seen, numbers, size, settings.gpu_slots)
    notices = list(seen.notices)
    wanted = settings.gpus_per_worker or 0
    if seen.entries and wanted > len(seen.entries):
        notices.append(
            f"--fkit-gpus-per-worker={wanted}: there are only {len(seen.entries)} GPUs, so each "
            f"worker has {size}"
        )
    if (
        wanted > 1
        and any(len(place.slice) > 1 for place in assignment.places)
        and any(entry.device.parent for entry in seen.entries)
    ):
        notices.append(
            "a process sees one MIG instance, whatever its mask names: use "
            "--fkit-gpus-per-worker=1, which is the default with MIG"
        )
    warning = sharing(seen, assignment)
    if warning is not None:
        notices.append(warning)
    return Distribution(seen, assignment, tuple(notices))


def _check_slots(workers: int, found: int, slots: int) -> None:
    most = found * slots
    if slots > 1 and found and workers > most:
        raise pytest.UsageError(
            f"pytest-fkit: --fkit-gpu-slots={slots}: {workers} workers are too many for {slots} "
            f"slots in {'1 slice' if found == 1 else f'each of {found} slices'} of GPUs; -n {most} "
            "or -n auto takes all slots"
        )


def worker_count(fleet: Fleet, settings: GpuSettings, environ: Mapping[str, str]) -> int:
    """How many workers there are slots for; 0 if there are no GPUs.

    :raises pytest.UsageError: see :func:`usable`.
    """
    seen = usable(fleet, settings, environ)
    found = slices(seen.entries, slice_size(seen, None, settings.gpus_per_worker))
    return settings.gpu_slots * len(found)


# --- in words -----------------------------------------------------------------------------------

_SHORT_MIG = len("MIG-") + 8


def ownership(seen: Visible, assignment: Assignment, names: Sequence[str]) -> str:
    """As in "8 AMD GPUs (MI300X, 192 GiB), 2 per worker: gw0 0,1 | gw1 2,3".

    :param names: of the workers, in the order of the places.
    """
    owners = [f"{name} {_ids(place.slice)}" for name, place in zip(names, assignment.places)]
    if assignment.unowned:
        owners.append(f"unowned {_ids(assignment.unowned)}")
    shared = ", shared" if assignment.shares else ""
    if assignment.slots > 1:
        shared = f", {assignment.slots} slots each"
    return f"{gpus(seen)}, {assignment.size} per worker{shared}: {' | '.join(owners)}"


def gpus(seen: Visible) -> str:
    """As in "8 AMD GPUs (MI300X, 192 GiB)"."""
    entries, vendor = seen.entries, VENDORS[seen.vendor]
    what = "MIG instance" if all(entry.device.parent for entry in entries) else "GPU"
    number = count(len(entries), f"{vendor.title} {what}")
    models = Counter(
        (_model(each.device.name, vendor), _memory(each.device.memory)) for each in entries
    )
    texts = [
        (f"{count} x " if len(models) > 1 else "") + ", ".join(filter(None, model)) or "?"
        for model, count in models.items()
    ]
    return f"{number} ({'; '.join(texts)})" if any(map(any, models)) else number


def _model(name: str, vendor: Vendor) -> str:
    words = name.split()
    while len(words) > 1 and words[0].lower() in vendor.makers:
        del words[0]
    return " ".join(words)


def _memory(size: int) -> str:
    return f"{size / 1024**3:.0f} GiB" if size else ""


def _ids(entries: Sequence[Entry]) -> str:
    return ",".join(entry.id[:_SHORT_MIG] if entry.device.parent else entry.id for entry in entries)


def sharing(seen: Visible, assignment: Assignment) -> str | None:
    """The warning that workers share GPUs of a vendor whose driver may not stand that, if so."""
    vendor = VENDORS.get(seen.vendor)
    if vendor is None or not vendor.sharing or not assignment.shares:
        return None
    apart = len({place.slice for place in assignment.places})
    return (
        f"{len(assignment.places)} workers share {len(seen.entries)} {vendor.title} GPUs; "
        f"{vendor.sharing}: -n {apart} gives every worker its own"
    )
