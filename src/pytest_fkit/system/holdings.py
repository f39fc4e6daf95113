"""What this process holds that a forked copy of it could not use."""

from __future__ import annotations

import re
import stat
import sys
from collections import Counter
from typing import Any, Callable, Iterable

from ..named_tuple import NamedTuple
from ..own import ctypes, fcntl, os, own_builtins, socket, suppress, threading, time
from . import PORTABLE, children
from .limits import room
from .native_threads import native_threads, origin
from .paths import base_name
from .unforkable import (
    CUDA_DRIVER,
    end_restartable,
    is_buffered,
    loaded,
    may_buffer,
    open_runtime,
    unforkable_namespace,
    unforkable_pool,
)

own_builtins(globals())

_OPENMP = re.compile(r"/lib(?:gomp|omp|iomp5)[^/]*\.so[^/]*$")
_OMP_PAUSE_HARD = 2  # omp_pause_resource_t, OpenMP 5.0 API specification, 3.2.44

_NUMBER = re.compile(r"\d+")

_PYTHON = os.path.realpath(sys.executable or "")

_APPENDING = ", open for appending, maybe with a buffer"

_ENDING = 0.1
"""Seconds for threads to be gone that are done; long only where the machine is overloaded."""


class Named(NamedTuple):
    """Something held.

    :param text: names it for people.
    :param identity: tells it from another one with the same name.
    :param file: the descriptor of a file, or -1.
    """

    text: str
    identity: str
    file: int = -1

    def is_harmless(self, before: frozenset[str]) -> bool:
        """Whether processes that share the descriptor lose nothing.

        Writers that append can't overwrite each other, but lose what they have not written yet. The
        copy of a descriptor adds nothing to what was shared: who saves standard error and restores
        it may forget to close one, such as DeepSpeed.

        :param before: the files that were open already.
        """
        if self.file >= 0 and self.identity in before:
            return not is_buffered(self.file)
        return self.text.endswith(_APPENDING) and not may_buffer(self.file)


class Holdings(NamedTuple):
    """Threads, descriptors and children.

    :param natives: ids of the threads that Python does not know, the main thread left out.
    :param runtime: an open GPU runtime, or something else that only works in the process that
        began with it; "" if there is none.
    """

    threads: frozenset[Named]
    natives: frozenset[int]
    runtime: str
    descriptors: frozenset[Named]
    children: frozenset[int]

    def beyond(self, before: Holdings) -> list[str]:
        """What is held now, was not `before`, and does not survive a fork, in words."""
        found = _describe_threads(self.threads - before.threads)
        found += _describe_natives(self.natives - before.natives)
        if self.runtime and not before.runtime:
            found.append(self.runtime)
        files = frozenset(each.identity for each in before.descriptors if each.file >= 0)
        found += [
            each.text
            for each in sorted(self.descriptors - before.descriptors)
            if not each.is_harmless(files)
        ]
        number = len(self.children - before.children)
        if number:
            found.append("child process" if number == 1 else f"{number} child processes")
        return found


def take() -> Holdings:
    """Look at this process."""
    with room():
        return _take()


def _take() -> Holdings:
    threads = frozenset(map(_named, _others()))
    if PORTABLE:
        runtime = open_runtime((), ()) or unforkable_pool()
        return Holdings(threads, frozenset(), runtime, frozenset(), _children())
    descriptors, devices = _descriptors()
    runtime = open_runtime(loaded(CUDA_DRIVER), devices) or unforkable_pool()
    runtime = runtime or unforkable_namespace()
    return Holdings(threads, native_threads(), runtime, descriptors, _children())


def without_plugins() -> Holdings:
    """What this process would hold now, had neither plugins nor the program that runs pytest
    opened a GPU runtime or started threads. The files and children of those are theirs.
    """
    now = take()
    return now._replace(
        # Those of pydevd, PyCharm's debugger.
        threads=frozenset(
            _named(each) for each in _others() if getattr(each, "is_pydev_daemon_thread", False)
        ),
        natives=frozenset(thread for thread in now.natives if _may_be_pythons(thread)),
        runtime="",
    )


def _others() -> list[Any]:
    me = threading.current_thread()
    return [each for each in threading.enumerate() if each is not me]


def _named(thread: Any) -> Named:
    return Named(thread.name, str(thread.ident))


def _may_be_pythons(thread: int) -> bool:
    """Whether it may have been started by Python's ``_thread``, as execnet starts its threads."""
    library = origin(thread).library
    return library in ("", _PYTHON) or base_name(library).startswith("libpython")


