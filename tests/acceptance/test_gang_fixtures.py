"""Wide fixtures of workers whose GPUs are lent: what they say when they are torn down before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Mapping

import pytest
from inner import run_pytest, write_files

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

_SUITE = """\
import os
import pytest
import fleet_torch

def note(what):
    with open(os.environ["LOG"], "a") as log:
        log.write(what + "\\n")

@pytest.fixture(scope="{scope}")
def wide():
    lent = fleet_torch.device_count() == 4
    yield
    if not lent:
        note("torn down")
        assert 0, "torn down wrongly"

@pytest.mark.parametrize("number", range(6))
def test_it(wide, number): pass

@pytest.mark.skipif(fleet_torch.device_count() < 4, reason="Need at least 4 CUDA devices")
def test_four(wide):
    note("four begins")
"""


@pytest.mark.parametrize("scope", ["module", "session"])
def test_no_failed_teardown_is_lost_with_the_attempt_that_came_before_it(
    fleet: Fleet, tmp_path: Path, scope: str
) -> None:
    write_files(tmp_path, {"test_a.py": _SUITE.format(scope=scope)})
    log = tmp_path / "log"
    env = {**fleets.with_framework(fleet(fleets.nvidia(4))), "LOG": os.fspath(log)}
    options = ("--fkit", "--fkit-gpus-per-worker=2", "-n2", "--fkit-widen")
    ended = run_pytest(tmp_path, *options, env=env)
    wrong = [nodeid for outcome, nodeid, _ in ended.reported if outcome == "ERROR"]
    assert len(wrong) == log.read_text().count("torn down"), ended.out
    assert ended.status == 1
