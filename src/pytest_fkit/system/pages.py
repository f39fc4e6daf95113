"""Pages of private memory, and how to have copies of them before they are needed."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

from . import PORTABLE

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MADV_POPULATE_WRITE = 23  # include/uapi/asm-generic/mman-common.h
_PROCESS_MADVISE = 440  # include/uapi/asm-generic/unistd.h
_IOV_MAX = 1024  # limits.h: vectors of one call

# Documentation/admin-guide/mm/pagemap.rst
_ENTRY = 8  # bytes
_PRESENT = 1 << 63
_OF_FILE = 1 << 61
_EXCLUSIVE = 1 << 56

_LARGEST = 1 << 28
"""Bytes of a mapping that is looked at; frameworks reserve terabytes of addresses."""


class Range(NamedTuple):
    """Pages one after the other.

    :param start: address of the first.
    :param length: in bytes.
    """

    start: int
    length: int


def private() -> frozenset[int]:
    """Numbers of the pages with private data, which forked copies of this process share with it.

    Empty where the kernel does not tell.
    """
    return _pages(_PRESENT)


def exclusive() -> frozenset[int]:
    """The same, of those that no other process has mapped."""
    return _pages(_PRESENT | _EXCLUSIVE)


def _pages(wanted: int) -> frozenset[int]:
    if PORTABLE:
        return frozenset()
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
            mappings = list(_writable(maps))
        # All of it is read before it is looked at, which makes use of further pages.
        entries = _entries(mappings)
    except OSError:  # no /proc, or another one in a sandbox
        return frozenset()
    mask = wanted | _OF_FILE
    return frozenset(
        page
        for (first, _), data in zip(mappings, entries)
        for page, entry in enumerate(array.array("Q", data), first)
        if entry & mask == wanted
    )


def _writable(maps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """First page and number of pages of each private mapping that can be written to."""
    for line in maps:
        addresses, permissions = line.split()[:2]
        start, end = (int(address, 16) for address in addresses.split("-"))
        if permissions[1] == "w" and permissions[3] == "p" and end - start <= _LARGEST:
            yield start // _PAGE, (end - start) // _PAGE


def _entries(mappings: Iterable[tuple[int, int]]) -> list[bytes]:
    descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [os.pread(descriptor, number * _ENTRY, at * _ENTRY) for at, number in mappings]
    finally:
        os.close(descriptor)


def ranges(pages: Iterable[int]) -> tuple[Range, ...]:
    """The pages as few ranges."""
    found: list[Range] = []
    for page in sorted(pages):
        start = page * _PAGE
        if found and found[-1].start + found[-1].length == start:
            found[-1] = Range(found[-1].start, found[-1].length + _PAGE)
        else:
            found.append(Range(start, _PAGE))
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
    with mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        return Vectors([Range(address, _PAGE)]).copy_now()


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
