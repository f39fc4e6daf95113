"""What a process used of the machine, asked only where a journal or a list is wanted."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, NamedTuple

from .. import system

# getrusage(2): kilobytes, except on macOS, where they are bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Usage(NamedTuple):
    """What a test used, with the processes that it waited for.

    :param user: CPU time in user mode, in seconds.
    :param system: CPU time in the kernel, in seconds.
    :param peak_memory: bytes, the highest resident set of one process; pages that it shares with
        the process it was forked from are counted.
    :param minor_faults: page faults without reading from a disk.
    :param major_faults: page faults with it.
    :param read: bytes by read(2) and the like, caches and pipes included; None where unknown.
    :param written: the same by write(2) and the like.
    """

    user: float
    system: float
    peak_memory: int
    minor_faults: int
    major_faults: int
    read: int | None
    written: int | None


def wait_for(pid: int) -> tuple[int, Usage]:
    """Wait for a child to end; its status as waitpid(2) gives it, and what it used.

    :raises ChildProcessError: if there is no such child.
    """
    moved = system.moved_bytes_at_end(pid)
    _, status, used = _wait4(pid, 0)
    return status, _usage(used, moved)


def reap(pid: int) -> tuple[int, Usage] | None:
    """As :func:`wait_for`, but None at once if the child has not ended.

    :raises ChildProcessError: if there is no such child.
    """
    moved = system.moved_bytes(pid) if system.process_state(pid) == "Z" else None
    ended, status, used = _wait4(pid, os.WNOHANG)
    return (status, _usage(used, moved)) if ended else None


def _wait4(pid: int, options: int) -> tuple[int, int, Any]:
    # It imports "resource" each time, and takes whatever has that name.
    theirs = sys.modules.get("resource")
    sys.modules["resource"] = resource
    try:
        return os.wait4(pid, options)
    finally:
        if theirs is None:
            del sys.modules["resource"]
        else:
            sys.modules["resource"] = theirs


def since(before: Usage, now: Usage) -> Usage:
    """What a process used between two moments, its peak that of the second."""
    return Usage(
        now.user - before.user,
        now.system - before.system,
        now.peak_memory,
        now.minor_faults - before.minor_faults,
        now.major_faults - before.major_faults,
        None if now.read is None or before.read is None else now.read - before.read,
        None if now.written is None or before.written is None else now.written - before.written,
    )


class Meter:
    """Measures, in a process that runs many tests, what one of them uses. Starts with it."""

    def __init__(self) -> None:
        system.forget_peak_memory()
        self.before = until_now()

    def read(self) -> Usage:
        """What was used since the start."""
        return since(self.before, until_now())


def until_now() -> Usage:
    """What this process, and those that it waited for, used since it began."""
    own = _usage(resource.getrusage(resource.RUSAGE_SELF), system.moved_bytes())
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own._replace(
        user=own.user + waited.ru_utime,
        system=own.system + waited.ru_stime,
        minor_faults=own.minor_faults + waited.ru_minflt,
        major_faults=own.major_faults + waited.ru_majflt,
    )


def _usage(used: Any, moved: tuple[int, int] | None) -> Usage:
    read, written = moved or (None, None)
    return Usage(
        used.ru_utime, used.ru_stime, used.ru_maxrss * _MAXRSS_UNIT,
        used.ru_minflt, used.ru_majflt, read, written,
    )  # fmt: skip
