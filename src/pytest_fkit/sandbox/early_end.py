"""Whether a child is as good as ended: what is left of it, memory, can't be in anybody's way."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Iterator

from .. import system

_GROWTH = 1 << 16
"""KiB that a test may have used beyond what it was forked with: the next one may want as much."""

# Linux, include/uapi/linux/wait.h: children of whatever kind.
_WALL = 0x40000000

_HARMLESS = ("null", "zero", "full", "random", "urandom", "shm/", "pts/", "tty")

SUPPORTED = not system.PORTABLE and hasattr(os, "pidfd_open")
"""Whether its parent can wait for a word and for the end of a child at once; Python 3.9."""


def is_possible(memory: int) -> bool:
    """Whether this process may say that it is over before it is.

    Not with children, which become the keeper's when it has ended; not with much memory; and not
    with a device open, as a GPU, that is free for others when it has ended.

    :param memory: KiB that were resident when it was forked.
    """
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > memory + _GROWTH:
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return not any(map(_is_device, _descriptors()))
    except OSError:
        return False
    return False


def close_others(kept: int) -> None:
    """Close all descriptors but this: a port, or a lock on a file, is free then."""
    for descriptor in _descriptors():
        if descriptor != kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _descriptors() -> Iterator[int]:
    return map(int, os.listdir("/proc/self/fd"))  # noqa: PTH208 (called for every test)


def _is_device(descriptor: int) -> bool:
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # the one of the directory listing, closed by now
        return False
    return target.startswith("/dev/") and not target.startswith(_HARMLESS, len("/dev/"))
