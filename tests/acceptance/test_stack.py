"""What lies below a test on the stack: what lies there under plain pytest, and xdist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List

import pytest
from inner import run_pytest, write_files

MOST = 3
"""Frames more than without us."""

_SUITE = """\
import inspect
import json
import threading

import pytest

def note(where):
    frames = inspect.stack(0)
    with open("frames", "a") as file:
        ours = [each.filename for each in frames if "pytest_fkit" in each.filename]
        file.write(json.dumps([where, len(frames), len(ours)]) + "\\n")

def test_alone():
    note("alone")

@pytest.fixture(scope="module")
def wide():
    pass

def test_wide(wide):
    note("wide")

@pytest.fixture(scope="class")
def thread():
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    yield
    ends.set()
    thread.join()

class TestShared:
    def test_shared(self, thread):
        note("shared")

    def test_shared_too(self, thread):
        note("shared too")

@pytest.mark.fkit(isolation="class")
class TestTogether:
    def test_together(self):
        note("together")

    @pytest.mark.parametrize("number", range(3))
    def test_together_again(self, number):
        note(f"together {number}")
"""


Frames = Dict[str, List[int]]
"""By the place in the suite, how many there are, and how many of ours."""


def _frames(directory: Path, *arguments: str) -> Frames:
    directory.mkdir()
    write_files(directory, {"test_it.py": _SUITE})
    ended = run_pytest(directory, "-W", "ignore::pytest.PytestUnknownMarkWarning", *arguments)
    assert ended.status == 0, ended.out
    found = {}
    for line in (directory / "frames").read_text().splitlines():
        where, *numbers = json.loads(line)
        found[where] = numbers
    return found


@pytest.fixture(scope="module")
def without_us(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Frames]:
    """What there is without us, by the number of workers."""
    directory = tmp_path_factory.mktemp("plain")
    return {workers: _frames(directory / workers, workers) for workers in ("-n0", "-n1")}


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
@pytest.mark.parametrize("isolation", ["function", "class", "module", "session"])
def test_no_more_frames_than_without_us(
    tmp_path: Path, without_us: dict[str, Frames], isolation: str, workers: str
) -> None:
    plain = without_us[workers]
    ours = _frames(tmp_path / "ours", workers, "--fkit", f"--fkit-isolation={isolation}")
    assert ours.keys() == plain.keys()
    for where, (depth, _) in plain.items():
        found, number = ours[where]
        assert found <= depth + MOST, where
        assert number <= MOST, where


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_no_more_frames_in_a_fresh_interpreter(
    tmp_path: Path, without_us: dict[str, Frames], workers: str
) -> None:
    plain = without_us[workers]
    ours = _frames(tmp_path / "ours", workers, "--fkit", "--fkit-start-method=spawn")
    assert all(ours[where][0] <= depth + MOST for where, (depth, _) in plain.items())
