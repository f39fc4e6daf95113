"""--fkit-repeat on a machine with GPUs: gangs, and other GPUs after an error of one."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Mapping

from inner import run_pytest, write_files
from journals import events, verdicts

import fleet as fleets

SUITE = """\
import os
import pytest

@pytest.mark.fkit(gpus=4)
def test_all(fkit_gpus): assert len(fkit_gpus) == 4

def test_errs(fkit_gpus):
    if "0" in fkit_gpus:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
"""


def test_gangs_and_retries_are_within_repetitions(
    tmp_path: Path, fleet: Callable[..., Mapping[str, str]]
) -> None:
    write_files(tmp_path, {"test_gpus.py": SUITE})
    ended = run_pytest(
        tmp_path, "--fkit", "-n2", "--fkit-gpus-per-worker=2", "--fkit-repeat=3",
        "--fkit-journal=run.jsonl", env=fleet(fleets.nvidia(4)),
    )  # fmt: skip
    assert ended.status == 0, ended.out + ended.err
    assert set(verdicts(tmp_path / "run.jsonl").values()) == {"passed"}
    said = [each["repeated"] for each in events(tmp_path / "run.jsonl", "verdict")]
    assert [(each["times"], each["failed"]) for each in said] == [(3, 0)] * 2
    assert events(tmp_path / "run.jsonl", "retried")
