"""What of runtimes, pools, threads and buffers does not survive a fork of this process."""

from __future__ import annotations

import re
import sys
from _io import BufferedRandom, BufferedWriter, FileIO
from typing import Any, Iterable, Iterator

from ..own import ctypes, gc, os, own_builtins, suppress, threading
from .paths import read_lines

own_builtins(globals())


def loaded(pattern: re.Pattern[str]) -> list[str]:
    """Paths of those that match; none where there is no /proc.

    The list of what is mapped is long, so it is read again only after the loader loaded something.
    What was unloaded since may be among them.
    """
    loads = _loads()
    known = _found.get(pattern)
    if known is None or loads is None or known[0] != loads:
        known = _found[pattern] = loads, _mapped(pattern)
    return known[1]


_found: dict[re.Pattern[str], tuple[int | None, list[str]]] = {}


def _mapped(pattern: re.Pattern[str]) -> list[str]:
    try:
        lines = read_lines("/proc/self/maps")
    except OSError:
        return []
    paths = {line.partition("/")[2] for line in lines if "/" in line}
    return sorted(f"/{path}" for path in paths if pattern.search(f"/{path}"))


def _loads() -> int | None:
    """How many libraries the loader has loaded so far, None where it does not say."""
    if _iterate is None:
        return None
    del _counts[:]
    _iterate(_note, None)
    return _counts[0] if _counts else None


# dl_iterate_phdr(3), by which the first library tells how many there were.
_AT = 32
"""Offset in bytes of ``dlpi_adds`` in ``struct dl_phdr_info``, where pointers have eight."""

_counts: list[int] = []
_iterate: Any = None
_note: Any = None

with suppress(Exception):  # no such function; or no memory may be executed that is written to

    def _take_count(info: int, size: int, data: object) -> int:
        del data
        if size >= _AT + 8:
            with suppress(Exception):  # an audit hook of the suite may raise anything
                _counts.append(ctypes.c_ulonglong.from_address(info + _AT).value)
        return 1  # one is enough

    if ctypes.sizeof(ctypes.c_void_p) == 8:
        _kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        _note = _kind(_take_count)
        # The GIL is kept: another thread that loads something could wait for it with the loader's
        # lock.
        _iterate = ctypes.PyDLL(None).dl_iterate_phdr
        _iterate.argtypes = (_kind, ctypes.c_void_p)


# --- GPU runtimes -------------------------------------------------------------------------------

CUDA_DRIVER = re.compile(r"/libcuda\.so[^/]*$")
_CUDA_NOT_INITIALIZED = 3  # CUresult, CUDA driver API reference

# CUDA opens nvidia-uvm and NVML does not; ROCm's runtime opens kfd; Level Zero opens a render node.
_DEVICE = re.compile(r"^/dev/(?:nvidia-uvm|kfd$|dri/renderD)")

# The files that a CUDA context or ROCm's runtime opens, and an NVML handle; in a directory that
# stands for a machine, too.
_CONTEXT = re.compile(r"/dev/(?:nvidia-uvm|kfd)$")
_HANDLE = re.compile(r"/dev/(?:nvidia(?:\d+|ctl|-uvm)|kfd)$")


def open_runtime(cuda_drivers: Iterable[str], targets: Iterable[str]) -> str:
    """The GPU runtime that is open here, in words, or "".

    Asking loads and opens nothing. In a process forked from one with an open CUDA runtime, CUDA
    says that it is not initialized: ask before a fork, and :func:`in_bad_fork` afterwards.

    :param cuda_drivers: paths of the libraries of that name that are loaded.
    :param targets: what the descriptors of this process refer to.
    """
    for path in cuda_drivers:
        count = ctypes.c_int()
        if ctypes.CDLL(path).cuDeviceGetCount(ctypes.byref(count)) != _CUDA_NOT_INITIALIZED:
            return "an open CUDA runtime"
    for target in targets:
        if _DEVICE.match(target):
            return f"an open GPU device ({target})"
    backends = getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None)
    if backends:
        return f"open JAX backends ({', '.join(sorted(map(str, backends)))})"
    return ""


def in_bad_fork() -> str:
    """In a forked process: the library that finds its runtime unusable here, in words, or "".

    PyTorch notes it in a handler that runs in the child of each fork, so nobody else can tell.
    """
    for name in ("torch.cuda", "torch.xpu"):
        ask = getattr(sys.modules.get(name), "_is_in_bad_fork", None)
        if ask is not None and ask():
            return f"a runtime that {name} can't use in a forked process"
    return ""


def holders(pids: Iterable[int], proc: str = "/proc", contexts: bool = False) -> list[int]:
    """The processes that have a GPU's device file open.

    A process that is gone, or another user's, counts as having none.

    :param proc: where procfs is mounted.
    :param contexts: whether to count only those that can have memory of the GPU.
    """
    sign = _CONTEXT if contexts else _HANDLE
    return [pid for pid in pids if any(map(sign.search, _targets(f"{proc}/{pid}/fd")))]


