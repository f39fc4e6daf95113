"""GPU memory that is not free yet: it is when the last process that has the device open is gone."""

from __future__ import annotations

import re
from typing import Callable, Iterable

from ..own import os, own_builtins, suppress

own_builtins(globals())

# What a CUDA context or an NVML handle opens, and what ROCm's runtime does; in a directory that
# stands for a machine, too.
_DEVICE = re.compile(r"/dev/(?:nvidia(?:\d+|ctl|-uvm)|kfd)$")


def holders(pids: Iterable[int], proc: str = "/proc") -> list[int]:
    """Those of the processes that have a GPU's device file open.

    A process of which that can't be seen, as it is gone or another user's, has none.

    :param proc: where procfs is mounted.
    """
    return [pid for pid in pids if any(map(_DEVICE.search, _targets(f"{proc}/{pid}/fd")))]


def _targets(directory: str) -> list[str]:
    """What the descriptors of a process refer to."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = []
    for name in names:
        with suppress(OSError):  # closed by now
            found.append(os.readlink(f"{directory}/{name}"))
    return found


def await_release(
    pids: Callable[[], Iterable[int]],
    until: Callable[[Callable[[], bool], float], bool],
    limit: float,
) -> list[int]:
    """Wait until no process holds a GPU any more; those that do at the end.

    :param pids: gives the processes in question that are left.
    :param until: waits for something to be true, so many seconds at most.
    :param limit: seconds.
    """
    if holders(pids()):
        until(lambda: not holders(pids()), limit)
    return holders(pids())
