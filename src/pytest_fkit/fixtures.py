"""The fixtures for tests that use GPUs, or ports; they are there without ``--fkit`` too."""

from __future__ import annotations

from typing import Iterator

import pytest

from .config.first_environment import variable


@pytest.fixture(scope="session")
def fkit_gpus() -> list[str]:
    """The ids of the GPUs that this test can use: numbers as the machine counts them, MIG's UUIDs.

    Frameworks count the visible ones anew: this test's first GPU is ``cuda:0``, whatever its id.
    Empty where the tests own no GPUs.
    """
    return [each for each in (variable("FKIT_GPU_IDS") or "").split(",") if each]


@pytest.fixture(scope="session")
def fkit_worker() -> int:
    """The number of the worker that runs this test, from 0 on; a worker's replacement has its."""
    return int(variable("FKIT_WORKER_ID") or 0)


@pytest.fixture(scope="session")
def fkit_port() -> Iterator[int]:
    """The first of 16 free ports in a row that other workers and other runs leave alone."""
    given = variable("FKIT_PORT_BASE")
    if given:
        yield int(given)
        return
    from .gpu.slices import ports  # with --fkit imported already, see beginning.py

    block = ports.claim()
    yield block.base
    block.release()
