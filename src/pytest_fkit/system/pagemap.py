"""The private memory of this process, as the kernel lists it."""

from __future__ import annotations

from typing import Iterable, Iterator, NamedTuple

from ..own import os, own_builtins
from .limits import room
from .paths import read_text

own_builtins(globals())

PAGE = os.sysconf("SC_PAGE_SIZE")

# Documentation/admin-guide/mm/pagemap.rst: 8 bytes for a page. In the last of them, bit 7 says that
# it is present, bit 6 that it is in swap, bit 5 that it is a file's, bit 0 that it is exclusive.
_ENTRY = 8
SHARED = b"\x80"
EXCLUSIVE = b"\x81"

_LARGEST = 1 << 36
"""Bytes of a mapping that is looked at; frameworks reserve terabytes of addresses."""


class Mapping(NamedTuple):
    """A private one that can be written to.

    :param first: number of its first page.
    :param pages: how many there are.
    :param anonymous: whether there is no file behind it.
    """

    first: int
    pages: int
    anonymous: bool


def mappings() -> list[Mapping]:
    """All but the largest.

    :raises OSError: where there is no /proc, or another one in a sandbox.
    """
    with room():
        return list(_private(read_text("/proc/self/maps").splitlines()))


def _private(maps: Iterable[str]) -> Iterator[Mapping]:
    for line in maps:
        addresses, permissions, _, _, inode = line.split(None, 5)[:5]
        start, end = (int(address, 16) for address in addresses.split("-"))
        if permissions[1] == "w" and permissions[3] == "p" and end - start <= _LARGEST:
            yield Mapping(start // PAGE, (end - start) // PAGE, inode == "0")


def states(wanted: Iterable[Mapping]) -> list[bytes]:
    """What is known of the pages of each mapping, a byte for a page: SHARED, EXCLUSIVE or other.

    :raises OSError: where the kernel does not tell.
    """
    with room():
        descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # All is read before it is looked at, which makes use of further pages.
        read = [os.pread(descriptor, each.pages * _ENTRY, each.first * _ENTRY) for each in wanted]
    finally:
        os.close(descriptor)
    return [entries[_ENTRY - 1 :: _ENTRY] for entries in read]
