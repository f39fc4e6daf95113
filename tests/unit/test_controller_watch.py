"""Workers elsewhere whose controller is not heard any more."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """\
import time
from pytest_fkit.worker.controller_watch import ControllerWatch

watch = ControllerWatch(0.1)
watch.begin()
{}
time.sleep(1000)
"""


@pytest.mark.parametrize(("then", "status"), [("", 1), ("watch.rest()", 0)])
def test_a_worker_ends_itself_while_it_runs_tests_and_after_them(then: str, status: int) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM.format(then)], timeout=60, check=False)
    assert ended.returncode == status
