"""Workers that lose their controller, and controllers that lose all machines before any test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

import far_client
import psutil
import pytest
from far_machines import Machines, by_each_engine, by_ssh, tree
from inner_runs import started, wait_until
from watched_runs import TESTS, running

from pytest_fkit.worker.controller_watch import TIMES_LONGER

machines = by_each_engine


def _runs(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def test_a_link_that_dies_without_a_word(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As when a cable is pulled: neither end hears that there is no other one any more."""
    keys = tmp_path_factory.mktemp("keys")
    with contextlib.ExitStack() as stack:
        machines = stack.enter_context(by_ssh(keys))
        with (keys / "ssh_config").open("a") as configuration:
            # A link that can be stopped, and that outlives the client.
            configuration.write(
                f"Host n1 n2\n  ProxyCommand sh -c 'test ! -e {keys}/%n-is-dead && exec setsid "
                f"{shutil.which('ssh')} -F {keys}/ssh_config -W %h:%p jump-%n'\n"
            )
        run, seen = stack.enter_context(running(tmp_path, machines, "--fkit-worker-timeout=2"))
        workers = {name: int(pid) for name, node, pid, _ in seen.lines() if node == "n2"}
        assert len(workers) == 2
        far = [each for pid in workers.values() for each in tree(pid)]
        (keys / "n2-is-dead").touch()
        links = [each for each in run.alive() if "jump-n2" in each.cmdline()]
        assert len(links) == 2
        for each in links:
            each.suspend()
        outcome = run.wait(60)
        # By itself: no connection has ended.
        assert wait_until(lambda: not any(map(_runs, far)), TIMES_LONGER * 2 + 20), far
        assert all(map(_runs, links))
        for each in links:
            each.kill()
        assert run.await_gone(20) == []
    failed = [name for name, each in outcome.verdicts.items() if each.failures]
    assert len(outcome.verdicts) == TESTS
    # A machine that has a lot to do may be silent, too.
    assert 2 <= len(failed) <= outcome.stdout.count(" has not answered for 2 s")
    for name in workers:
        assert f"worker {name} was killed: it had not answered for 2 s" in outcome.stdout


def test_machines_that_leave_before_anything_is_collected(tmp_path: Path) -> None:
    (tmp_path / "n1").touch()
    client = f"{sys.executable} {far_client.__file__} {tmp_path}/{{machine}} 0 {{python}}"
    suite = {
        "test_a.py": "def test_a(): pass",
        "conftest.py": """\
            import os, pathlib, signal, time

            def pytest_collection(session):
                if hasattr(session.config, "workerinput"):
                    (pathlib.Path(__file__).parent / "n1").unlink()
                    os.kill(os.getppid(), signal.SIGKILL)
                    time.sleep(60)
        """,
    }
    with started(
        tmp_path, suite, "--fkit", f"--fkit-machines=exec:n1 {client}", "-n1",
        "--fkit-machines-timeout=20",
    ) as run:  # fmt: skip
        outcome = run.wait(60)
        assert run.await_gone(20) == []
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.stdout
    assert "n1 is lost: there is no machine n1" in outcome.stdout


def test_a_controller_that_is_killed_leaves_nothing_anywhere(
    machines: Machines, tmp_path: Path
) -> None:
    with running(tmp_path, machines) as (run, _):
        run.process.kill()
        run.process.wait()
        assert run.await_gone(40) == []
        assert wait_until(lambda: machines.steps() == [], 20)


def test_ctrl_c_tears_down_everywhere(machines: Machines, tmp_path: Path) -> None:
    (tmp_path / "plugin_wide.py").write_text(
        "import os, pathlib, pytest\n"
        "@pytest.fixture(scope='session', autouse=True)\n"
        "def wide():\n"
        "    here = pathlib.Path(os.environ['FKIT_INNER_DIR'])\n"
        "    (here / ('up-' + os.environ['PYTEST_XDIST_WORKER'])).touch()\n"
        "    yield\n"
        "    (here / ('down-' + os.environ['PYTEST_XDIST_WORKER'])).touch()\n"
    )
    with running(tmp_path, machines, "-p", "plugin_wide", "-opythonpath=.") as (run, _):
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
        outcome = run.wait(60)
        assert run.await_gone(20) == []
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.stdout
    up, down = sorted(tmp_path.glob("up-*")), sorted(tmp_path.glob("down-*"))
    assert len(up) == 4
    assert [each.name[len("up-") :] for each in up] == [each.name[len("down-") :] for each in down]
