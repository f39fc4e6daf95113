"""What this process holds that a forked copy of it could not use."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import stat
import threading
from typing import Callable, NamedTuple

from . import PORTABLE, children

_OPENMP = re.compile(r"/lib(?:gomp|omp|iomp5)[^/]*\.so[^/]*$")
_OMP_PAUSE_HARD = 2  # omp_pause_resource_t, OpenMP 5.0 API specification, 3.2.44
_CUDA = re.compile(r"/libcuda\.so[^/]*$")
_CUDA_NOT_INITIALIZED = 3  # CUresult, CUDA driver API reference
_GPU = re.compile(r"^/dev/(?:nvidia-uvm|kfd$|dri/renderD)")


class Holdings(NamedTuple):
    """Threads, descriptors and children, each by a text that names it for people.

    :param natives: number of threads that Python does not know, the main thread not counted.
    :param gpu: an open GPU runtime, or "".
    """

    threads: frozenset[str]
    natives: int
    gpu: str
    descriptors: frozenset[str]
    children: frozenset[int]

    def beyond(self, before: Holdings) -> list[str]:
        """What is held now and was not `before`, in words."""
        found = [f"thread {name!r}" for name in sorted(self.threads - before.threads)]
        more = self.natives - before.natives
        if more > 0:
            found.append("1 native thread" if more == 1 else f"{more} native threads")
        if self.gpu and not before.gpu:
            found.append(self.gpu)
        found += sorted(self.descriptors - before.descriptors)
        found += [f"child process {pid}" for pid in sorted(self.children - before.children)]
        return found


def take() -> Holdings:
    """Look at this process."""
    me = threading.current_thread()
    threads = frozenset(each.name for each in threading.enumerate() if each is not me)
    if PORTABLE:
        return Holdings(threads, 0, "", frozenset(), _children())
    return Holdings(threads, _natives(), _gpu_runtime(), _descriptors(), _children())


def take_forkable(fork: Callable[[], int], before: Holdings) -> Holdings:
    """As :func:`take`, after pools that can be started again were ended.

    :param fork: os.fork or a wrapper.
    :param before: what was held before; pools are ended only if there are more threads now.
    """
    now = take()
    if now.natives > before.natives:
        _release_pools()
        _end_forkable_threads(fork)
        now = take()
    return now


def _release_pools() -> None:
    """Have OpenMP runtimes end their idle threads; they start new ones when needed.

    GNU OpenMP's pool does not survive a fork: the first parallel region of the child hangs.
    """
    if PORTABLE:
        return
    for path in _loaded(_OPENMP):
        pause = getattr(ctypes.CDLL(path), "omp_pause_resource_all", None)
        if pause is not None:
            pause(_OMP_PAUSE_HARD)


def _end_forkable_threads(fork: Callable[[], int]) -> None:
    """Have libraries that handle fork(2) themselves, as OpenBLAS, end their threads.

    Such a library does so in a handler that runs in the parent before each fork.
    """
    pid = fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _loaded(pattern: re.Pattern[str]) -> list[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        paths = {line.rstrip("\n").partition("/")[2] for line in file if "/" in line}
    return sorted(f"/{path}" for path in paths if pattern.search(f"/{path}"))


def _natives() -> int:
    known = sum(1 for each in threading.enumerate() if each.native_id is not None)
    return max(0, len(os.listdir("/proc/self/task")) - known)  # noqa: PTH208


def _gpu_runtime() -> str:
    """The CUDA driver, if it is initialised here; asking neither loads nor initialises it."""
    for path in _loaded(_CUDA):
        count = ctypes.c_int()
        if ctypes.CDLL(path).cuDeviceGetCount(ctypes.byref(count)) != _CUDA_NOT_INITIALIZED:
            return "an open CUDA runtime"
    return ""


def _children() -> frozenset[int]:
    return frozenset(children(os.getpid()))


def _descriptors() -> frozenset[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        text = _describe(int(name))
        if text:
            found.add(text)
    return frozenset(found)


def _describe(descriptor: int) -> str:
    """The descriptor in words if a copy of the process could not use it, else ""."""
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        mode = os.fstat(descriptor).st_mode
    except OSError:  # the one of the directory listing, closed by now
        return ""
    if target in ("anon_inode:[eventpoll]", "anon_inode:[io_uring]"):
        return f"descriptor {descriptor}: event loop"
    if _GPU.match(target):
        return f"descriptor {descriptor}: {target}"
    if stat.S_ISSOCK(mode):
        return _describe_socket(descriptor)
    if stat.S_ISREG(mode) and not target.startswith("/memfd:") and _is_written(descriptor):
        return f"descriptor {descriptor}: {target}, open for writing"
    return ""


def _describe_socket(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        try:
            if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return f"descriptor {descriptor}: listening socket"
            copy.getpeername()
        except OSError:  # neither connected nor listening
            return ""
    return f"descriptor {descriptor}: connected socket"


def _is_written(descriptor: int) -> bool:
    # A file open for appending is fine: writers can't overwrite each other.
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:  # noqa: PTH123
        flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
    return flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND
