"""Memory that becomes huge pages, and memory that does not."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from pathlib import Path

import pytest

from pytest_fkit.system.pages import collapse

_HUGE = 1 << 21
_ADVISED = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = pytest.mark.skipif(
    tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2]) < (6, 1)
    or not _ADVISED.exists()
    or "[never]" in _ADVISED.read_text(),
    reason="this kernel does not make huge pages on demand",
)


def _memory(touched: int) -> tuple[mmap.mmap, int]:
    """Memory for 8 huge pages, with so many bytes written in each; the address of the first."""
    memory = mmap.mmap(-1, 9 * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    offset = -address % _HUGE
    for number in range(8):
        at = offset + number * _HUGE
        memory[at : at + touched] = bytes([number + 1]) * touched
    return memory, address + offset


def _kib(address: int, what: str) -> int:
    """What /proc/self/smaps says of the mapping there."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if found:
            start, end = (int(each, 16) for each in found.groups())
            here = start <= address < end
        elif here and line.startswith(f"{what}:"):
            return int(line.split()[1])
    raise AssertionError(what)


def test_what_is_full_becomes_huge_and_holds_what_it_held() -> None:
    memory, address = _memory(_HUGE)
    before = bytes(memory)
    collapse()
    assert _kib(address, "AnonHugePages") >= 8 * _HUGE // 1024
    assert bytes(memory) == before


def test_what_is_mostly_empty_does_not_grow() -> None:
    memory, address = _memory(mmap.PAGESIZE)
    before = _kib(address, "Rss")
    collapse()
    assert _kib(address, "Rss") == before
    assert memory
