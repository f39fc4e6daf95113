"""Turns: of the processes of a machine, one at a time does what would slow the others down."""

from __future__ import annotations

import errno
from typing import Callable

from ...own import fcntl, os, own_builtins

own_builtins(globals())


class NoTurnError(Exception):
    """Others had the turn for all the time that there was."""


def take_turn(
    path: str, flags: int, until: Callable[[Callable[[], bool], float], bool], limit: float
) -> int:
    """Wait for the turn that a file, or directory, stands for.

    Where its file system knows no locks nobody waits. The kernel takes the turn back from a process
    that dies.

    :param flags: with which it is opened.
    :param until: waits for a condition, at most so many seconds; returns whether it holds.
    :param limit: seconds.
    :return: a descriptor of the file; the turn is over when that is closed.
    :raises OSError: if it can't be opened.
    :raises NoTurnError: if the time was not enough.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    taken = False
    try:
        taken = until(lambda: _is_locked(descriptor), limit)
    finally:
        if not taken:
            os.close(descriptor)
    if not taken:
        raise NoTurnError
    return descriptor


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True
