"""Process trees on Linux: prctl(2), memfd_create(2) and /proc."""

from __future__ import annotations

from ..own import ctypes, os, own_builtins, signal
from .limits import insist, room
from .paths import read_text

own_builtins(globals())

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PTRACER = 0x59616D61
_SIGKILL = int(signal.SIGKILL)

# include/uapi/linux/falloc.h
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2

_PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Have orphaned descendants handed to this process instead of to init."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(parent: int) -> None:
    """Have SIGKILL sent to this process when the thread that forked it ends.

    :param parent: the pid of the parent; if it is gone already, this process leaves at once.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    # The parent may have died before the call above took effect; then nobody tells us.
    if os.getppid() != parent:
        os._exit(1)


def must_let_attach() -> bool:
    """Whether Yama lets none but ancestors attach to a process, unless that names another one."""
    return _read("/proc/sys/kernel/yama/ptrace_scope").strip() == "1"


def let_attach(pid: int) -> None:
    """Let a process, and those below it, attach to this one; forks of this one have to say it."""
    _libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def anonymous_file(name: str) -> int:
    """A new unnamed file in memory, as a close-on-exec descriptor."""
    return os.memfd_create(f"fkit-{name}", os.MFD_CLOEXEC)


def free_range(descriptor: int, begin: int, end: int) -> None:
    """Give the memory of whole pages of an :func:`anonymous_file` back; they read as zeros then."""
    first = -(-begin // _PAGE) * _PAGE
    last = end // _PAGE * _PAGE
    if last > first:
        mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
        # Where that fails, the memory stays in use.
        _libc.fallocate(descriptor, mode, ctypes.c_long(first), ctypes.c_long(last - first))


def _read(path: str) -> str:
    try:
        with room():
            return read_text(path)
    except OSError:  # the process is gone
        return ""


_ONE_THREAD = 3
"""Links of the directory of threads where there is one thread: each counts (fs/proc/base.c)."""


def threads(pid: int) -> list[int]:
    """Ids of the threads of a process, none where it is gone."""
    directory = f"/proc/{pid}/task"
    try:
        if os.stat(directory).st_nlink == _ONE_THREAD:  # much less work than to list it
            return [pid]
        with room():
            return [int(name) for name in os.listdir(directory)]
    except OSError:
        return []


def caught_signals(pid: int) -> int:
    """The signals that a process has handlers for, as a mask: bit 0 is signal 1."""
    return _mask(f"/proc/{pid}/status", "SigCgt:")


def tracer(pid: int) -> int:
    """Pid of the process that traces another, see ptrace(2); 0 if none does."""
    return _sum(f"/proc/{pid}/status", "TracerPid:")


def blocked_signals(pid: int) -> dict[int, int]:
    """By thread of a process, the signals that it blocks, as a mask: bit 0 is signal 1."""
    return {
        thread: _mask(f"/proc/{pid}/task/{thread}/status", "SigBlk:") for thread in threads(pid)
    }


def _mask(path: str, name: str) -> int:
    """A hexadecimal number in a file, 0 if it can't be read."""
    lines = (line for line in _read(path).splitlines() if line.startswith(name))
    return int(next(lines, "x 0").split()[1], 16)


def children(pid: int) -> list[int]:
    """Pids of the children of a process."""
    # Every thread has its own list of the children it forked.
    return [
        int(child)
        for thread in threads(pid)
        for child in _read(f"/proc/{pid}/task/{thread}/children").split()
    ]


def adopted_children(known: set[int]) -> set[int]:
    """Pids of children of this process that are not among the `known` ones."""
    pid = os.getpid()
    # Only the main thread forks here, and orphans are handed to it.
    return {int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()} - known


def descendants(pid: int) -> list[int]:
    """Pids of all living processes below `pid`, parents before their children."""
    found: list[int] = []
    queue = children(pid)
    while queue:
        child = queue.pop(0)
        if child not in found:
            found.append(child)
            queue.extend(children(child))
    return found