def _targets(directory: str) -> list[str]:
    """The files that a process has open."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = []
    for name in names:
        with suppress(OSError):  # closed by now
            found.append(os.readlink(f"{directory}/{name}"))
    return found


# --- pools and threads --------------------------------------------------------------------------


def unforkable_pool() -> str:
    """The pool that has computed here and ends a forked copy that computes, in words, or "".

    It compares the pid, so it does not help that none of its threads is left.
    """
    # numba/np/ufunc/omppool.cpp: a forked child that goes on after GNU OpenMP was used is ended by
    # SIGTERM. The other threading layers, and other vendors' OpenMP, come through a fork.
    layers = sys.modules.get("numba.np.ufunc.parallel")
    pool = sys.modules.get("numba.np.ufunc.omppool")
    layer = getattr(layers, "_threading_layer", None)
    if pool is not None and layer == "omp" and getattr(pool, "openmp_vendor", "GNU") == "GNU":
        return "numba's threads of GNU OpenMP, which end a forked process"
    return ""


def unforkable_namespace() -> str:
    """The namespace in which a forked process would be the first, in words, or "".

    All others end with it, and no further one can be made: pid_namespaces(7). Linux 4.12 or newer
    has a link for it, which can't be read until there is a process: namespaces(7).
    """
    link = "/proc/self/ns/pid_for_children"
    try:
        other = os.readlink(link) != os.readlink("/proc/self/ns/pid")
    except OSError:
        try:
            os.lstat(link)
        except OSError:
            return ""
        other = True
    return "a pid namespace for child processes (unshare(2))" if other else ""


# Each new progress bar starts one unless there is one that was not told to end (tqdm/std.py).
_TQDM_MONITOR = ("tqdm._monitor", "TMonitor")

_WAIT = 1.0
"""Seconds for a thread to end; it may wait for a lock that the suite holds."""


def end_restartable() -> bool:
    """End the threads that are started again when needed; whether there were any."""
    found: list[Any] = [
        each
        for each in threading.enumerate()
        if (type(each).__module__, type(each).__qualname__) == _TQDM_MONITOR
    ]
    for thread in found:
        thread.was_killed.set()
        thread.join(_WAIT)
    return bool(found)


# --- locks --------------------------------------------------------------------------------------

_KNOW_LOCKS = (("filelock._core._fork", "_FORK_OBJECTS"), ("filelock._api", "_FORK_OBJECTS"))
"""Where filelock 4.3, and versions before it, keep what their fork handler makes as new."""


def adopt_file_locks() -> None:
    """In a forked process: have locks of filelock that are from before the fork usable.

    filelock refuses them, since a child normally goes on beside the process that made them; that of
    a test takes its place. One that is held has an open file, for which nothing is forked.
    """
    if "filelock" not in sys.modules:
        return
    with suppress(Exception):  # these are private names, which a version may give another meaning
        kind: Any = sys.modules["filelock"].BaseFileLock
        for module, name in _KNOW_LOCKS:
            for lock in list(getattr(sys.modules.get(module), name, {}).values()):
                if isinstance(lock, kind):
                    lock._creator_pid = os.getpid()


# --- buffers of files ---------------------------------------------------------------------------


def may_buffer(descriptor: int) -> bool:
    """Whether somebody may buffer what goes into `descriptor`, so that a copy's end loses it.

    Python may not if it has the file open without a buffer, or if all that writes is a log, which
    flushes each record. Of a file that Python does not know nobody can tell.
    """
    buffers = _buffers(descriptor)
    if not buffers:
        return not any(_is(each, descriptor) for each in _files(FileIO))
    flushed = list(_buffers_of_logs())
    return not all(any(each is log for log in flushed) for each in buffers)


def is_buffered(descriptor: int) -> bool:
    """Whether Python buffers what goes into `descriptor`."""
    return bool(_buffers(descriptor))


def _buffers(descriptor: int) -> list[Any]:
    return [each for each in _files(BufferedWriter, BufferedRandom) if _is(each, descriptor)]


def _files(*kinds: type[object]) -> Iterator[Any]:
    return (each for each in gc.get_objects() if issubclass(type(each), kinds))


def _is(file: Any, descriptor: int) -> bool:
    with suppress(Exception):  # closed, detached, or a subclass of the suite's own
        return int(file.fileno()) == descriptor
    return False


def _buffers_of_logs() -> Iterator[Any]:
    logging: Any = sys.modules.get("logging")
    if logging is None:
        return
    for reference in list(logging._handlerList):
        handler = reference()
        flush = getattr(type(handler), "flush", None)
        if flush is logging.StreamHandler.flush:
            yield getattr(getattr(handler, "stream", None), "buffer", None)
