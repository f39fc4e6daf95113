"""Copies on write that are made before anything is written."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from pytest_fkit.system import pages

pytestmark = pytest.mark.skipif(not pages.can_copy(), reason="this kernel can't")

_PAGES = 16


def _first_page(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory)) // mmap.PAGESIZE


def test_pages_that_are_copied_now_are_exclusive_and_hold_what_they_held() -> None:
    memory = mmap.mmap(-1, _PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = b"x" * len(memory)
    first = _first_page(memory)
    all_pages = set(range(first, first + _PAGES))
    assert pages.mapped({*all_pages, 1}) == all_pages
    if not pages.exclusive() >= all_pages:
        pytest.skip("this kernel does not tell which pages are exclusive")
    wanted = {first + 2, first + 3, first + 9}
    pid = os.fork()
    if pid == 0:
        shared = not pages.exclusive() & all_pages
        pages.Vectors(pages.ranges(wanted)).copy_now()
        found = pages.exclusive() & all_pages
        os._exit(0 if shared and found == wanted and set(memory[:]) == set(b"x") else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_ranges_that_are_not_mapped_are_passed_over() -> None:
    memory = mmap.mmap(-1, 3000 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = b"x" * len(memory)
    first = _first_page(memory)
    # More than the kernel takes in one call, nothing at the first, the last and one in the middle.
    wanted = [pages.Range(mmap.PAGESIZE, mmap.PAGESIZE)]
    wanted += pages.ranges(range(first, first + 2400, 2))
    wanted.insert(700, wanted[0])
    wanted.append(wanted[0])
    pid = os.fork()
    if pid == 0:
        done = pages.Vectors(wanted).copy_now()
        found = pages.exclusive() & set(range(first, first + 2400))
        os._exit(0 if done and found == set(range(first, first + 2400, 2)) else 1)
    assert os.waitpid(pid, 0)[1] == 0
