"""Measures CPU time, memory and I/O of test processes, for journals and lists of tests only."""

from __future__ import annotations

import sys
from typing import Any

from ... import system
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, resource
from ...system import io_account

own_builtins(globals())

# getrusage(2): kilobytes, except on macOS, where they are bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Usage(NamedTuple):
    """What a test used, including the processes that it waited for.

    :param user: CPU time in user mode, in seconds.
    :param system: CPU time in the kernel, in seconds.
    :param peak_memory: largest resident set of any one process, in bytes, including pages that it
        shares with the process it was forked from.
    :param minor_faults: number of page faults that needed no I/O.
    :param major_faults: number of page faults that needed I/O.
    :param read: bytes by read(2) and similar, from caches and pipes too; None where unknown.
    :param written: bytes by write(2) and similar; None where unknown.
    """

    user: float
    system: float
    peak_memory: int
    minor_faults: int
    major_faults: int
    read: int | None
    written: int | None


class RawUsage(NamedTuple):
    """The kernel's figures on a process, unprocessed.

    Hosts only collect them, and the worker computes :meth:`usage`: any Python code writes to
    memory, and in a process that forks, each page written to is copied first.

    :param all: fields of getrusage(2) on the process and those that it waited for, up to ru_majflt.
    :param moved: the content of its io file, see proc(5); empty where unknown.
    """

    all: tuple[Any, ...]
    moved: bytes = b""

    def usage(self) -> Usage:
        user, kernel, peak, _, _, _, minor, major = self.all
        return Usage(user, kernel, peak * _MAXRSS_UNIT, minor, major, *_moved_bytes(self.moved))


def wait_for(pid: int) -> tuple[int, RawUsage]:
    """Wait for a child to end; return its wait status, and what it used.

    :raises ChildProcessError: if there is no such child.
    """
    moved = system.io_account_at_end(pid)
    _, status, used = _wait4(pid, 0)
    return status, RawUsage(used[:8], moved)


def reap(pid: int) -> tuple[int, RawUsage] | None:
    """Like :func:`wait_for`, but return None at once if the child has not ended.

    :raises ChildProcessError: if there is no such child.
    """
    moved = system.io_account(pid) if system.process_state(pid) == "Z" else b""
    ended, status, used = _wait4(pid, os.WNOHANG)
    return (status, RawUsage(used[:8], moved)) if ended else None


def until_now() -> Usage:
    """What this process has used since its start; its peak without those that it waited for."""
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = RawUsage(resource.getrusage(resource.RUSAGE_SELF)[:8], io_account()).usage()
    return own._replace(
        user=own.user + waited.ru_utime,
        system=own.system + waited.ru_stime,
        minor_faults=own.minor_faults + waited.ru_minflt,
        major_faults=own.major_faults + waited.ru_majflt,
    )


def _wait4(pid: int, options: int) -> tuple[int, int, Any]:
    # os.wait4 imports "resource" at each call, and a suite may have put another module there.
    replaced = sys.modules.get("resource")
    sys.modules["resource"] = resource
    try:
        return os.wait4(pid, options)
    finally:
        if replaced is None:
            del sys.modules["resource"]
        else:
            sys.modules["resource"] = replaced


def since(before: Usage, now: Usage) -> Usage:
    """What a process used between two readings, with the peak memory of the second."""
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
    """Measures what one test uses in a process that runs many; started by its construction."""

    def __init__(self) -> None:
        system.forget_peak_memory()
        self.before = until_now()

    def read(self) -> Usage:
        return since(self.before, until_now())


def _moved_bytes(account: bytes) -> tuple[int | None, int | None]:
    """The bytes read and written: rchar and wchar, the first two lines of an io file."""
    if not account:
        return None, None
    read, written, _ = account.split(b"\n", 2)
    return int(read[len("rchar: ") :]), int(written[len("wchar: ") :])
