"""The process that a worker asks how much memory of its GPUs is in use."""

from __future__ import annotations

import json

import pytest

from ...config.settings import KEY as SETTINGS
from ...gpu.asking.interpreters import light_interpreter
from ...gpu.asking.machine import Machine
from ...gpu.health.memory import GpuMemory
from ...gpu.slices.ownership import MEMORY, Owned
from ...own import os, own_builtins, subprocess
from ...protocol.descriptors import move_up

own_builtins(globals())

_ASKED = ("nvidia", "amd")
"""Vendors whose drivers are asked."""


def watch_memory(config: pytest.Config, owned: Owned) -> None:
    """Start it where somebody may answer, until this pytest is over.

    Before tests are collected, so that it is there when the first one runs.
    """
    named = {gpu: list(names) for gpu, names in owned.named.items() if any(names)}
    if owned.vendor not in _ASKED or not named or config.option.collectonly:
        return
    memory = _start(owned, named, config.stash[SETTINGS].gpu_memory_timeout)
    if memory is not None:
        config.stash[MEMORY] = memory
        config.add_cleanup(memory.end)


def _start(owned: Owned, named: dict[str, list[str]], seconds: float) -> GpuMemory | None:
    machine = Machine.here()
    # The portable road needs psutil, which a light interpreter can't import.
    environ = machine.environment()
    environ.pop("FKIT_PORTABLE", None)
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for pipes in ((theirs, ours), (ours, theirs)):
            for end, found in zip(os.pipe(), pipes):
                found.append(end)
        requests, answers = map(move_up, ours)
        process = subprocess.Popen(
            light_interpreter(
                "pytest_fkit.gpu.health.memory_reader:serve", machine.root, str(os.getpid()),
                *map(str, theirs), owned.vendor, json.dumps(named),
                json.dumps([gpu for gpu in owned.ids if gpu in named]), str(int(owned.shared)),
            ),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=theirs,
        )  # fmt: skip
    except OSError:  # a limit of the machine
        return None
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    process.returncode = 0  # it is waited for by its pid
    return GpuMemory(process.pid, requests, answers, owned.ids, seconds)
