"""Process trees anywhere: POSIX calls and psutil.

Without a subreaper, processes that left the keeper's session and lost their parent can't be found
any more; without PDEATHSIG, a child notices the death of its host only through the keeper.
"""

from __future__ import annotations

import psutil

from ..own import os, own_builtins

own_builtins(globals())


def become_subreaper() -> None:
    """Nothing: orphans go to init."""


def die_with_parent(parent: int) -> None:
    """Leave if the parent is gone already; later deaths are the keeper's to notice."""
    if os.getppid() != parent:
        os._exit(1)


def must_let_attach() -> bool:
    """No: Yama is Linux's."""
    return False


def let_attach(_pid: int) -> None:
    """Nothing: who may attach is not ours to say."""


def anonymous_file(name: str) -> int:
    """A new unnamed file in the temporary directory, as a close-on-exec descriptor."""
    directory = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 (made so that nobody else has it)
    path = f"{directory}/fkit-{name}-{os.getpid()}-{os.urandom(8).hex()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return descriptor


def free_range(_descriptor: int, _begin: int, _end: int) -> None:
    """Nothing: the file is on a disk, as with plain pytest."""


def adopted_children(known: set[int]) -> set[int]:
    """Pids of those in the session that this process leads whose parent is gone; not of `known`."""
    me = os.getpid()
    if os.getsid(0) != me:  # a worker, or a process of the user's
        return set()
    members = {pid for pid in psutil.pids() if _session(pid) == me}
    return {pid for pid in members - known - {me} if _parent(pid) not in members and _runs(pid)}


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:  # gone, or not ours to ask about
        return -1


def _parent(pid: int) -> int:
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return -1


def _runs(pid: int) -> bool:
    return process_state(pid) not in ("", "Z")


def tracer(_pid: int) -> int:
    return 0


def caught_signals(_pid: int) -> int:
    return 0


def blocked_signals(_pid: int) -> dict[int, int]:
    return {}


def children(pid: int) -> list[int]:
    """Pids of the children of a process."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def descendants(pid: int) -> list[int]:
    """Pids of all living processes below `pid`, and those left in the group that it leads."""
    try:
        found = [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        found = []
    for other in psutil.pids():
        try:
            if other not in found and other != pid and os.getpgid(other) == pid:
                found.append(other)
        except OSError:  # gone, or not ours to ask about
            continue
    return found


_STATES = {
    psutil.STATUS_RUNNING: "R",
    psutil.STATUS_SLEEPING: "S",
    psutil.STATUS_DISK_SLEEP: "D",
    psutil.STATUS_STOPPED: "T",
    psutil.STATUS_ZOMBIE: "Z",
}


def process_state(pid: int) -> str:
    """The state as a letter ("R", "S", "D", "T", "Z"), or "" if there is no process."""
    try:
        return _STATES.get(psutil.Process(pid).status(), "S")
    except psutil.Error:
        return ""


def command_line(pid: int) -> str:
    """What a process was started with, "" if it is gone or another user's."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def describe(pid: int) -> str:
    """The process for people: pid, state and command line."""
    command = command_line(pid) or "?"
    return f"pid {pid} ({process_state(pid) or 'gone'}): {command[:200]}"


def process_memory(pid: int) -> int:
    """Bytes of resident memory of the process alone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def tree_memory(pid: int, inherited: int = 0, _limit: int = 0) -> int:
    """Bytes of resident memory of the process and its descendants, less what was inherited."""
    total = -inherited
    total += sum(process_memory(process) for process in [pid, *descendants(pid)])
    return max(0, total)


def io_account(_pid: str | int = "self") -> bytes:
    return b""


def io_account_at_end(_pid: int) -> bytes:
    return b""


def forget_peak_memory() -> None:
    """Impossible: the peak is that of the process's whole life."""


def be_first_for_oom_killer() -> None:
    """Nothing: other systems have no such knob."""


def oom_kills() -> int:
    """Zero: other systems have no such counter."""
    return 0