def process_state(pid: int) -> str:
    """The state letter of proc(5) ("R", "S", "D", "T", "Z", ...), or "" if there is no process."""
    # The name, in parentheses, may contain anything, a closing parenthesis included.
    _, _, rest = _read(f"/proc/{pid}/stat").rpartition(") ")
    return rest[:1]


def command_line(pid: int) -> str:
    """What a process was started with, "" if it is gone."""
    return _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()


def describe(pid: int) -> str:
    """The process for people: pid, state and command line."""
    command = command_line(pid)
    if _image(pid) == _image(os.getpid()):
        return f"pid {pid} ({process_state(pid) or 'gone'}): a forked copy of the test process"
    if not command:
        command = f"[{_read(f'/proc/{pid}/comm').strip()}]"
    return f"pid {pid} ({process_state(pid) or 'gone'}): {command[:200]}"


def process_memory(pid: int) -> int:
    """Bytes of memory the process alone has, pages shared with forked copies included."""
    # "Rss" itself counts files that nobody has to pay for.
    return 1024 * _sum(f"/proc/{pid}/status", "RssAnon:", "RssShmem:")


def _sum(path: str, *names: str) -> int:
    """The sum of the numbers that follow these names in a file, 0 if it can't be read."""
    lines = _read(path).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names))


def _image(pid: int) -> str:
    """What a process shares with its forked copies until one executes a program.

    The address at which its stack began (startstack in proc(5)).
    """
    fields = _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return fields[25] if len(fields) > 25 else ""


def tree_memory(pid: int, inherited: int = 0, limit: int = 0) -> int:
    """Bytes of memory the process, a forked copy of this one, and its descendants took since then.

    :param inherited: what it had when it was forked.
    :param limit: the exact measure is expensive; it is taken only if a cheap one, which counts
        pages that forked copies share more than once, exceeds this.
    """
    below = descendants(pid)
    if not below:
        return max(0, process_memory(pid) - inherited)
    tree = [pid, *below]
    image = _image(os.getpid())
    copies = {process for process in tree if _image(process) == image}
    at_most = sum(
        max(0, process_memory(process) - (inherited if process in copies else 0))
        for process in tree
    )
    if at_most <= limit:
        return at_most
    # Shared pages count in part in each of the processes that have them.
    rollups = (f"/proc/{process}/smaps_rollup" for process in tree)
    exact = 1024 * sum(_sum(path, "Pss_Anon:", "Pss_Shmem:") for path in rollups)
    # Inherited pages are shared with the three processes above: worker, keeper and host.
    exact -= inherited * len(copies) // (len(copies) + 3)
    # Less than exact where copies wrote to inherited pages.
    return min(at_most, max(0, exact))


def io_account(pid: str | int = "self") -> bytes:
    """The io file of a process, see proc(5); nothing if it is secret."""
    try:
        descriptor = insist(os.open, f"/proc/{pid}/io", os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def io_account_at_end(pid: int) -> bytes:
    """Wait until a child has ended, leave it to be reaped; :func:`io_account` of all its life.

    :raises ChildProcessError: if there is no such child.
    """
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return io_account(pid)


def forget_peak_memory() -> None:
    """Reset the peak of this process's resident set to what it is now."""
    _write("/proc/self/clear_refs", b"5")  # proc(5): resets the peak, and nothing else


def be_first_for_oom_killer() -> None:
    """Offer this process to the kernel's out-of-memory killer before the ones above it."""
    _write("/proc/self/oom_score_adj", b"800")


def _write(path: str, data: bytes) -> None:
    try:
        descriptor = insist(os.open, path, os.O_WRONLY)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError:  # read-only /proc in a container
        return


def oom_kills() -> int:
    """How often the out-of-memory killer struck, as far as counters can be read."""
    counters = ["/proc/vmstat"]
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            group = path.rstrip("/")
            counters.append(f"/sys/fs/cgroup{group}/memory.events")
            counters.append(f"/sys/fs/cgroup/memory{group}/memory.oom_control")
    return sum(_sum(each, "oom_kill ") for each in counters)
