"""Resource limits, see setrlimit(2), that suites lower and our own calls meet as well.

A soft limit is raised to the hard one around our calls, and restored for tests and what they start.
A hard limit stays; messages name it where it stops us.
"""

from __future__ import annotations

import errno
import sys
from typing import Any, Callable, TypeVar

from ..named_tuple import NamedTuple
from ..own import own_builtins, resource, suppress

own_builtins(globals())

T = TypeVar("T")


def _number(name: str) -> int:
    """The number of a limit; -1 where the system has no such limit."""
    return getattr(resource, f"RLIMIT_{name}", -1)


NOFILE = _number("NOFILE")
FSIZE = _number("FSIZE")
MEMORY = (_number("AS"), _number("DATA"))
PROCESSES = _number("NPROC")


class _Limit(NamedTuple):
    """A kind of limit, for messages.

    :param command: of the shell, to raise it.
    """

    kind: int
    name: str
    of: str
    command: str

    @property
    def hint(self) -> str:
        """Its name, and how it is raised."""
        return f"({self.name}; `{self.command}` raises it)"

    def __str__(self) -> str:
        return f"{self.of} {self.hint}"


_NOFILE = _Limit(NOFILE, "RLIMIT_NOFILE", "open files", "ulimit -n 1024")
_FSIZE = _Limit(FSIZE, "RLIMIT_FSIZE", "the size of files", "ulimit -f unlimited")
_NPROC = _Limit(PROCESSES, "RLIMIT_NPROC", "the user's processes", "ulimit -u unlimited")
_AS = _Limit(MEMORY[0], "RLIMIT_AS", "address space", "ulimit -v unlimited")
_DATA = _Limit(MEMORY[1], "RLIMIT_DATA", "data segments", "ulimit -d unlimited")

_OURS = (*(each.kind for each in (_NOFILE, _FSIZE, _NPROC, _AS, _DATA)), _number("CPU"))

FILES_LIMITED = 88
"""Exit status of a process of ours that the limit on open files stopped."""

SIZE_LIMITED = 87
"""The same for the limit on the size of files, to which a test's reports are written."""

MEMORY_LIMITED = 89
"""The same for the limits on memory."""

_STATUS = {errno.EMFILE: FILES_LIMITED, errno.EFBIG: SIZE_LIMITED, errno.ENOMEM: MEMORY_LIMITED}


class Soft(NamedTuple):
    """What limits of one kind were before they were raised."""

    kind: int
    limits: tuple[int, int]


def raise_soft(kinds: tuple[int, ...] = _OURS) -> list[Soft]:
    """Raise soft limits of this process to the hard ones.

    :return: what :func:`restore` takes.
    """
    before = []
    for kind in kinds:
        if kind < 0:  # not of this system
            continue
        limits = resource.getrlimit(kind)
        if limits[0] != limits[1]:
            with suppress(OSError, ValueError):  # macOS knows a lower limit on open files
                resource.setrlimit(kind, (limits[1], limits[1]))
                before.append(Soft(kind, limits))
    return before


def restore(before: list[Soft]) -> None:
    """Undo :func:`raise_soft`."""
    for kind, limits in before:
        resource.setrlimit(kind, limits)


class room:  # noqa: N801 (a statement, like suppress)
    """Within the block, in which no code of the suite may run, soft limits are the hard ones.

    :param kinds: of limits; open files if none is named.
    """

    def __init__(self, *kinds: int) -> None:
        self._kinds = kinds or (NOFILE,)
        self._before: list[Soft] = []

    def __enter__(self) -> None:
        self._before = raise_soft(self._kinds)

    def __exit__(self, *error: object) -> None:
        restore(self._before)


def insist(call: Callable[..., T], *arguments: Any) -> T:
    """Call the kernel; if it refuses, once more with the soft limits raised to the hard ones.

    Where limits leave room, as most do, they cost nothing. Not for file sizes, where a refusal
    comes with a signal, see setrlimit(2).

    :raises OSError: if it refuses again.
    """
    try:
        return call(*arguments)
    except OSError:
        with room(NOFILE, PROCESSES):
            return call(*arguments)


def hard() -> list[int]:
    """The hard limits of this process, for comparisons."""
    infinity = resource.RLIM_INFINITY
    found = (resource.getrlimit(kind)[1] for kind in _OURS if kind >= 0)
    return [sys.maxsize if limit == infinity else limit for limit in found]


def is_refusal(error: OSError | MemoryError) -> bool:
    """Whether an error came from a limit, or from who forbids what we asked for."""
    numbers = (*_STATUS, errno.ENFILE, errno.EAGAIN, errno.EPERM)
    return isinstance(error, MemoryError) or error.errno in numbers


def refusal(error: OSError | MemoryError) -> str:
    """The limit that an error came from and what raises it, or who forbids it, in words."""
    number = errno.ENOMEM if isinstance(error, MemoryError) else error.errno
    if number == errno.EMFILE:
        return _said(_NOFILE)
    if number == errno.EFBIG:
        return _said(_FSIZE)
    if number == errno.EAGAIN and _is_set(_NPROC):
        return _said(_NPROC)
    if number == errno.EAGAIN:
        return "no other process is allowed (the pids.max of its control group is a place to look)"
    if number == errno.ENOMEM:
        limited = next(filter(_is_set, (_AS, _DATA)), None)
        return "there is no memory left" if limited is None else _said(limited)
    if isinstance(error, PermissionError):
        return error.strerror or str(error)
    return str(error)


def refusal_of(status: int) -> str:
    """What stopped a process of ours that exited with this status, in words; "" for any other."""
    return {
        FILES_LIMITED: f"the hard limit on {_NOFILE} keeps it from being run",
        SIZE_LIMITED: f"its hard limit on {_FSIZE} keeps reports from being sent",
        MEMORY_LIMITED: f"its hard limit on {_AS} or {_DATA} leaves too little memory",
    }.get(status, "")


def status_of(error: BaseException, other: int) -> int:
    """The exit status for a process of ours that ends by an error; `other` if it is no limit's."""
    if isinstance(error, MemoryError):
        return MEMORY_LIMITED
    return _STATUS.get(error.errno or 0, other) if isinstance(error, OSError) else other


def _is_set(limit: _Limit) -> bool:
    return limit.kind >= 0 and resource.getrlimit(limit.kind)[1] != resource.RLIM_INFINITY


def _said(limit: _Limit) -> str:
    hard = resource.getrlimit(limit.kind)[1]
    return f"the hard limit on {limit.of} is {hard} {limit.hint}"
