"""Workers that do not answer are killed; what stopped the controller, too, is nobody's fault."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any, Iterator

import pytest

from pytest_fkit.controller.workers.liveness import Heartbeat, kill
from pytest_fkit.gpu.slices.ownership import MACHINE_TOLD
from pytest_fkit.protocol.border import CheckAlive


class Node:
    """A worker, as xdist's controller knows it."""

    def __init__(self, pid: int, host: str = "") -> None:
        self.workerinput = {"fkit_pid": pid, MACHINE_TOLD: host}
        self.ended = threading.Event()
        self.gateway = SimpleNamespace(id="gw0", _io=SimpleNamespace(kill=self._end))

    def _end(self) -> None:
        self.ended.set()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """That of a worker."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        yield waiting
        waiting.kill()


class Run:
    """A heartbeat that asks when it is told to, and what it asked and did."""

    def __init__(self, limit: float) -> None:
        self.said: list[object] = []
        self.trouble = ""
        links: Any = SimpleNamespace(
            order=lambda _, order: self.said.append(order),
            trouble=lambda _: self.trouble,
            distrust=lambda _, trouble: self.said.append(trouble),
            silent=lambda *_: self.said.append("silent"),
            show=self.said.append,
        )
        self.heartbeat = Heartbeat(limit, links)
        self.heartbeat.close()
        self.node = object()
        self.heartbeat.add(self.node)

    def tick(self, seconds: float) -> None:
        """So much time passes."""
        for _ in range(int(seconds / self.heartbeat.period)):
            self.heartbeat.tick()


def test_who_does_not_answer_is_ended() -> None:
    run = Run(60.0)
    run.tick(62)
    assert run.said.pop() == "silent"
    assert set(run.said) == {CheckAlive()}
    before = len(run.said)
    run.tick(62)
    assert len(run.said) == before


def test_who_answers_is_not() -> None:
    run = Run(60.0)
    for _ in range(10):
        run.tick(30)
        run.heartbeat.heard(run.node)
    assert set(run.said) == {CheckAlive()}


def test_no_time_counts_in_which_nobody_asked() -> None:
    run = Run(0.001)  # after Ctrl-Z and `fg` that is long ago
    subprocess.run([sys.executable, "-c", ""], check=True)
    run.heartbeat.tick()
    run.heartbeat.tick()
    assert run.said == [CheckAlive()] * 2


@pytest.mark.parametrize("limit", [0.0, 60.0])
def test_a_gap_in_what_a_worker_says_is_given_a_second_to_be_filled(limit: float) -> None:
    run = Run(limit)
    run.trouble = "message 7 is missing"
    run.heartbeat.tick()
    run.trouble = ""
    run.heartbeat.tick()
    assert run.said == [CheckAlive()] * 2
    run.trouble = "message 9 is missing"
    run.tick(1)
    assert run.said[2:] == [CheckAlive(), "message 9 is missing"]


def test_an_error_does_not_end_the_watch() -> None:
    asked: list[object] = []

    def order(node: Any, order: object) -> None:
        asked.append(order)
        if len(asked) == 1:
            raise PermissionError(1, "no")
        heartbeat.close()

    said: list[str] = []
    links: Any = SimpleNamespace(order=order, trouble=lambda _: "", show=said.append)
    heartbeat = Heartbeat(0.004, links)
    heartbeat.add(object())
    heartbeat._thread.join(10)
    assert len(asked) == 2
    assert "PermissionError" in said[0]


def test_a_worker_of_this_machine_is_killed(process: subprocess.Popen[bytes]) -> None:
    node = Node(process.pid)
    kill(node)
    assert process.wait(10) == -9
    assert not node.ended.is_set()


@pytest.mark.parametrize("host", ["localhost", "far.example"])
def test_nobody_here_is_killed_for_the_number_of_a_process_elsewhere(
    process: subprocess.Popen[bytes], host: str
) -> None:
    node = Node(process.pid, host)
    kill(node)
    assert node.ended.wait(10)
    assert process.poll() is None


def test_nobody_else_is_killed_for_the_number_of_a_process_in_a_container() -> None:
    node = Node(1)  # of this machine, as far as --tx tells, but none of ours
    kill(node)
    assert node.ended.wait(10)


def test_one_elsewhere_is_watched_while_it_starts_but_asked_only_once_it_listens() -> None:
    run = Run(4.0)
    run.heartbeat.add(run.node, start=60.0, asked=False)
    run.tick(60)
    assert run.said == []
    run.heartbeat.add(run.node, start=60.0)  # it collects
    run.tick(60)
    assert set(run.said) == {CheckAlive()}
    run.tick(10)
    assert run.said[-1] == "silent"


@pytest.mark.parametrize(("limit", "start"), [(0.0, 60.0), (4.0, 0.0)])
def test_one_elsewhere_may_start_for_any_time_where_there_is_no_limit(
    limit: float, start: float
) -> None:
    run = Run(limit)
    run.heartbeat.add(run.node, start=start, asked=False)
    run.tick(1000)
    assert run.said == []
