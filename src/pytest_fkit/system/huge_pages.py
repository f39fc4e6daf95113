"""Small pages made huge ones, so that a fork and the end of the copy have less to go through."""

from __future__ import annotations

from typing import Iterator

from ..own import ctypes, own_builtins
from . import PORTABLE
from .pagemap import EXCLUSIVE, PAGE, SHARED, Mapping, mappings, states
from .pages import ranges
from .paths import read_text

own_builtins(globals())

PAYS_FROM = 100
"""Forks: it takes about as long as 50 of them, and their ends, take less after it."""

_MADV_COLLAPSE = 25  # include/uapi/asm-generic/mman-common.h, from Linux 6.1 on
_SETTINGS = "/sys/kernel/mm/transparent_hugepage"
_LEAST = 0.9
"""Share of the small pages that have to be there: the others come into being."""


def collapse() -> None:
    """Make the private memory of this process huge pages, where there is enough of it together.

    Nothing changes in the memory, and what is written to after a fork is copied in small pages.
    Not where the administrator has turned huge pages off.
    """
    size = _size()
    if not size:
        return
    try:
        anonymous = [each for each in mappings() if each.anonymous]
        full = [
            first
            for mapping, pages in zip(anonymous, states(anonymous))
            for first in _full(mapping, pages, size)
        ]
    except OSError:  # no /proc, or another one in a sandbox
        return
    for start, length in ranges(full, size):
        # It may fail, where memory is short: then they stay small.
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_COLLAPSE)


def _size() -> int:
    """Small pages in a huge one, 0 where there are none."""
    try:
        if PORTABLE or "[never]" in read_text(f"{_SETTINGS}/enabled"):
            return 0
        return int(read_text(f"{_SETTINGS}/hpage_pmd_size")) // PAGE
    except (OSError, ValueError):  # a kernel without them, or a sandbox that does not show it
        return 0


def _full(mapping: Mapping, pages: bytes, size: int) -> Iterator[int]:
    """The first page of each part that can be a huge page and mostly is there."""
    for offset in range(-mapping.first % size, mapping.pages - size + 1, size):
        block = pages[offset : offset + size]
        if block.count(EXCLUSIVE) + block.count(SHARED) >= _LEAST * size:
            yield mapping.first + offset


_libc = ctypes.CDLL(None, use_errno=True)
