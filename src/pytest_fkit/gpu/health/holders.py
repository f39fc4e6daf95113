"""Processes that have a GPU open, as procfs shows them."""

from __future__ import annotations

import re
from typing import Iterable

from ...own import os, own_builtins, suppress

own_builtins(globals())

# The files that a CUDA context, an NVML handle, or ROCm's runtime opens; in a directory that stands
# for a machine, too.
_DEVICE = re.compile(r"/dev/(?:nvidia(?:\d+|ctl|-uvm)|kfd)$")

# The files that only contexts open.
_CONTEXT = re.compile(r"/dev/(?:nvidia-uvm|kfd)$")


def holders(pids: Iterable[int], proc: str = "/proc", contexts: bool = False) -> list[int]:
    """The processes that have a GPU's device file open.

    A process that is gone, or another user's, counts as having none.

    :param proc: where procfs is mounted.
    :param contexts: whether to count only those that can have memory of the GPU.
    """
    sign = _CONTEXT if contexts else _DEVICE
    return [pid for pid in pids if any(map(sign.search, _targets(f"{proc}/{pid}/fd")))]


def _targets(directory: str) -> list[str]:
    """The files that a process has open."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = []
    for name in names:
        with suppress(OSError):  # closed by now
            found.append(os.readlink(f"{directory}/{name}"))
    return found
