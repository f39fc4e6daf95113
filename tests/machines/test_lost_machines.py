"""What becomes of a run whose workers elsewhere are lost, one by one or all at once."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Callable, Iterator, Mapping, NamedTuple

import far_client
import psutil
import pytest
from inner_runs import Run, started, wait_until
from slurm_cluster import MISSING, cluster
from sshd_server import SSHD, sshd

from pytest_fkit.worker.controller_watch import PATIENCE

TESTS = 120

SUITE = {
    "conftest.py": """\
        import os, pathlib, pytest

        WORKER = os.getpid()
        HERE = pathlib.Path(os.environ["FKIT_INNER_DIR"])

        @pytest.fixture(autouse=True)
        def seen(request):
            name = os.environ["PYTEST_XDIST_WORKER"]
            node = os.environ["FKIT_MACHINE"]
            step = os.environ.get("SLURM_STEP_ID", "")
            with open(HERE / "seen.txt", "a") as file:
                file.write(f"{name} {node} {WORKER} {step}\\n")
    """,
    "test_many.py": f"""\
        import time, pytest

        @pytest.mark.parametrize("number", range({TESTS}))
        def test_it(number):
            time.sleep(0.1)
    """,
}


class Machines(NamedTuple):
    """Two machines, n1 and n2.

    :param option: value of ``--fkit-machines``.
    :param environ: of the run.
    :param cut: ends the connection of a worker, given by its pid and its step.
    :param leave: takes both machines away.
    :param steps: what of the engine's is left.
    """

    option: str
    environ: Mapping[str, str]
    cut: Callable[[int, str], None]
    leave: Callable[[], None]
    steps: Callable[[], list[str]] = list


@contextlib.contextmanager
def by_slurm(directory: Path) -> Iterator[Machines]:
    if MISSING:
        pytest.skip(f"needs Slurm: no {', '.join(MISSING)}")
    with cluster(directory) as slurm, slurm.allocated() as environ:
        job = environ["SLURM_JOB_ID"]
        yield Machines(
            "slurm",
            environ,
            lambda _, step: print(slurm.call("scancel", "--signal=KILL", f"{job}.{step}")),
            lambda: print(slurm.call("scancel", job)),
            lambda: slurm.steps(job),
        )


def _client_above(pid: int) -> None:
    """Kill what connects a worker with its controller, on the way up from that."""
    psutil.Process(pid).parent().kill()


def _tree(pid: int) -> list[psutil.Process]:
    """A process, and those that it has started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _runs(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def _program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


@contextlib.contextmanager
def by_ssh(directory: Path) -> Iterator[Machines]:
    if not (SSHD and shutil.which("ssh")):
        pytest.skip("needs OpenSSH's server and client")
    with sshd(directory, {}, ("n1", "n2", "jump-n1", "jump-n2")) as configuration:
        _program(directory / "ssh", f'exec {shutil.which("ssh")} -F {configuration} "$@"')

        def leave() -> None:
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or ()
                if any(str(directory) in each or "sshd: root@notty" in each for each in words):
                    with contextlib.suppress(psutil.Error):
                        process.kill()

        path = f"{directory}{os.pathsep}{os.environ.get('PATH', '')}"
        # Above a worker is the server's process for its connection.
        yield Machines("ssh:n1,n2", {"PATH": path}, lambda pid, _: _client_above(pid), leave)


@contextlib.contextmanager
def by_command(directory: Path) -> Iterator[Machines]:
    (directory / "n1").touch()
    (directory / "n2").touch()

    def leave() -> None:
        for name in ("n1", "n2"):
            (directory / name).unlink()
        for process in psutil.process_iter(["cmdline"]):
            if far_client.__file__ in (process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    yield Machines(
        f"exec:n1,n2 {sys.executable} {far_client.__file__} {directory}/{{machine}} 0 {{python}}",
        {},
        lambda pid, _: _client_above(pid),
        leave,
    )


@pytest.fixture(params=[by_slurm, by_ssh, by_command])
def machines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    with request.param(tmp_path_factory.mktemp("machines")) as found:
        yield found


class Seen:
    """The workers of a run that runs."""

    def __init__(self, run: Run) -> None:
        self._path = run.directory / "seen.txt"

    def lines(self) -> list[list[str]]:
        try:
            return [line.split(" ") for line in self._path.read_text().splitlines()]
        except OSError:
            return []

    def wait(self, tests: int, workers: int = 1) -> None:
        def enough() -> bool:
            lines = self.lines()
            return len(lines) >= tests and len({each[0] for each in lines}) >= workers

        assert wait_until(enough, 25), self.lines()

    def last(self, node: str) -> tuple[str, int, str]:
        """Name, pid and step of the worker of a node that has begun a test last."""
        name, _, pid, step = [each for each in self.lines() if each[1] == node][-1]
        return name, int(pid), step


@contextlib.contextmanager
def running(directory: Path, machines: Machines, *arguments: str) -> Iterator[tuple[Run, Seen]]:
    with started(
        directory, SUITE, "--fkit", f"--fkit-machines={machines.option}", "-n2",
        "--fkit-machines-timeout=20", "--fkit-grace=5", *arguments, env=machines.environ,
    ) as run:  # fmt: skip
        seen = Seen(run)
        seen.wait(12, workers=4)
        yield run, seen


def is_worker(process: psutil.Process) -> bool:
    """Whether a process belongs to a worker, not to what connects it."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return len(words) > 3 and words[0] == sys.executable and "exec(eval(" in words[-1]


def check(run: Run, machines: Machines) -> tuple[list[str], str]:
    """Every test has one verdict, and nothing is left.

    The texts of those that failed, and what the run has printed.
    """
    outcome = run.wait(240)
    left = run.await_gone(20)
    assert not left, f"{left}\n{outcome.stdout}"
    assert len(outcome.verdicts) == TESTS, outcome.stdout + outcome.stderr
    for name, verdict in outcome.verdicts.items():
        assert len(verdict.failures) <= 1, name
        assert len({each["when"] for each in verdict.reports}) == len(verdict.reports), name
    failed = [each.failures[0]["text"] for each in outcome.verdicts.values() if each.failures]
    assert outcome.status == bool(failed), outcome.stdout
    # Slurm hears of the end of a step after its processes are gone.
    assert wait_until(lambda: machines.steps() == [], 20), machines.steps()
    print(outcome.stdout)
    return failed, outcome.stdout


def test_a_connection_that_is_cut(machines: Machines, tmp_path: Path) -> None:
    with running(tmp_path, machines) as (run, seen):
        name, pid, step = seen.last("n2")
        machines.cut(pid, step)
        failed, printed = check(run, machines)
    assert len(failed) == 1
    assert name in failed[0]
    assert f"replacing crashed worker {name}" in printed


def test_a_worker_that_is_stopped(machines: Machines, tmp_path: Path) -> None:
    with running(tmp_path, machines, "--fkit-worker-timeout=3") as (run, seen):
        name, pid, _ = seen.last("n1")
        os.kill(pid, signal.SIGSTOP)
        failed, _ = check(run, machines)
    assert len(failed) == 1
    assert f"worker {name} was killed: it had not answered for 3 s" in failed[0]


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
        far = [each for pid in workers.values() for each in _tree(pid)]
        (keys / "n2-is-dead").touch()
        links = [each for each in run.alive() if "jump-n2" in each.cmdline()]
        assert len(links) == 2
        for each in links:
            each.suspend()
        outcome = run.wait(60)
        # By itself: no connection has ended.
        assert wait_until(lambda: not any(map(_runs, far)), PATIENCE * 2 + 20), far
        assert all(map(_runs, links))
        for each in links:
            each.kill()
        assert run.await_gone(20) == []
    failed = [name for name, each in outcome.verdicts.items() if each.failures]
    assert len(outcome.verdicts) == TESTS
    assert len(failed) == 2
    for name in workers:
        assert f"worker {name} was killed: it had not answered for 2 s" in outcome.stdout


def test_machines_that_leave(machines: Machines, tmp_path: Path) -> None:
    with running(tmp_path, machines) as (run, _):
        machines.leave()
        failed, printed = check(run, machines)
    assert len(failed) > TESTS / 2
    assert sum("is lost: " in each for each in failed) > TESTS / 2
    assert "n1 is lost: " in printed or "n2 is lost: " in printed


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


def test_random_kills(machines: Machines, tmp_path: Path) -> None:
    chosen = random.Random(19)
    with running(tmp_path, machines) as (run, seen):
        for number in range(20):
            seen.wait(12 + 4 * number)
            found = [each for each in run.alive() if is_worker(each)]
            if found:
                with contextlib.suppress(psutil.Error):
                    chosen.choice(found).kill()
        failed, _ = check(run, machines)
    assert len(failed) <= 20


@pytest.mark.skipif(bool(MISSING), reason=f"needs Slurm: no {', '.join(MISSING)}")
def test_a_node_whose_daemon_is_killed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with cluster(tmp_path_factory.mktemp("slurm")) as slurm, slurm.allocated("--no-kill") as job:
        machines = Machines("slurm", job, lambda *_: None, lambda: None)
        with running(tmp_path, machines) as (run, seen):
            os.kill(slurm.pid("n2"), signal.SIGKILL)
            for _, node, pid, _ in {tuple(each) for each in seen.lines()}:
                if node == "n2":
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
            failed, _ = check(run, machines)
        slurm.start_node("n2")  # which ends what is left of the steps there
    assert len(failed) <= 2


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
