"""``--fkit-warmup``: the process of the next test has its GPUs open before the test begins."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Mapping

import pytest
from inner import InnerRun, run_pytest, write_files

import fleet as fleets
from pytest_fkit.sandbox.child.warmup import SUPPORTED

pytestmark = [
    pytest.mark.skipif(not SUPPORTED, reason="needs os.pidfd_open"),
    pytest.mark.skipif(not fleets.compiler(), reason="needs a C compiler"),
]

Fleet = Callable[..., Mapping[str, str]]

_CONFTEST = """\
import ctypes
import os
from pathlib import Path

warm = None

def pytest_fkit_warmup(config):
    global warm
    if os.environ["HOOK"] == "raises":
        raise RuntimeError("no warmth here")
    if os.environ["HOOK"] == "dies":
        os.abort()
    cuda = ctypes.CDLL("libcuda.so.1")
    assert cuda.cuInit(0) == 0
    assert cuda.cuCtxCreate_v2(ctypes.byref(ctypes.c_void_p()), 0, 0) == 0
    warm = os.getpid()
    with open("warmed", "a") as file:
        file.write(f"{warm} ")

def note():
    with open("log", "a") as log:
        log.write("warm " if warm == os.getpid() else "cold ")
"""

_SUITE = """\
import pytest
from conftest import note

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    note()
"""


def _run(
    fleet: Fleet, tmp_path: Path, suite: str, *arguments: str, hook: str = "opens"
) -> InnerRun:
    write_files(tmp_path, {"test_it.py": suite, "conftest.py": _CONFTEST})
    machine = {**fleets.with_framework(fleet(fleets.nvidia(2))), "HOOK": hook}
    return run_pytest(tmp_path, "--fkit", "-n1", *arguments, env=machine, timeout=120)


def test_tests_find_their_gpus_open(fleet: Fleet, tmp_path: Path) -> None:
    ended = _run(fleet, tmp_path, _SUITE, "--fkit-warmup")
    assert " 6 passed in " in ended.lines[-1], ended.out
    # Two of the first four tell what they write to, and nothing is forked beside these.
    assert (tmp_path / "log").read_text().split() == ["cold"] * 4 + ["warm"] * 2


def test_nothing_is_opened_unasked(fleet: Fleet, tmp_path: Path) -> None:
    ended = _run(fleet, tmp_path, _SUITE)
    assert " 6 passed in " in ended.lines[-1], ended.out
    assert (tmp_path / "log").read_text().split() == ["cold"] * 6


@pytest.mark.parametrize(
    ("hook", "reason"), [("raises", "RuntimeError: no warmth here"), ("dies", "or died")]
)
def test_what_can_not_be_opened_is_said_once(
    fleet: Fleet, tmp_path: Path, hook: str, reason: str
) -> None:
    ended = _run(fleet, tmp_path, _SUITE, "--fkit-warmup", hook=hook)
    assert " 6 passed, 1 warning in " in ended.lines[-1], ended.out
    assert ended.out.count("pytest_fkit_warmup failed: ") == 1
    assert reason in ended.out
    assert (tmp_path / "log").read_text().split() == ["cold"] * 6


_FILLS = """\
import os
import time
from pathlib import Path
import fleet_state
import psutil
import pytest
from conftest import note

@pytest.mark.parametrize("number", range(4))
def test_before(number): note()

def last_that_is_warm():
    return int(Path("warmed").read_text().split()[-1])

def lives(pid):
    try:
        return psutil.Process(pid).status() != "zombie"
    except psutil.NoSuchProcess:
        return False

def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline

def test_that_takes_the_memory():
    note()
    until(lambda: last_that_is_warm() != os.getpid())
    fleet_state.set_state(Path(os.environ["FKIT_FLEET_ROOT"]), 0, "full")
    until(lambda: not lives(last_that_is_warm()))
    fleet_state.set_state(Path(os.environ["FKIT_FLEET_ROOT"]), 0, "healthy")

def test_after(): note()
def test_last(): note()
"""


def test_memory_is_given_back_to_a_test_that_wants_it(fleet: Fleet, tmp_path: Path) -> None:
    ended = _run(fleet, tmp_path, _FILLS, "--fkit-warmup")
    assert " 7 passed in " in ended.lines[-1], ended.out
    assert (tmp_path / "log").read_text().split()[4:] == ["warm", "cold", "warm"]
