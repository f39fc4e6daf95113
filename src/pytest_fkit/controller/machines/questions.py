"""Questions to another machine, before any worker starts there.

Imports nothing of ours: it is sent there as source.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import zlib
from typing import Any


def answers(distributions: list[str], paths: list[str], sizes: dict[str, int]) -> dict[str, Any]:
    """What the controller needs to know about a machine.

    :param distributions: whose versions it wants to know.
    :param paths: that it wants to know whether they are there, the root directory first.
    :param sizes: bytes that files are to have, by path.
    """
    found = {path: _size(path) for path in sizes}
    return {
        "host": platform.node(),
        "executable": sys.executable,
        "python": "{}.{}".format(*sys.version_info),
        "versions": {name: _version(name) for name in distributions},
        "missing": [
            *(path for path in paths if not os.path.exists(path)),  # noqa: PTH110
            *(path for path in sizes if found[path] is None and path not in paths),
        ],
        "differing": [path for path in sizes if found[path] not in (None, sizes[path])],
        "commit": _commit(paths[0]),
        "boot": _text("/proc/sys/kernel/random/boot_id"),  # random(4)
        "cores": _cores(),
    }


def _size(path: str) -> int | None:
    """Bytes, None where there is no such file.

    Of the open file: of that NFS asks the server (close-to-open consistency, nfs(5)).
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return os.fstat(file.fileno()).st_size
    except OSError:
        return None


def checksums(paths: list[str]) -> list[int | None]:
    """Checksums of files; None for what can't be read."""
    found: list[int | None] = []
    for path in paths:
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                found.append(zlib.crc32(file.read()))
        except OSError:
            found.append(None)
    return found


def _commit(directory: str) -> str:
    """What is checked out, "" where that is not known (gitrepository-layout(5))."""
    while not os.path.exists(f"{directory}/.git"):  # noqa: PTH110
        directory, below = os.path.dirname(directory), directory  # noqa: PTH120
        if directory == below:
            return ""
    git = f"{directory}/.git"  # of a worktree it is a file: not known
    head = _text(f"{git}/HEAD")
    if not head.startswith("ref: "):
        return head
    name = head[len("ref: ") :]
    packed = _text(f"{git}/packed-refs").splitlines()
    commits = [line.partition(" ")[0] for line in packed if line.endswith(f" {name}")]
    return _text(f"{git}/{name}") or "".join(commits)


def _text(path: str) -> str:
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read().strip()
    except (OSError, ValueError):
        return ""


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
    _asked = _channel.receive()
    while _asked:  # for the time here, to see how long a message takes, too; or for checksums
        _channel.send(time.time() if _asked is True else checksums(_asked))
        _asked = _channel.receive()
