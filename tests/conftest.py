"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Iterator, cast

import pytest
from comparing import suite
from inner import WITHOUT_HYPOTHESIS

import fleet as fleets
from pytest_fkit.config import first_environment

__all__ = ["suite"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts jobs in the background; what tests start is to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Say what marks of the tests mean."""
    config.addinivalue_line(
        "markers", "in_turn(n): of a matrix, every n-th case is run; all with FKIT_EVERY_MODE=1"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take every n-th diagonal of a matrix: each value of each parameter is there."""
    if os.environ.get("FKIT_EVERY_MODE") == "1":
        return
    values: dict[tuple[str, str], list[Any]] = defaultdict(list)
    left_out = [item for item in items if not _is_its_turn(item, values)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the tests themselves out of garbage collections.

    pytest collects five times at the end of each run in this process: with 500,000 objects, half a
    second for each test that uses pytester.
    """
    gc.freeze()


def _is_its_turn(item: pytest.Item, values: dict[tuple[str, str], list[Any]]) -> bool:
    """Whether it is on one of these diagonals.

    :param values: those of each parameter of each test that were seen, in their order.
    """
    mark = item.get_closest_marker("in_turn")
    if mark is None:
        return True
    place = 0
    for name, value in cast("Any", item).callspec.params.items():
        seen = values[item.nodeid.partition("[")[0], name]
        if value not in seen:
            seen.append(value)
        place += seen.index(value)
    return bool(place % mark.args[0] == 0)


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """pytest's own, whose runs are without the plugins that are of no use to them.

    In this process each run would import them again: pytester forgets what was imported.
    """
    monkeypatch.setenv("PYTEST_ADDOPTS", WITHOUT_HYPOTHESIS)
    monkeypatch.setenv("FKIT_STACKS", "python")  # a debugger takes a second for each crash
    monkeypatch.setattr(first_environment, "_before", {})  # that of the last run in this process
    return pytester


@pytest.fixture
def fleet(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, str]]:
    """Makes machines with GPUs, given what :func:`fleet.describe` takes.

    What is returned are the environment variables with which an inner run is on that machine.
    """
    for name in fleets.MASKS:
        monkeypatch.delenv(name, raising=False)
    base = tmp_path_factory.getbasetemp()
    # That of all workers of a run is above a worker's own.
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fleet-libraries"

    def make(*groups: list[fleets.Gpu], **more: Any) -> dict[str, str]:
        root = tmp_path_factory.mktemp("fleet")
        return fleets.environment(fleets.build(root, fleets.describe(*groups, **more), cache))

    return make


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """The pid of a process that has a GPU open, as CUDA has."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia-uvm").touch()
    code = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "dev/nvidia-uvm")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()
