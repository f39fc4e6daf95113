"""Pages of private memory, and how to have copies of them before they are needed."""

from __future__ import annotations

import errno
import re
from bisect import bisect_right
from typing import AbstractSet, Any, Iterable, NamedTuple, Sequence

from ..own import ctypes, mmap, os, own_builtins
from . import PORTABLE
from .pagemap import EXCLUSIVE, PAGE, mappings, states

own_builtins(globals())

_MADV_POPULATE_WRITE = 23  # include/uapi/asm-generic/mman-common.h
_PROCESS_MADVISE = 440  # include/uapi/asm-generic/unistd.h
_IOV_MAX = 1024  # limits.h: vectors of one call


class Range(NamedTuple):
    """Pages one after the other.

    :param start: address of the first.
    :param length: in bytes.
    """

    start: int
    length: int


def exclusive() -> frozenset[int]:
    """Numbers of the pages with private data that no other process has mapped.

    Empty where the kernel does not tell.
    """
    if PORTABLE:
        return frozenset()
    try:
        wanted = mappings()
        known = states(wanted)
    except OSError:  # no /proc, or another one in a sandbox
        return frozenset()
    return frozenset(
        mapping.first + found.start()
        for mapping, pages in zip(wanted, known)
        for found in re.finditer(re.escape(EXCLUSIVE), pages)
    )


def mapped(pages: AbstractSet[int]) -> set[int]:
    """Those of the pages that are in private mappings of this process.

    Empty where the kernel does not tell.
    """
    try:
        known = sorted(mappings())
    except OSError:  # no /proc, or another one in a sandbox
        return set()
    firsts = [mapping.first for mapping in known]
    found = ((page, known[bisect_right(firsts, page) - 1]) for page in pages)
    return {page for page, mapping in found if 0 <= page - mapping.first < mapping.pages}


def ranges(pages: Iterable[int], number: int = 1) -> tuple[Range, ...]:
    """Pages as few ranges.

    :param pages: numbers of pages.
    :param number: of the pages that follow each other from each of those on.
    """
    found: list[Range] = []
    length = number * PAGE
    for page in sorted(pages):
        start = page * PAGE
        if found and found[-1].start + found[-1].length == start:
            found[-1] = Range(found[-1].start, found[-1].length + length)
        else:
            found.append(Range(start, length))
    return tuple(found)


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_size_t), ("length", ctypes.c_size_t))


class Vectors:
    """Ranges as the kernel takes them, made before a fork for use after it."""

    def __init__(self, wanted: Sequence[Range]) -> None:
        self.ranges = tuple(wanted)
        self._array = (_Vector * len(wanted))(*(_Vector(*each) for each in wanted))

    def copy_now(self) -> bool:
        """Have the kernel make the copies on write of these pages now, which come later otherwise.

        Nothing changes in the memory. A range that is not mapped any more is passed over.

        :return: whether the kernel can do so in one call, from Linux 6.13 on. One for each range
            would take longer than the copies do when they come by themselves.
        """
        try:
            own = os.pidfd_open(os.getpid())
        except (AttributeError, OSError):  # Python 3.8, an old kernel, a sandbox
            return False
        try:
            return self._advise(own)
        finally:
            os.close(own)

    def _advise(self, own: int) -> bool:
        done, size = 0, ctypes.sizeof(_Vector)
        while done < len(self.ranges):
            number = min(_IOV_MAX, len(self.ranges) - done)
            rest: Any = ctypes.byref(self._array, done * size)
            advised = _libc.syscall(_PROCESS_MADVISE, own, rest, number, _MADV_POPULATE_WRITE, 0)
            if advised < 0:
                if ctypes.get_errno() not in (errno.ENOMEM, errno.EFAULT):
                    return False
                done += 1  # it is not mapped any more
            while advised > 0:
                advised -= self.ranges[done].length
                done += 1
        return True


def can_copy() -> bool:
    """Whether :meth:`Vectors.copy_now` does something here."""
    if PORTABLE:
        return False
    with mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        return Vectors([Range(address, PAGE)]).copy_now()


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
