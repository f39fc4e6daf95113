"""Machines from which a message takes its time are as busy as near ones."""

from __future__ import annotations

import sys
from pathlib import Path

import far_client
from inner_runs import run

TESTS = 2000

SUITE = {
    "n1": "",
    "n2": "",
    "test_many.py": f"""\
        import time, pytest

        @pytest.mark.parametrize("number", range({TESTS}))
        def test_it(number):
            time.sleep(0.005)
    """,
}


def seconds(directory: Path, delay: float) -> float:
    """How long a run takes whose messages are late by so much, each."""
    directory.mkdir()
    client = f"{sys.executable} {far_client.__file__} {directory}/{{machine}} {delay} {{python}}"
    ended = run(
        directory, SUITE, "--fkit", f"--fkit-machines=exec:n1,n2 {client}", "-n1", timeout=300
    )
    assert ended.status == 0, ended.stdout
    assert len(ended.verdicts) == TESTS
    return ended.seconds


def test_fifty_milliseconds_there_and_back_cost_no_tenth(tmp_path: Path) -> None:
    near: list[float] = []
    far: list[float] = []
    # In turn, and once more if need be: this machine may have other things to do as well.
    while len(far) < 3 and not (far and min(far) <= 1.1 * min(near)):
        near.append(seconds(tmp_path / f"near-{len(near)}", 0))
        far.append(seconds(tmp_path / f"far-{len(far)}", 0.025))
    print(near, far)
    assert min(far) <= 1.1 * min(near)
