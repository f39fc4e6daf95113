"""Pages of this process's private memory: listed, copied ahead of a write, made huge pages."""

from __future__ import annotations

import errno
import re
from bisect import bisect_right
from typing import AbstractSet, Any, Iterable, Iterator, Sequence

from ..named_tuple import NamedTuple
from ..own import ctypes, mmap, os, own_builtins
from . import PORTABLE
from .limits import room
from .paths import read_text

own_builtins(globals())

_PAGE = os.sysconf("SC_PAGE_SIZE")

# Documentation/admin-guide/mm/pagemap.rst: 8 bytes for a page. In the last of them, bit 7 says that
# it is present, bit 6 that it is in swap, bit 5 that it is a file's, bit 0 that it is exclusive.
_ENTRY = 8
_SHARED = b"\x80"
_EXCLUSIVE = b"\x81"

_LARGEST = 1 << 36
"""Bytes of a mapping that is looked at; frameworks reserve terabytes of addresses."""

_MADV_POPULATE_WRITE = 23  # include/uapi/asm-generic/mman-common.h
_MADV_COLLAPSE = 25  # the same, from Linux 6.1 on
_PROCESS_MADVISE = 440  # include/uapi/asm-generic/unistd.h
_IOV_MAX = 1024  # limits.h: vectors of one call

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Mapping(NamedTuple):
    """A private, writable mapping.

    :param first: number of its first page.
    :param pages: how many it has.
    :param anonymous: whether there is no file behind it.
    """

    first: int
    pages: int
    anonymous: bool


def _mappings() -> list[_Mapping]:
    """All but the largest, in order.

    :raises OSError: where there is no /proc, or another one in a sandbox.
    """
    found = []
    with room():
        maps = read_text("/proc/self/maps")
    for line in maps.splitlines():
        addresses, permissions, _, _, inode = line.split(None, 5)[:5]
        start, end = (int(address, 16) for address in addresses.split("-"))
        if permissions[1] == "w" and permissions[3] == "p" and end - start <= _LARGEST:
            found.append(_Mapping(start // _PAGE, (end - start) // _PAGE, inode == "0"))
    return found


def _states(mappings: Iterable[_Mapping]) -> list[bytes]:
    """A byte for each page of each mapping: _SHARED, _EXCLUSIVE or something else.

    :raises OSError: where the kernel does not tell.
    """
    with room():
        descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Read all of it before evaluating any, which touches further pages.
        read = [os.pread(descriptor, each.pages * _ENTRY, each.first * _ENTRY) for each in mappings]
    finally:
        os.close(descriptor)
    return [entries[_ENTRY - 1 :: _ENTRY] for entries in read]


class Range(NamedTuple):
    """Consecutive pages.

    :param start: address of the first.
    :param length: in bytes.
    """

    start: int
    length: int


def ranges(pages: Iterable[int], number: int = 1) -> tuple[Range, ...]:
    """Merge pages, by their numbers, into as few ranges as possible.

    :param number: how many pages begin at each of these numbers.
    """
    found: list[Range] = []
    length = number * _PAGE
    for page in sorted(pages):
        start = page * _PAGE
        if found and found[-1].start + found[-1].length == start:
            found[-1] = Range(found[-1].start, found[-1].length + length)
        else:
            found.append(Range(start, length))
    return tuple(found)


def exclusive() -> frozenset[int]:
    """Numbers of the pages with private data that no other process has mapped.

    Empty where the kernel does not tell.
    """
    if PORTABLE:
        return frozenset()
    try:
        mappings = _mappings()
        states = _states(mappings)
    except OSError:
        return frozenset()
    return frozenset(
        mapping.first + found.start()
        for mapping, pages in zip(mappings, states)
        for found in re.finditer(re.escape(_EXCLUSIVE), pages)
    )


def mapped(pages: AbstractSet[int]) -> set[int]:
    """The pages that are in private mappings; none where the kernel does not tell."""
    try:
        mappings = _mappings()
    except OSError:
        return set()
    firsts = [mapping.first for mapping in mappings]
    found = ((page, mappings[bisect_right(firsts, page) - 1]) for page in pages)
    return {page for page, mapping in found if 0 <= page - mapping.first < mapping.pages}


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_size_t), ("length", ctypes.c_size_t))


class Vectors:
    """Ranges in the form that the kernel takes, prepared before a fork for use after it."""

    def __init__(self, wanted: Sequence[Range]) -> None:
        self.ranges = tuple(wanted)
        self._array = (_Vector * len(wanted))(*(_Vector(*each) for each in wanted))

    def copy_now(self) -> bool:
        """Copy these pages now instead of at the first write to each; ranges unmapped are skipped.

        :return: whether the kernel can do so in one call, from Linux 6.13 on. One call for each
            range would take longer than the copies do when they come by themselves.
        """
        try:
            own = os.pidfd_open(os.getpid())
        except (AttributeError, OSError):  # Python 3.8, an old kernel, a sandbox
            return False
        done, size = 0, ctypes.sizeof(_Vector)
        try:
            while done < len(self.ranges):
                number = min(_IOV_MAX, len(self.ranges) - done)
                at: Any = ctypes.byref(self._array, done * size)
                advised = _libc.syscall(_PROCESS_MADVISE, own, at, number, _MADV_POPULATE_WRITE, 0)
                if advised < 0:
                    if ctypes.get_errno() not in (errno.ENOMEM, errno.EFAULT):
                        return False
                    done += 1  # not mapped any more
                while advised > 0:
                    advised -= self.ranges[done].length
                    done += 1
            return True
        finally:
            os.close(own)


def can_copy() -> bool:
    """Whether :meth:`Vectors.copy_now` does something here."""
    if PORTABLE:
        return False
    with mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        return Vectors([Range(address, _PAGE)]).copy_now()


COLLAPSE_PAYS_FROM = 100
"""Forks: :func:`collapse` takes about as long as 50 of them, and their ends, take less after it."""

_TRANSPARENT_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage"
_LEAST_PRESENT = 0.9
"""Share of the small pages of a huge one that have to be present: the others come into being."""


def collapse() -> None:
    """Make private memory huge pages, so that a fork and the end of the copy have less to do.

    Nothing changes in the memory, and what is written to after a fork is copied in small pages.
    Not where the administrator has turned huge pages off.
    """
    size = _pages_in_huge_page()
    if not size:
        return
    try:
        anonymous = [each for each in _mappings() if each.anonymous]
        full = [
            first
            for mapping, pages in zip(anonymous, _states(anonymous))
            for first in _full(mapping, pages, size)
        ]
    except OSError:
        return
    for start, length in ranges(full, size):
        # It may fail where memory is short: then they stay small.
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_COLLAPSE)


def _pages_in_huge_page() -> int:
    """0 where there are no huge pages."""
    try:
        if PORTABLE or "[never]" in read_text(f"{_TRANSPARENT_HUGE_PAGES}/enabled"):
            return 0
        return int(read_text(f"{_TRANSPARENT_HUGE_PAGES}/hpage_pmd_size")) // _PAGE
    except (OSError, ValueError):  # a kernel without them, or a sandbox that does not show it
        return 0


def _full(mapping: _Mapping, pages: bytes, size: int) -> Iterator[int]:
    """The first page of each part that can be a huge page and is mostly present."""
    for offset in range(-mapping.first % size, mapping.pages - size + 1, size):
        block = pages[offset : offset + size]
        if block.count(_EXCLUSIVE) + block.count(_SHARED) >= _LEAST_PRESENT * size:
            yield mapping.first + offset
