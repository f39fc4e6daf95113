"""Workers that do not answer are killed; what stopped the controller, too, is nobody's fault."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, Iterator

import pytest

from pytest_fkit.controller.heartbeat import TICK, Heartbeat


class Node:
    """A worker, as xdist's controller knows it."""

    def __init__(self, pid: int) -> None:
        self.workerinput = {"fkit_pid": pid}
        self.gateway = SimpleNamespace(id="gw0", spec=SimpleNamespace(ssh=None))


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """That of a worker."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        yield waiting
        waiting.kill()


def _heartbeat(limit: float) -> tuple[Heartbeat, list[Any]]:
    """One that asks when it is told to, and what it asked and said."""
    said: list[Any] = []
    heartbeat = Heartbeat(limit, lambda _, order: said.append(order), said.append)
    heartbeat.close()
    return heartbeat, said


def test_who_does_not_answer_is_killed(process: subprocess.Popen[bytes]) -> None:
    heartbeat, said = _heartbeat(60.0)
    heartbeat.add(Node(process.pid))
    for _ in range(int(1 / TICK) + 2):
        heartbeat.tick()
    assert said.pop() == "fkit: gw0 has not answered for 60 s, and is killed"
    assert set(said) == {("ping",)}
    assert process.wait(10) == -9


def test_who_answers_is_not(process: subprocess.Popen[bytes]) -> None:
    heartbeat, said = _heartbeat(60.0)
    node = Node(process.pid)
    heartbeat.add(node)
    for _ in range(int(1 / TICK) + 2):
        heartbeat.tick()
        heartbeat.answered(node)
    assert set(said) == {("ping",)}
    assert process.poll() is None


def test_no_time_counts_in_which_nobody_asked(process: subprocess.Popen[bytes]) -> None:
    heartbeat, said = _heartbeat(0.001)  # after Ctrl-Z and `fg` that is long ago
    heartbeat.add(Node(process.pid))
    subprocess.run([sys.executable, "-c", ""], check=True)
    heartbeat.tick()
    heartbeat.tick()
    assert said == [("ping",)] * 2
    assert process.poll() is None
