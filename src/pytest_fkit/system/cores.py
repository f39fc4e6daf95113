"""Core files on Linux, see core(5): their limits, where the kernel writes them, whose they are."""

from __future__ import annotations

import errno
import re
import stat

from ..named_tuple import NamedTuple
from ..own import os, own_builtins, resource, signal, struct, suppress
from .limits import room
from .paths import joined, read_text

own_builtins(globals())

CORE = resource.RLIMIT_CORE

MOST_BYTES = 4 << 30
"""Bytes of a core; a larger one would take minutes, and a disk."""

SIGNALS = frozenset(
    int(number)
    for number in (
        signal.SIGQUIT, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS,
        signal.SIGFPE, signal.SIGSEGV, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGSYS,
    )
)  # fmt: skip
"""The signals whose default action is a core, see signal(7)."""

_PATTERN = "/proc/sys/kernel/core_pattern"

# Bits 0 and 4 of proc(5): private memory, and the first page of libraries, which names them. Not
# what is shared, files or huge pages, of which a process with GPUs has terabytes mapped.
_FILTER = b"0x11"


def pattern() -> str:
    """Where the kernel writes cores; a pipe to a program if it begins with "|", or "@"."""
    try:
        return read_text(_PATTERN).rstrip("\n")
    except OSError:
        return ""


def is_piped(told: str) -> bool:
    """Whether cores go to a program, and to no file."""
    return told[:1] in ("|", "@")


# --- limits ---------------------------------------------------------------------------------------


def _at_most(hard: int) -> int:
    return MOST_BYTES if hard == resource.RLIM_INFINITY else min(hard, MOST_BYTES)


def allow() -> None:
    """Have this process, and those that it forks, leave cores."""
    with suppress(OSError, ValueError):
        hard = resource.getrlimit(CORE)[1]
        resource.setrlimit(CORE, (_at_most(hard), hard))
    _choose_memory("self")


def hard_limit(pid: int) -> int:
    """Bytes that the core of a process may have at most, -1 for no limit.

    :raises OSError: if it is gone, or another user's.
    """
    return resource.prlimit(pid, CORE)[1]


def allow_process(pid: int) -> None:
    """The same as :func:`allow` for a process that exists, whatever it has done to its limits.

    :raises OSError: if it is gone, or another user's.
    """
    hard = hard_limit(pid)
    resource.prlimit(pid, CORE, (_at_most(hard), hard))
    _choose_memory(pid)


def forbid_process(pid: int) -> None:
    """Have a process leave no core."""
    with suppress(OSError, ValueError):
        resource.prlimit(pid, CORE, (0, resource.prlimit(pid, CORE)[1]))


def _choose_memory(pid: int | str) -> None:
    with suppress(OSError), room():
        descriptor = os.open(f"/proc/{pid}/coredump_filter", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, _FILTER)
        finally:
            os.close(descriptor)


def expected_size(pid: int) -> int:
    """Bytes that the core of a process will have, about: its private memory."""
    try:
        lines = read_text(f"/proc/{pid}/status").splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(_PRIVATE))


_PRIVATE = ("RssAnon:", "VmSwap:")


# --- files ----------------------------------------------------------------------------------------


def written(told: str, directory: str) -> list[str]:
    """The files that may be cores by this pattern, the newest first.

    :param directory: that was the current one of the process.
    """
    found = ["/"] if told.startswith("/") else [directory]
    parts = [part for part in told.split("/") if part] or [""]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if "%" not in part and not last:
            found = [joined(each, part) for each in found]
        else:
            named = re.compile(_names(part, last and "%p" not in told), re.DOTALL)
            found = [
                joined(each, name) for each in found for name in _listed(each) if named.match(name)
            ]
    changed = {path: _changed(path) for path in found}
    return sorted(filter(changed.get, found), key=lambda path: changed[path], reverse=True)


