"""Repetitions have seeds of their own with pytest-randomly, too, which seeds NumPy as well."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest
from inner import run_pytest, write_files
from journals import events

from pytest_fkit.protocol.repetitions import FRESH_EVERY, seed_of

SUITE = """\
import random
import numpy

def test_random(): assert random.random() >= 0.1
def test_numpy(): assert numpy.random.random() >= 0.1
"""

NAMES = ("test_random", "test_numpy")

TIMES = FRESH_EVERY - 1


def test_flakes_of_ten_per_cent_are_found_within_their_intervals(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    numpy = pytest.importorskip("numpy")

    def failed(first: int, name: str, offset: int) -> int:
        seeds = [seed_of(first, each) + offset for each in range(TIMES)]
        if name == "test_random":
            return sum(random.Random(each).random() < 0.1 for each in seeds)
        return sum(numpy.random.RandomState(each % 2**32).rand() < 0.1 for each in seeds)

    # Versions of pytest-randomly differ in whether they add this.
    offsets = {name: zlib.crc32(f"test_seeds.py::{name}".encode()) for name in NAMES}

    def expected(first: int) -> dict[str, set[int]]:
        return {
            name: {failed(first, name, offset) for offset in (0, offsets[name])} for name in NAMES
        }

    seed = next(each for each in range(1000) if set().union(*expected(each).values()) <= {1, 2, 3})
    write_files(tmp_path, {"test_seeds.py": SUITE})
    randomly = () if pytestconfig.getoption("--without-plugins") else ("-p", "randomly")
    ended = run_pytest(
        tmp_path, "-p", "xdist", "-p", "fkit", *randomly, "--fkit", "-n2",
        f"--fkit-repeat={TIMES}", f"--fkit-repeat-seed={seed}", "--fkit-journal=run.jsonl",
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert "Using --randomly-seed=" in ended.out, ended.out + ended.err
    said = {
        each["test"].rpartition("::")[2]: each["repeated"]
        for each in events(tmp_path / "run.jsonl", "verdict")
    }
    assert all(said[name]["failed"] in expected(seed)[name] for name in NAMES), said
    assert all(each["low"] <= 10 <= each["high"] for each in said.values())
