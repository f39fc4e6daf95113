"""What a process used of the machine, asked only where a journal or a list is wanted."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from ... import system
from ...own import os, own_builtins, resource
from ...system import io_account

own_builtins(globals())

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


class Account(NamedTuple):
    """What the kernel says of a process, as it says it.

    Who asks does no more than that: it is forked for a test, or forks tests, and every page of
    memory that it writes to, as the interpreter does wherever it goes, is copied first.

    :param own: the first fields of getrusage(2)'s answer on the process, up to ru_majflt.
    :param waited: the same on those that it waited for, or () if they are part of `own`.
    :param moved: the content of its io file, see proc(5); empty where that is unknown.
    """

    own: tuple[Any, ...]
    waited: tuple[Any, ...] = ()
    moved: bytes = b""

    def usage(self) -> Usage:
        """As figures."""
        user, kernel, peak, _, _, _, minor, major = self.own
        if self.waited:
            user += self.waited[0]
            kernel += self.waited[1]
            minor += self.waited[6]
            major += self.waited[7]
        return Usage(user, kernel, peak * _MAXRSS_UNIT, minor, major, *_moved_bytes(self.moved))


def wait_for(pid: int) -> tuple[int, Account]:
    """Wait for a child to end; its status as waitpid(2) gives it, and what it used.

    :raises ChildProcessError: if there is no such child.
    """
    moved = system.io_account_at_end(pid)
    _, status, used = _wait4(pid, 0)
    return status, Account(used[:8], (), moved)


def reap(pid: int) -> tuple[int, Account] | None:
    """As :func:`wait_for`, but None at once if the child has not ended.

    :raises ChildProcessError: if there is no such child.
    """
    moved = system.io_account(pid) if system.process_state(pid) == "Z" else b""
    ended, status, used = _wait4(pid, os.WNOHANG)
    return (status, Account(used[:8], (), moved)) if ended else None


def until_now() -> tuple[Any, ...]:
    """The fields of an :class:`Account` of this process since it began."""
    own = resource.getrusage(resource.RUSAGE_SELF)[:8]
    return own, resource.getrusage(resource.RUSAGE_CHILDREN)[:8], io_account()


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
        self.before = Account(*until_now()).usage()

    def read(self) -> Usage:
        """What was used since the start."""
        return since(self.before, Account(*until_now()).usage())


def _moved_bytes(account: bytes) -> tuple[int | None, int | None]:
    """Bytes that were read and written: rchar and wchar, the first two lines."""
    if not account:
        return None, None
    read, written, _ = account.split(b"\n", 2)
    return int(read[len("rchar: ") :]), int(written[len("wchar: ") :])
