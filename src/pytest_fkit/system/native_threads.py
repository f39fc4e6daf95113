"""Threads that Python did not start, and the libraries that did."""

from __future__ import annotations

import bisect
import re
import sys
from typing import Tuple

from ..named_tuple import NamedTuple
from ..own import os, own_builtins, struct, threading, time
from .linux import threads
from .paths import base_name, read_lines, read_text

own_builtins(globals())

_SCANNED = 1 << 16
"""Bytes of a stack, from its beginning: where the thread's first functions are."""

_TRIES = 20
_PAUSE = 0.001  # seconds between two tries to find a thread waiting

_SYSTEM = re.compile(r"^(?:libc|ld-linux|libpthread|libstdc\+\+|libgcc_s|libm)[-.]")

# These libraries have handlers of fork(2) that give the child a pool of its own.
_HANDLE_FORK = re.compile(
    r"/libarrow\.so"  # arrow/util/atfork_internal.h
    r"|/numexpr/interpreter\."  # numexpr/module.cpp, pthread_atfork
    r"|/numba/np/ufunc/workqueue\."  # numba/np/ufunc/workqueue.c, reset_after_fork
    r"|/pypocketfft\."  # pocketfft_hdronly.h, in scipy.fft
)
_TORCH = re.compile(r"/libtorch_cpu\.so")


class Origin(NamedTuple):
    """Where a thread comes from.

    :param library: path of the library that it runs, "" if unknown.
    :param direct: whether pthread_create got a function of that library itself, and not that of the
        C++ library behind std::thread.
    """

    library: str
    direct: bool

    @property
    def name(self) -> str:
        """The library's name, for people."""
        return base_name(self.library)

    @property
    def handles_fork(self) -> bool:
        """Whether a forked process can do without the thread."""
        if _TORCH.search(self.library):
            # The pool of torch.set_num_threads(): caffe2/utils/threadpool/pthreadpool-cpp.cc makes
            # another in a child. PyTorch's other threads are std::thread's.
            return self.direct
        return bool(_HANDLE_FORK.search(self.library))


def native_threads() -> frozenset[int]:
    """The ids of this process's threads that Python did not start, the main thread left out."""
    pid = os.getpid()
    found = threads(pid)
    if found == [pid]:
        return frozenset()
    known = {each.native_id for each in threading.enumerate()}
    return frozenset(set(found) - known - {pid})


def origin(thread: int) -> Origin:
    """Where a thread comes from, by its stack."""
    pointer = _stack_pointer(thread)
    if not pointer:
        return Origin("", direct=False)
    stacks, code = _mappings()
    words = _words(pointer, stacks)
    paths = [path for _, path in (_find(code, word) for word in words) if path]
    libraries = [path for path in paths if not _SYSTEM.match(base_name(path))]
    if not libraries:
        return Origin("", direct=False)
    return Origin(libraries[-1], direct=libraries[-1] == paths[-1])


def _stack_pointer(thread: int) -> int:
    """The stack pointer of a waiting thread, 0 if it does not wait or the kernel won't say."""
    # proc(5): the last two fields are the stack pointer and the program counter, in hexadecimal.
    for _ in range(_TRIES):
        try:
            fields = read_text(f"/proc/self/task/{thread}/syscall").split()
        except OSError:  # the thread has ended, or the kernel was built without this file
            return 0
        if len(fields) >= 3:
            return int(fields[-2], 16)
        time.sleep(_PAUSE)
    return 0


_Range = Tuple[int, int, str]
"""Start, end and path of something that is mapped."""


def _find(ranges: list[_Range], address: int) -> tuple[int, str]:
    """The end of the range that the address is in, and the path; 0 and "" outside of all."""
    position = bisect.bisect_right(ranges, (address, sys.maxsize, "")) - 1
    _, end, path = ranges[position] if position >= 0 else (0, 0, "")
    return (end, path) if address < end else (0, "")


def _mappings() -> tuple[list[_Range], list[_Range]]:
    """The writable memory without a file, and the code of files, of this process."""
    anonymous: list[_Range] = []
    code: list[_Range] = []  # the kernel lists them in order
    for line in read_lines("/proc/self/maps"):
        span, permissions, _, _, _, path = [*line.split(None, 5), ""][:6]
        start, _, end = span.partition("-")
        if "x" in permissions and path.startswith("/"):
            code.append((int(start, 16), int(end, 16), path))
        elif "w" in permissions:
            anonymous.append((int(start, 16), int(end, 16), path))
    return anonymous, code


def _words(pointer: int, stacks: list[_Range]) -> tuple[int, ...]:
    end, _ = _find(stacks, pointer)
    start = max(pointer, end - _SCANNED)
    start += -start % 8
    # Not by ctypes: the thread may end meanwhile, and its stack be gone.
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        data = os.pread(memory, max(0, end - start), start)
    except OSError:
        return ()
    finally:
        os.close(memory)
    return struct.unpack(f"{len(data) // 8}Q", data[: len(data) // 8 * 8])