def _names(part: str, may_have_pid: bool) -> str:
    """A regular expression for the names that a part of a pattern makes.

    :param may_have_pid: whether core_uses_pid adds one.
    """
    made = "".join(
        "%" if each == "%%" else ".*" if each.startswith("%") else re.escape(each)
        for each in re.findall(r"%.?|[^%]+", part, re.DOTALL)
    )
    return made + (r"(\.[0-9]+)?" if may_have_pid else "") + r"\Z"


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _changed(path: str) -> float:
    """When a regular file was changed last, 0 for anything else."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0.0
    return found.st_mtime if stat.S_ISREG(found.st_mode) else 0.0


class CoreFile(NamedTuple):
    """What a core says of itself.

    :param pid: of the process, 0 if that is not known.
    :param size: bytes that it needs; if the file has fewer, it was cut off.
    :param thread: the one that crashed, 0 if that is not known.
    """

    pid: int
    size: int
    thread: int = 0


_NOTHING = CoreFile(0, 0)

# elf(5), of 64 bits.
_PT_NOTE = 4
_ET_CORE = 4
# Of the notes: where a pid is in them, of structs elf_prstatus and elf_prpsinfo in
# include/linux/elfcore.h. The first of the former is that of the thread that crashed.
_NT_PRSTATUS, _THREAD_AT = 1, 32
_NT_PRPSINFO, _PID_AT = 3, 24
_MOST_HEADERS = 1 << 16
_MOST_NOTES = 1 << 24


def read_core(path: str) -> CoreFile:
    """Read a file that may be a core, of a process of 64 bits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return _NOTHING
    try:
        return _read_core(descriptor)
    except (OSError, struct.error):
        return _NOTHING
    finally:
        os.close(descriptor)


def _read_core(descriptor: int) -> CoreFile:
    head = os.pread(descriptor, 64, 0)
    if head[:5] != b"\x7fELF\x02" or len(head) < 64:
        return _NOTHING
    order = "<" if head[5] == 1 else ">"
    kind, *_, table, _sections = struct.unpack_from(f"{order}HHIQQQ", head, 16)
    entry, number = struct.unpack_from(f"{order}HH", head, 54)
    if kind != _ET_CORE or entry != 56 or number > _MOST_HEADERS:
        return _NOTHING
    headers = os.pread(descriptor, entry * number, table)
    pid = thread = size = 0
    for at in range(0, len(headers) - entry + 1, entry):
        (what,) = struct.unpack_from(f"{order}I", headers, at)
        offset, _, _, length = struct.unpack_from(f"{order}QQQQ", headers, at + 8)
        size = max(size, offset + length)
        if what == _PT_NOTE:
            notes = os.pread(descriptor, min(length, _MOST_NOTES), offset)
            pid = pid or _pid(notes, order, _NT_PRPSINFO, _PID_AT)
            thread = thread or _pid(notes, order, _NT_PRSTATUS, _THREAD_AT)
    return CoreFile(pid, size, thread)


def _pid(notes: bytes, order: str, wanted: int, place: int) -> int:
    """The pid in the first note of a kind, 0 if there is none.

    :param place: where in the note the pid is, in bytes.
    """
    at = 0
    while at + 12 <= len(notes):
        name, length, kind = struct.unpack_from(f"{order}III", notes, at)
        begin = at + 12 + -(-name // 4) * 4
        if kind == wanted and notes[at + 12 : at + 17] == b"CORE\0":
            return int(struct.unpack_from(f"{order}i", notes, begin + place)[0])
        at = begin + -(-length // 4) * 4
    return 0


def is_whole(path: str, core: CoreFile) -> bool:
    """Whether nothing was cut off at its end."""
    try:
        return os.lstat(path).st_size >= core.size
    except OSError:
        return False


def move(path: str, to: str) -> None:
    """Move a core, also to another file system; what it does not fill takes no room there.

    :raises OSError: if that fails; the core is where it was.
    """
    try:
        os.rename(path, to)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    try:
        _copy(path, to)
    except OSError:
        with suppress(OSError):
            os.unlink(to)
        raise
    os.unlink(path)


def _copy(path: str, to: str) -> None:
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(to, flags, 0o600)
        try:
            _copy_filled(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_filled(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole is left
            return
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            chunk = os.pread(source, min(1 << 20, end - at), at)
            if not chunk:
                return
            at += os.pwrite(target, chunk, at)


def room_in(directory: str) -> int:
    """Bytes that can be written there."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
