"""Decides whether a child that still exists can count as ended: only its memory is left."""

from __future__ import annotations

import stat

from ... import system
from ...own import os, own_builtins, resource
from ...system.limits import insist

own_builtins(globals())

_GROWTH = 1 << 16
"""KiB by which a child may have grown since its fork: the next test may need as much at once."""

# Linux, include/uapi/linux/wait.h: wait for all children, of whatever kind.
_WALL = 0x40000000

# Linux, Documentation/admin-guide/devices.txt: null, zero, full, random, urandom, tty;
# and the majors of consoles and serial ports, and of pseudo-terminals.
_NUMBERS = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0))
_HARMLESS = frozenset(os.makedev(*numbers) for numbers in _NUMBERS)
_TERMINALS = frozenset((4, *range(136, 144)))

SUPPORTED = not system.PORTABLE and hasattr(os, "pidfd_open")
"""Whether a host can wait for a message and for the end of a child at once; Python 3.9."""


def is_possible(memory: int, owns_gpus: bool = False) -> bool:
    """Whether this process may announce its end before it has ended.

    Not if it has children, which the keeper adopts only when it has ended; nor if it has grown
    much; nor if it has a device open, such as a GPU, which is free only when it has ended. If its
    worker owns GPUs, nor if it has waited for processes: they may have had a GPU open.

    :param memory: its resident memory when it was forked, in KiB.
    :param owns_gpus: whether its worker owns GPUs.
    """
    if owns_gpus and resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss:
        return False
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
    """Close all descriptors but `kept`, which frees ports and file locks."""
    highest = max(_descriptors())
    os.closerange(0, kept)
    os.closerange(kept + 1, highest + 1)


def _descriptors() -> list[int]:
    return list(map(int, insist(os.listdir, "/proc/self/fd")))


def _is_device(descriptor: int) -> bool:
    try:
        status = os.fstat(descriptor)
    except OSError:  # the descriptor of the directory listing, closed by now
        return False
    if stat.S_ISBLK(status.st_mode):
        return True
    if not stat.S_ISCHR(status.st_mode):
        return False
    return status.st_rdev not in _HARMLESS and os.major(status.st_rdev) not in _TERMINALS
