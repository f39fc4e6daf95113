"""From what was found, or said, to the GPUs that the workers of a machine can have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Mapping, Sequence

import pytest

from ...config.settings import GpuSettings
from ...own import os, own_builtins
from ..devices import Device, Fleet
from .describe import NAMES, sharing
from .masks import MASKS, Entry, Visible, visible
from .slices import Assignment, assign, slice_size, slices

own_builtins(globals())

_UUIDS = ("GPU-", "MIG-")


def usable(fleet: Fleet, settings: GpuSettings, environ: Mapping[str, str]) -> Visible:
    """What the masks in `environ` leave of `fleet`, and of that what the user named.

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
    return replace(seen, entries=tuple(dict.fromkeys(entries)), notices=notices)


def _entry(entries: Sequence[Entry], name: str) -> Entry | None:
    exact = [entry for entry in entries if name in (entry.id, entry.device.uuid)]
    if exact:
        return exact[0]
    if name.isdigit():
        return None
    found = [entry for entry in entries if entry.device.uuid.lower().startswith(name.lower())]
    return found[0] if len(found) == 1 else None


def _unseen(settings: GpuSettings, environ: Mapping[str, str]) -> Visible:
    """The GPUs that the user named where none was found: they are taken on trust."""
    vendor = _probable_vendor(environ)
    named = [*settings.gpus, *_words(environ.get(name, "") for name in MASKS[vendor])]
    numbers = {int(each) for each in named if each.isdigit() and len(each) < 4}
    devices = [Device(vendor, number) for number in range(max(numbers, default=-1) + 1)]
    for uuid in dict.fromkeys(each for each in named if each.startswith(_UUIDS)):
        devices.append(Device(vendor, len(devices), uuid))
    seen = visible(Fleet(vendor, tuple(devices)), environ)
    notice = f"{settings.source}: no GPU was found, these are taken on trust for {NAMES[vendor]}'s"
    return replace(seen, notices=(notice, *seen.notices))


def _words(masks: Iterable[str]) -> list[str]:
    return [word.strip() for mask in masks for word in mask.split(",")]


def _probable_vendor(environ: Mapping[str, str]) -> str:
    for vendor in ("amd", "intel", "ascend"):
        if any(name in environ for name in MASKS[vendor] if name not in MASKS["nvidia"]):
            return vendor
    return "amd" if os.path.exists("/dev/kfd") else "nvidia"


@dataclass(frozen=True)
class Distribution:
    """The GPUs of one machine among its workers.

    :param notices: what a user has to know about it.
    """

    visible: Visible
    assignment: Assignment
    notices: tuple[str, ...]


def distribute(
    fleet: Fleet, settings: GpuSettings, environ: Mapping[str, str], numbers: Sequence[int]
) -> Distribution:
    """Distribute what is usable.

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
            f"{wanted} GPUs per worker are asked for, there are {len(seen.entries)} in all"
        )
    if (
        wanted > 1
        and any(len(place.slice) > 1 for place in assignment.places)
        and any(entry.device.parent for entry in seen.entries)
    ):
        notices.append("a process sees one MIG instance, whatever its mask names")
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
    """How many workers have a slot of a slice; 0 if there are no GPUs.

    :raises pytest.UsageError: see :func:`usable`.
    """
    seen = usable(fleet, settings, environ)
    found = slices(seen.entries, slice_size(seen, None, settings.gpus_per_worker))
    return settings.gpu_slots * len(found)
