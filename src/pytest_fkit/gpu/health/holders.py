"""Processes that have a GPU open, as procfs shows them."""

from __future__ import annotations

import re
from typing import Iterable

from ...own import os, own_builtins, suppress

own_builtins(globals())

# What a CUDA context or an NVML handle opens, and what ROCm's runtime does; in a directory that
# stands for a machine, too.
_DEVICE = re.compile(r"/dev/(?:nvidia(?:\d+|ctl|-uvm)|kfd)$")

# What a context opens, and who only looks does not.
_CONTEXT = re.compile(r"/dev/(?:nvidia-uvm|kfd)$")


def holders(pids: Iterable[int], proc: str = "/proc", contexts: bool = False) -> list[int]:
    """Those of the processes that have a GPU's device file open.

    A process of which that can't be seen, as it is gone or another user's, has none.

    :param proc: where procfs is mounted.
    :param contexts: whether only those count that can have memory of it.
    """
    sign = _CONTEXT if contexts else _DEVICE
    return [pid for pid in pids if any(map(sign.search, _targets(f"{proc}/{pid}/fd")))]


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
