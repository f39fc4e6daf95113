"""What the kernel says that a process used, as figures."""

from __future__ import annotations

import os
import resource

import pytest

from pytest_fkit import system
from pytest_fkit.sandbox.child.usage import RawUsage, until_now, wait_for

OWN = (1.5, 0.5, 1000, 0, 0, 0, 20, 3)
WAITED = (0.25, 0.125, 5000, 0, 0, 0, 10, 1)


def test_what_was_waited_for_is_added_but_for_the_peak() -> None:
    used = RawUsage(OWN, WAITED, b"rchar: 12\nwchar: 345\nsyscr: 6\n").usage()
    unit = used.peak_memory // 1000  # bytes, where the kernel does not say kilobytes
    assert used == (1.75, 0.625, 1000 * unit, 30, 4, 12, 345)


def test_bytes_are_unknown_where_the_kernel_keeps_them_secret() -> None:
    used = RawUsage(OWN).usage()
    assert (used.user, used.minor_faults, used.read, used.written) == (1.5, 20, None, None)


def test_a_process_knows_what_it_used_until_now() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    used = RawUsage(*until_now()).usage()
    assert used.user >= before.ru_utime
    assert used.minor_faults >= before.ru_minflt


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
