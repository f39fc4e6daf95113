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
# Of st_mode; no functions of the stat module: a test's process copies the pages of all it calls.
_KIND, _BLOCK, _CHARACTER = stat.S_IFMT(0xFFFF), stat.S_IFBLK, stat.S_IFCHR
_HARMLESS = frozenset(os.makedev(*numbers) for numbers in _NUMBERS)
_TERMINALS = frozenset((4, *range(136, 144)))

SUPPORTED = not system.PORTABLE and hasattr(os, "pidfd_open")
"""Whether a host can wait for a message and for the end of a child at once; Python 3.9."""


def close_all_but(kept: int, memory: int, owns_gpus: bool = False) -> bool:
    """Close this process's descriptors, which frees ports and locks, if it may count as ended now.

    It may not if it has children, which the keeper adopts only when it has ended; nor if it has
    grown much; nor if it has a device open, such as a GPU, which is free only when it has ended. If
    its worker owns GPUs, nor if it has waited for processes: they may have had a GPU open.

    :param kept: a descriptor that stays open.
    :param memory: the process's resident memory when it was forked, in KiB.
    :param owns_gpus: whether its worker owns GPUs.
    :return: whether they are closed.
    """
    if owns_gpus and resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss:
        return False
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > memory + _GROWTH:
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
        return False
    except ChildProcessError:
        descriptors = list(map(int, insist(os.listdir, "/proc/self/fd")))
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
        except OSError:  # the descriptor of the directory listing, closed by now
            continue
        kind = status.st_mode & _KIND
        harmless = status.st_rdev in _HARMLESS or os.major(status.st_rdev) in _TERMINALS
        if kind == _BLOCK or (kind == _CHARACTER and not harmless):
            return False
    os.closerange(0, kept)
    os.closerange(kept + 1, max(descriptors) + 1)
    return True
