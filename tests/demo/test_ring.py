"""Tests of the ring buffer: some pass, some fail, some kill the process that runs them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from ring import Ring


@pytest.fixture(scope="module")
def pi_digits() -> list[float]:
    """Set up once, in the process from which those of the tests are forked."""
    print("reading pi")
    return [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]


@pytest.fixture
def ring(pi_digits: list[float]) -> Ring:
    ring = Ring(8)
    for digit in pi_digits:
        ring.push(digit)
    return ring


@pytest.fixture(scope="class")
def device() -> str:
    print("opening the device")
    os.abort()


def test_keeps_what_was_pushed(ring: Ring) -> None:
    assert [ring.at(position) for position in range(3)] == [3.0, 1.0, 4.0]


def test_counts(ring: Ring) -> None:
    assert ring.count == 7, "an ordinary failure stays one"


def test_reads_far_outside(ring: Ring) -> None:
    print("about to read far outside")
    logging.getLogger("ring").warning("no bounds are checked")
    ring.at(2**40)


def test_leaves_early(ring: Ring) -> None:
    os._exit(0)


@pytest.mark.fkit(timeout=1)
def test_waits_for_ever(ring: Ring) -> None:
    ring.wait_for(100)


@pytest.mark.fkit(memory_limit="100M")
def test_grows_without_bounds() -> None:
    rings = []
    while True:
        rings.append(Ring(1_000_000))


@pytest.mark.xfail(reason="the far end is not ours")
def test_reads_before_the_beginning(ring: Ring) -> None:
    ring.at(-(2**40))


def test_leaves_a_process_running(ring: Ring) -> None:
    subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True
    )


class TestDevice:
    def test_opens(self, device: str) -> None:
        assert device

    def test_closes(self, device: str) -> None:
        assert device

    def test_needs_none(self) -> None:
        assert True
