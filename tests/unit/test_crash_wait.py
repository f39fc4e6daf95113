"""A thread that a fatal signal hit waits, however long the keeper takes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Callable

import pytest

from pytest_fkit.sandbox.process import crash_wait

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def _fork(work: Callable[[], object]) -> int:
    """Fork a process that is to wait in `work`."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def _waits_in(pid: int) -> str:
    """The system call in which a process waits, by its number."""
    call = "running"
    while call in ("running", "-1"):
        call = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    return call


def _crash() -> None:
    crash_wait.install()
    os.kill(os.getpid(), signal.SIGILL)  # sent: what returns from the handler goes on


def test_who_crashed_waits_without_an_end() -> None:
    crashed, waiting = _fork(_crash), _fork(signal.pause)
    try:
        while crash_wait.crashed(crashed) is None:
            assert os.waitpid(crashed, os.WNOHANG) == (0, 0)
        assert crash_wait.crashed(crashed) == (crashed, signal.SIGILL)
        assert _waits_in(crashed) == _waits_in(waiting)
    finally:
        os.kill(waiting, signal.SIGKILL)
        os.kill(crashed, signal.SIGILL)
        ended = [os.WTERMSIG(os.waitpid(pid, 0)[1]) for pid in (crashed, waiting)]
    assert ended == [signal.SIGILL, signal.SIGKILL]
