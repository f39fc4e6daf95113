"""Workers on other machines: devices are found there, and sliced among the workers there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Mapping

import psutil
from gpu_runs import GpuRun, masks, run_on
from inner_runs import wait_until
from sshd_server import needs_sshd, sshd

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]


def _port(pid: int) -> int:
    """Where a process listens, 0 if it doesn't yet."""
    connections = psutil.net_connections("tcp4")
    listening = (each for each in connections if each.status == psutil.CONN_LISTEN)
    return next((int(each.laddr.port) for each in listening if each.pid == pid), 0)


def _run_over_ssh(
    machine: Mapping[str, str],
    tmp_path: Path,
    tx: list[str],
    *arguments: str,
    remote: Mapping[str, str],
    workers: int,
    env: Mapping[str, str] | None = None,
) -> GpuRun:
    """Run with workers on node7, which has an environment of its own.

    :param machine: the one of the controller.
    :param tx: "ssh" stands for a worker on node7.
    """
    suite, keys = tmp_path / "suite", tmp_path / "keys"
    suite.mkdir()
    keys.mkdir()
    seen = {
        "SEEN_IN": str(suite / "seen"),
        "SEEN_TESTS": str(3 * workers),
        "SEEN_WORKERS": str(workers),
        "SEEN_KIND": "node7",
        "PYTHONPATH": str(suite),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with sshd(keys, {**seen, **remote}) as server:
        client = f"ssh=node7//ssh_config={server.client}"
        ssh = f"{client}//python={sys.executable}//chdir={tmp_path / 'there'}"
        return run_on(
            machine, suite, *(f"--tx={each.replace('ssh', ssh)}" for each in tx), "--dist=load",
            f"--rsyncdir={suite}", str(suite / "test_seen.py"), *arguments,
            workers=workers, tests=3 * workers, env=env,
            files={"pytest.ini": "[pytest]\n"},  # rootdir, here and there
        )  # fmt: skip


@needs_sshd
def test_devices_are_found_on_the_host_and_sliced_among_its_workers(
    fleet: Fleet, tmp_path: Path
) -> None:
    ended = _run_over_ssh(
        fleet(fleets.nvidia(2)), tmp_path, ["2*popen", "2*ssh"],
        remote={**fleet(fleets.amd(8)), "ROCR_VISIBLE_DEVICES": "7,6,5,4,3"},
        workers=4, env={"CUDA_VISIBLE_DEVICES": "1,0"},
    )  # fmt: skip
    seen = ended.seen
    assert sorted(seen) == ["gw0", "gw1", "gw2", "gw3"], ended.inner.out + ended.inner.err
    here, there = [seen["gw0"], seen["gw1"]], [seen["gw2"], seen["gw3"]]
    assert [each.kind for each in (*here, *there)] == ["", "", "node7", "node7"]
    assert [masks(each, "CUDA", "ROCR") for each in here] == [("1", None), ("0", None)]
    assert [masks(each, "ROCR", "HIP", "CUDA") for each in there] == [
        ("7,6", "0,1", "0,1"),
        ("5,4", "0,1", "0,1"),
    ]
    assert [each.worker for each in (*here, *there)] == [0, 1, 2, 3]
    for each in (*here, *there):
        assert each.same == [True, True, True]
        assert each.environ["FKIT_PORT_BASE"] == str(each.port)
    assert len({each.port for each in seen.values()}) == 4
    assert "fkit: 4 workers, 2 NVIDIA GPUs (" in ended.header[0]
    assert "gw0 1 | gw1 0; " in ended.header[0]
    assert (
        "fkit: node7: 2 workers, 5 AMD GPUs (MI300X, 192 GiB), 2 per worker: gw2 7,6 | gw3 5,4 "
        "| unowned 3" in ended.inner.lines
    )
    assert ended.inner.status == 0


@needs_sshd
def test_a_remote_worker_that_is_killed_hands_its_place_on(fleet: Fleet, tmp_path: Path) -> None:
    ended = _run_over_ssh(
        fleet(), tmp_path, ["2*ssh"], "-vv",
        remote={**fleet(fleets.nvidia(4)), "SEEN_DEATHS": "0"}, workers=3,
    )  # fmt: skip
    seen = ended.seen
    assert set(seen) == {"gw0", "gw1", "gw2"}, ended.inner.out + ended.inner.err
    assert (seen["gw2"].worker, seen["gw2"].gpus) in [
        (seen[name].worker, seen[name].gpus) for name in ("gw0", "gw1")
    ]
    assert [seen[name].gpus for name in ("gw0", "gw1")] == [["0", "1"], ["2", "3"]]
    introductions = [line for line in ended.inner.lines if line.startswith("fkit: node7: 2 work")]
    assert len(introductions) == 1
    assert any(line.startswith("fkit: node7: nvidia: ") for line in ended.inner.lines)


def test_a_socket_server_has_the_same_gpus_in_every_run(fleet: Fleet, tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    environ = {
        **os.environ, **fleet(fleets.nvidia(8)), "CUDA_VISIBLE_DEVICES": "7,6,5",
        "PYTHONPATH": str(suite), "SEEN_IN": str(suite / "seen"), "SEEN_TESTS": "1",
    }  # fmt: skip
    found = []
    command = [sys.executable, "-u", "-m", "execnet.script.socketserver", "127.0.0.1:0"]
    said = tmp_path / "server.txt"
    with said.open("wb") as out, subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=out, stderr=out
    ) as server:
        try:
            # It accepts one connection at a time and is not to be tried out.
            assert wait_until(lambda: _port(server.pid), 30), said.read_text()
            address = f"127.0.0.1:{_port(server.pid)}"
            for _ in range(2):
                ended = run_on(
                    fleet(), suite, f"--tx=socket={address}//chdir={tmp_path / 'there'}",
                    "--dist=load", f"--rsyncdir={suite}", str(suite / "test_seen.py"),
                    files={"pytest.ini": "[pytest]\n"},
                )  # fmt: skip
                # execnet interrupts a server whose worker takes more than 5 s to leave.
                told = f"{ended.inner.out}{ended.inner.err}{said.read_text()}{server.poll()}"
                assert "gw0" in ended.seen, told
                found.append(ended.seen["gw0"])
                shutil.rmtree(suite / "seen")
        finally:
            server.kill()
    assert [(seen.gpus, masks(seen, "CUDA")) for seen in found] == [(["7", "6"], "7,6")] * 2
    assert found[0].same == [True, True, True]
    assert "fkit: 127.0.0.1: 1 worker, 3 NVIDIA GPUs (" in ended.inner.out


def test_another_python_on_the_same_machine_shares_its_gpus(fleet: Fleet, tmp_path: Path) -> None:
    python = f"env CUDA_VISIBLE_DEVICES=3,2 {sys.executable}"
    ended = run_on(
        fleet(fleets.nvidia(8)), tmp_path, "--tx=popen", f"--tx=popen//python={python}",
        "--dist=load", "-vv", workers=2,
    )  # fmt: skip
    assert [seen.gpus for seen in ended.seen.values()] == [["0", "1"], ["3", "2"]]
