"""Questions to another machine, before any worker starts there.

Imports nothing of ours: it is sent there as source.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Any


def answers(distributions: list[str], paths: list[str]) -> dict[str, Any]:
    """What the controller needs to know about a machine.

    :param distributions: whose versions it wants to know.
    :param paths: that it wants to know whether they are there.
    """
    return {
        "host": platform.node(),
        "executable": sys.executable,
        "python": "{}.{}".format(*sys.version_info),
        "versions": {name: _version(name) for name in distributions},
        "missing": [path for path in paths if not os.path.exists(path)],  # noqa: PTH110
        "cores": _cores(),
    }


def _version(distribution: str) -> str:
    try:
        from importlib import metadata  # which no Python before 3.8 has

        return str(metadata.version(distribution))
    except ImportError:  # of which PackageNotFoundError is one
        return ""


def _cores() -> int:
    """The cores that this process may use: by its affinity, its cgroup and its Slurm step."""
    try:
        found = [len(os.sched_getaffinity(0))]
    except AttributeError:  # macOS
        found = [os.cpu_count() or 1]
    step = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if step.isdigit():
        found.append(int(step))
    try:
        # Documentation/admin-guide/cgroup-v2.rst; in a container that is its own cgroup.
        with open("/sys/fs/cgroup/cpu.max") as file:  # noqa: PTH123
            quota, period = file.read().split()
        found.append(int(quota) // int(period))
    except (OSError, ValueError):  # "max" of it, or another cgroup
        pass
    return max(1, min(found))


if __name__ == "__channelexec__":
    _channel: Any = globals()["channel"]
    _channel.send(answers(*_channel.receive()))
    while _channel.receive():  # how long does a message take, and what time is it here?
        _channel.send(time.time())
