"""GPUs and who owns them, in words."""

from __future__ import annotations

from collections import Counter
from typing import Sequence

from ...own import own_builtins
from .masks import Entry, Visible
from .slices import Assignment

own_builtins(globals())

NAMES = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel", "ascend": "Ascend"}

# What vendors put before the name of a model.
_MAKERS = {"nvidia", "amd", "instinct", "radeon", "intel(r)", "intel", "huawei", "ascend"}

_SHORT_MIG = len("MIG-") + 8


def ownership(visible: Visible, assignment: Assignment, names: Sequence[str]) -> str:
    """As in "8 AMD GPUs (MI300X, 192 GiB), 2 per worker: gw0 0,1 | gw1 2,3".

    :param names: of the workers, in the order of the places.
    """
    owners = [f"{name} {_ids(place.slice)}" for name, place in zip(names, assignment.places)]
    if assignment.unowned:
        owners.append(f"unowned {_ids(assignment.unowned)}")
    shared = ", shared" if assignment.shares else ""
    if assignment.slots > 1:
        shared = f", {assignment.slots} slots each"
    return f"{gpus(visible)}, {assignment.size} per worker{shared}: {' | '.join(owners)}"


def gpus(visible: Visible) -> str:
    """As in "8 AMD GPUs (MI300X, 192 GiB)"."""
    entries = visible.entries
    what = "MIG instance" if all(entry.device.parent for entry in entries) else "GPU"
    number = f"{len(entries)} {NAMES[visible.vendor]} {what}{'' if len(entries) == 1 else 's'}"
    models = Counter((_model(each.device.name), _memory(each.device.memory)) for each in entries)
    texts = [
        (f"{count} x " if len(models) > 1 else "") + ", ".join(filter(None, model)) or "?"
        for model, count in models.items()
    ]
    return f"{number} ({'; '.join(texts)})" if any(map(any, models)) else number


def _model(name: str) -> str:
    words = name.split()
    while len(words) > 1 and words[0].lower() in _MAKERS:
        del words[0]
    return " ".join(words)


def _memory(size: int) -> str:
    return f"{size / 1024**3:.0f} GiB" if size else ""


def _ids(entries: Sequence[Entry]) -> str:
    return ",".join(entry.id[:_SHORT_MIG] if entry.device.parent else entry.id for entry in entries)


def sharing(visible: Visible, assignment: Assignment) -> str | None:
    """The warning that workers share AMD GPUs, if they do."""
    if visible.vendor != "amd" or not assignment.shares:
        return None
    slices = len({place.slice for place in assignment.places})
    return (
        f"{len(assignment.places)} workers share {len(visible.entries)} AMD GPUs; processes that "
        f"share one have hung AMD's driver: -n {slices} gives every worker its own"
    )
