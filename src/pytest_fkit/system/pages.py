"""Pages of memory that this process has to itself, and how to have them before they are needed."""

from __future__ import annotations

import array
import ctypes
import os
from typing import Iterable, Iterator, NamedTuple

from . import PORTABLE

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MADV_POPULATE_WRITE = 23  # include/uapi/asm-generic/mman-common.h, since Linux 5.14

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


def exclusive() -> frozenset[int]:
    """Numbers of the pages with private data that no other process has mapped.

    Empty where the kernel does not tell.
    """
    if PORTABLE:
        return frozenset()
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
            mappings = list(_writable(maps))
        descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no /proc, or another one in a sandbox
        return frozenset()
    try:
        return frozenset(page for each in mappings for page in _exclusive(descriptor, each))
    except OSError:
        return frozenset()
    finally:
        os.close(descriptor)


def _writable(maps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """First page and number of pages of each private mapping that can be written to."""
    for line in maps:
        addresses, permissions = line.split()[:2]
        start, end = (int(address, 16) for address in addresses.split("-"))
        if permissions[1] == "w" and permissions[3] == "p" and end - start <= _LARGEST:
            yield start // _PAGE, (end - start) // _PAGE


def _exclusive(pagemap: int, mapping: tuple[int, int]) -> Iterator[int]:
    first, number = mapping
    entries = array.array("Q")
    entries.frombytes(os.pread(pagemap, number * _ENTRY, first * _ENTRY))
    wanted, mask = _PRESENT | _EXCLUSIVE, _PRESENT | _EXCLUSIVE | _OF_FILE
    for page, entry in enumerate(entries, first):
        if entry & mask == wanted:
            yield page


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


def copy_now(wanted: Iterable[Range]) -> None:
    """Have the kernel make the copies on write of these pages now; where it can't, they come later.

    Nothing changes in the memory. A range that is not mapped any more is passed over.
    """
    for start, length in wanted:
        _madvise(start, length, _MADV_POPULATE_WRITE)


_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