def take_forkable(fork: Callable[[], int], before: Holdings) -> Holdings:
    """As :func:`take`, after pools and threads that can be started again were ended.

    :param fork: os.fork or a wrapper.
    :param before: what was held before; pools are ended only if there are new threads.
    """
    now = take()
    if now.threads - before.threads and end_restartable():
        now = take()
    if now.natives - before.natives:
        _release_pools()
        _end_forkable_threads(fork)
        deadline = time.monotonic() + _ENDING
        while True:
            now = take()
            # A thread that was joined, or is done, is listed until the kernel has taken it down.
            if not _describe_natives(now.natives - before.natives) or time.monotonic() > deadline:
                return now
            time.sleep(0.001)
    return now


def _release_pools() -> None:
    """Have OpenMP runtimes end their idle threads; they start new ones when needed.

    GNU OpenMP's pool does not survive a fork: the first parallel region of the child hangs.
    """
    for path in loaded(_OPENMP):
        pause = getattr(ctypes.CDLL(path), "omp_pause_resource_all", None)
        if pause is not None:
            pause(_OMP_PAUSE_HARD)


def _end_forkable_threads(fork: Callable[[], int]) -> None:
    """Have libraries that handle fork(2) themselves, as OpenBLAS, end their threads.

    Such a library does so in a handler that runs in the parent before each fork.
    """
    try:
        pid = fork()
    except OSError:  # it is refused to whoever forks next, too, and told there
        return
    if pid == 0:
        os._exit(0)
    with suppress(ChildProcessError):  # gone already, where SIGCHLD is ignored
        os.waitpid(pid, 0)


def _describe_threads(threads: Iterable[Named]) -> list[str]:
    """Python's threads in words, those of a pool, whose names differ in a number, together."""
    alike: dict[str, list[str]] = {}
    for each in sorted(threads):
        alike.setdefault(_NUMBER.sub("", each.text), []).append(each.text)
    return [
        f"thread {name!r}" if not others else f"{len(others) + 1} threads such as {name!r}"
        for name, *others in alike.values()
    ]


def _describe_natives(threads: Iterable[int]) -> list[str]:
    """Native threads in words, those left out that a forked process can do without."""
    origins = [origin(thread) for thread in threads]
    counted = Counter(each.name for each in origins if not each.handles_fork)
    return [
        f"{number} native thread{'s' if number > 1 else ''}{f' of {name}' if name else ''}"
        for name, number in sorted(counted.items())
    ]


def _children() -> frozenset[int]:
    return frozenset(children(os.getpid()))


def _descriptors() -> tuple[frozenset[Named], list[str]]:
    """What a copy of the process could not use, and the devices that are open.

    Few descriptors are asked for more than their kind: each file that is collected, and each
    module with a fixture, costs a look at all of them.
    """
    found = set()
    devices = []
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        try:
            status = os.fstat(descriptor)
            kind = stat.S_IFMT(status.st_mode)
            if kind in _NEVER or (kind == stat.S_IFREG and _reads_or_is_ours(descriptor, status)):
                continue
            target = os.readlink(f"/proc/self/fd/{name}")
            if kind == stat.S_IFCHR:
                devices.append(target)
                continue
            text = _describe(descriptor, kind, target)
        except OSError:  # the one of the directory listing, or closed by another thread
            continue
        if text:
            file = descriptor if kind == stat.S_IFREG else -1
            found.add(Named(f"descriptor {descriptor}: {text}", target, file))
    return frozenset(found), devices


_NEVER = (stat.S_IFIFO, stat.S_IFDIR, stat.S_IFBLK, stat.S_IFLNK)
"""Kinds of files that a copy can use."""

_memory_device = -1
"""st_dev of files of memfd_create(2), once one was seen: the kernel has one for all of them."""


def _reads_or_is_ours(descriptor: int, status: os.stat_result) -> bool:
    """Whether a regular file can only be read, or is known to be memory."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return True
    return not status.st_nlink and status.st_dev == _memory_device


def _describe(descriptor: int, kind: int, target: str) -> str:
    """What the descriptor is for if a copy of the process could not use it, else ""."""
    if target in ("anon_inode:[eventpoll]", "anon_inode:[io_uring]"):
        return "event loop"
    if kind == stat.S_IFSOCK:
        return _describe_socket(descriptor)
    if kind != stat.S_IFREG:
        return ""
    if target.startswith("/memfd:"):
        global _memory_device
        _memory_device = os.fstat(descriptor).st_dev
        return ""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    return f"{target}{_APPENDING if flags & os.O_APPEND else ', open for writing'}"


def _describe_socket(descriptor: int) -> str:
    copy = socket.socket(fileno=os.dup(descriptor))
    try:
        if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "listening socket"
        copy.getpeername()
    except OSError:  # neither connected nor listening
        return ""
    finally:
        copy.close()
    return "connected socket"
