"""Copies on write that are made before anything is written."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from pytest_fkit.system import PORTABLE, pages

pytestmark = pytest.mark.skipif(PORTABLE, reason="Linux tells of pages")

_PAGES = 16


def _first_page(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory)) // mmap.PAGESIZE


def test_pages_that_are_copied_now_are_exclusive_and_hold_what_they_held() -> None:
    memory = mmap.mmap(-1, _PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = b"x" * len(memory)
    first = _first_page(memory)
    all_pages = set(range(first, first + _PAGES))
    if not pages.exclusive() >= all_pages:
        pytest.skip("this kernel does not tell which pages are exclusive")
    wanted = {first + 2, first + 3, first + 9}
    pid = os.fork()
    if pid == 0:
        shared = not pages.exclusive() & all_pages
        pages.copy_now(pages.ranges(wanted))
        found = pages.exclusive() & all_pages
        os._exit(0 if shared and found == wanted and set(memory[:]) == set(b"x") else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_range_that_is_not_mapped_is_passed_over() -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    page = _first_page(memory)
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    pages.copy_now(pages.ranges([1, page, (1 << 47) // mmap.PAGESIZE - 2]))
    assert memory[0] == 0
