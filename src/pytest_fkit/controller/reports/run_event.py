"""The event that begins a run: what runs, where, on which GPUs, and how."""

from __future__ import annotations

import platform
import sys
import uuid
from typing import Any, NamedTuple

import pluggy
import psutil
import pytest
import xdist

from ... import __version__
from ...config.settings import Settings
from ...gpu.vendors.vendor import Entry
from ...journal.events import FORMAT, SCHEMA, Event, event
from ...own import os, own_builtins, socket
from ..workers.gpus import KEY

own_builtins(globals())


class RunGpus(NamedTuple):
    """The GPUs of this machine that a run may use.

    :param devices: a dict for each.
    :param slices: the ids of each worker's, by its name; workers on other machines are not there.
    """

    devices: list[dict[str, Any]]
    slices: dict[str, list[str]]


def gpus_of_run(config: pytest.Config) -> RunGpus:
    """What was distributed among the workers of this machine."""
    found = config.stash.get(KEY, None)
    groups = found.groups if found is not None else []
    entries = {entry.id: entry for _, given in groups for entry in given.visible.entries}
    return RunGpus(
        [_device(entry) for entry in entries.values()],
        {
            seat.name: list(place.ids)
            for seats, given in groups
            for seat, place in zip(seats, given.assignment.places)
            if place.slice
        },
    )


def _device(entry: Entry) -> dict[str, Any]:
    device = entry.device
    known = {
        "id": entry.id, "vendor": device.vendor, "name": device.name, "uuid": device.uuid,
        "pci": device.pci, "memory": device.memory,
    }  # fmt: skip
    return {name: value for name, value in known.items() if value}


def run_event(config: pytest.Config, settings: Settings, gpus: RunGpus, session: str) -> Event:
    """The event that begins a run.

    :param session: that of the resumed run, or "".
    """
    number = uuid.uuid4().hex[:16]
    return event(
        "run",
        format=FORMAT,
        schema=SCHEMA,
        id=number,
        session=session or number,
        pid=os.getpid(),
        arguments=[str(each) for each in config.invocation_params.args],
        directory=str(config.invocation_params.dir),
        rootdir=str(config.rootpath),
        versions={
            "pytest-fkit": __version__,
            "pytest": pytest.__version__,
            "xdist": xdist.__version__,
            "pluggy": pluggy.__version__,
            "python": platform.python_version(),
        },
        options={**_options(settings), "dist": config.getoption("dist", "no")},
        devices=gpus.devices,
        slices=gpus.slices,
        machine={
            "host": socket.gethostname(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "memory": psutil.virtual_memory().total,
            "python": sys.executable,
        },
    )


def _options(settings: Settings) -> dict[str, Any]:
    return {
        name: value if value is None or isinstance(value, (int, float)) else str(value)
        for name, value in vars(settings).items()
    }
