"""What the kernel says that a process used, as figures."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from pytest_fkit import system
from pytest_fkit.sandbox.child.usage import RawUsage, until_now, wait_for

FIGURES = (1.5, 0.5, 1000, 0, 0, 0, 20, 3)


def test_figures_of_the_kernel() -> None:
    used = RawUsage(FIGURES, b"rchar: 12\nwchar: 345\nsyscr: 6\n").usage()
    unit = used.peak_memory // 1000  # bytes, where the kernel does not say kilobytes
    assert used == (1.5, 0.5, 1000 * unit, 20, 3, 12, 345)


def test_bytes_are_unknown_where_the_kernel_keeps_them_secret() -> None:
    used = RawUsage(FIGURES).usage()
    assert (used.user, used.minor_faults, used.read, used.written) == (1.5, 20, None, None)


def test_a_process_knows_what_it_and_those_that_it_waited_for_used_until_now() -> None:
    before = until_now()
    subprocess.run([sys.executable, "-c", "sum(range(2_000_000))"], check=True)
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = until_now()
    assert used.user >= max(before.user, waited.ru_utime) > 0
    assert used.minor_faults > before.minor_faults + 100  # an interpreter's
    assert used.minor_faults > waited.ru_minflt


@pytest.mark.skipif(system.PORTABLE, reason="only Linux tells what a process moved")
def test_a_child_that_was_waited_for_has_an_account_of_all_its_life() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.write(descriptor, b"x" * 100_000)
        finally:
            os._exit(3)
    status, account = wait_for(pid)
    assert status == 3 << 8
    written = account.usage().written
    assert written is not None
    assert written >= 100_000
