"""Who holds GPU memory: processes that have the device files of a GPU open."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from pytest_fkit.protocol.messages import Run
from pytest_fkit.sandbox.keeper import orphans
from pytest_fkit.sandbox.keeper.jobs import Job
from pytest_fkit.sandbox.keeper.orphans import await_release
from pytest_fkit.system.unforkable import holders

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def _process(proc: Path, pid: int, *targets: str) -> None:
    """What procfs shows of a process."""
    (proc / str(pid) / "fd").mkdir(parents=True)
    for number, target in enumerate(targets):
        (proc / str(pid) / "fd" / str(number)).symlink_to(target)


@pytest.mark.parametrize(
    "target", ["/dev/nvidia0", "/dev/nvidia15", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/kfd"]
)
def test_device_files_that_hold_memory(tmp_path: Path, target: str) -> None:
    _process(tmp_path, 7, "/dev/null", "socket:[1]", target)
    assert holders([7], str(tmp_path)) == [7]


@pytest.mark.parametrize(
    "target",
    [
        "/dev/null", "pipe:[17]", "/home/me/dev/nvidia0/log", "/dev/nvidia0 (deleted)",
        "/dev/nvidia-caps/nvidia-cap1", "/dev/kfd.log", "/var/dev/nvidiactl.txt",
    ],
)  # fmt: skip
def test_other_files(tmp_path: Path, target: str) -> None:
    _process(tmp_path, 7, target)
    assert holders([7], str(tmp_path)) == []


def test_only_the_processes_in_question_count(tmp_path: Path) -> None:
    _process(tmp_path, 7, "/dev/nvidia0")
    _process(tmp_path, 8, "/dev/nvidia0")
    _process(tmp_path, 9)
    assert holders([9, 8, 10], str(tmp_path)) == [8]


_HOLDS = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has a GPU open, of a machine in a directory."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    command = [sys.executable, "-c", _HOLDS, str(tmp_path / "dev/nvidia0")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def _until(true: Callable[[], bool], limit: float) -> bool:
    deadline = time.monotonic() + limit
    while not true():
        if time.monotonic() > deadline:
            return False
    return True


@linux
def test_a_process_that_lets_go_is_waited_for(holder: subprocess.Popen[bytes]) -> None:
    assert holders([holder.pid]) == [holder.pid]

    def until(true: Callable[[], bool], limit: float) -> bool:
        holder.kill()
        return _until(true, limit)

    assert await_release(lambda: [holder.pid], until, 60.0) == []


@linux
def test_a_process_that_does_not_is_named_after_the_limit(
    holder: subprocess.Popen[bytes],
) -> None:
    began = time.monotonic()
    assert await_release(lambda: [holder.pid], _until, 0.3) == [holder.pid]
    assert time.monotonic() - began >= 0.3


def test_nobody_is_waited_for_where_nobody_holds_a_gpu(tmp_path: Path) -> None:
    def until(*_: object) -> bool:
        raise AssertionError("waited")

    assert await_release(list, until, 60.0) == []


@linux
def test_the_keeper_waits_once_for_a_process_that_it_could_not_end(
    holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "RELEASE_WAIT", 0.3)
    waits = []

    def until(true: Callable[[], bool], limit: float) -> bool:
        waits.append(limit)
        return _until(true, limit)

    host: Any = None
    left = orphans.Orphans([], [], until)
    left.abandon(holder.pid)
    first, second = (Job(Run(0, -1), host) for _ in range(2))
    left.await_gpu_release(first)
    [line] = first.hold_gpus
    assert line.startswith(f"pid {holder.pid} (")
    left.await_gpu_release(second)
    assert second.hold_gpus == ()
    assert len(waits) == 1
