"""What becomes of a run whose workers elsewhere are lost, one by one or all at once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path
from typing import Iterator, Mapping

import psutil
import pytest
from inner_runs import Outcome, Run, started, wait_until
from slurm_cluster import MISSING, Cluster, cluster

TESTS = 120

SUITE = {
    "conftest.py": """\
        import os, pathlib, pytest

        WORKER = os.getpid()
        HERE = pathlib.Path(os.environ["FKIT_INNER_DIR"])

        @pytest.fixture(autouse=True)
        def seen(request):
            name = os.environ["PYTEST_XDIST_WORKER"]
            node = os.environ.get("SLURMD_NODENAME", os.environ.get("MACHINE", ""))
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

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs Slurm: no {', '.join(MISSING)}")


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm")) as found:
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

        assert wait_until(enough, 60), self.lines()

    def last(self, node: str) -> list[str]:
        """Name, node, pid and step of the worker of a node that has begun a test last."""
        return [each for each in self.lines() if each[1] == node][-1]


@contextlib.contextmanager
def running(directory: Path, job: Mapping[str, str], *arguments: str) -> Iterator[tuple[Run, Seen]]:
    with started(
        directory, SUITE, "--fkit", "--fkit-machines=slurm", "--fkit-machines-timeout=15", "-n2",
        "--fkit-grace=5", *arguments, env=job,
    ) as run:  # fmt: skip
        yield run, Seen(run)


def in_step(process: psutil.Process) -> bool:
    """Whether a process belongs to a worker, not to what has started it here."""
    try:
        return "SLURM_STEP_ID" in process.environ()
    except psutil.Error:
        return False


def check(run: Run, outcome: Outcome) -> list[str]:
    """Every test has one verdict, and nothing is left; the texts of those that failed."""
    left = run.await_gone(20)
    assert not left, f"{left}\n{outcome.stdout}"
    assert len(outcome.verdicts) == TESTS, outcome.stdout + outcome.stderr
    for name, verdict in outcome.verdicts.items():
        assert len({each["outcome"] for each in verdict.reports} - {"passed"}) <= 1, name
        assert len(verdict.failures) <= 1, name
    failed = [each.failures[0]["text"] for each in outcome.verdicts.values() if each.failures]
    assert outcome.status == bool(failed), outcome.stdout
    return failed


def test_a_step_that_is_cancelled(slurm: Cluster, tmp_path: Path) -> None:
    with slurm.allocated() as job, running(tmp_path, job) as (run, seen):
        seen.wait(12, workers=4)
        name, _, _, step = seen.last("n2")
        slurm.call("scancel", "--signal=KILL", f"{job['SLURM_JOB_ID']}.{step}")
        outcome = run.wait(120)
        failed = check(run, outcome)
        assert slurm.steps(job["SLURM_JOB_ID"]) == []
    assert len(failed) == 1
    assert name in failed[0]
    assert f"replacing crashed worker {name}" in outcome.stdout


def test_a_worker_that_is_stopped(slurm: Cluster, tmp_path: Path) -> None:
    with slurm.allocated() as job, running(tmp_path, job, "--fkit-worker-timeout=3") as (run, seen):
        seen.wait(12, workers=4)
        name, _, pid, _ = seen.last("n1")
        os.kill(int(pid), signal.SIGSTOP)
        outcome = run.wait(120)
        failed = check(run, outcome)
        assert slurm.steps(job["SLURM_JOB_ID"]) == []
    assert len(failed) == 1
    assert f"worker {name} was killed: it had not answered for 3 s" in failed[0]


def test_a_node_whose_daemon_is_killed(slurm: Cluster, tmp_path: Path) -> None:
    with slurm.allocated("--no-kill") as job, running(tmp_path, job) as (run, seen):
        seen.wait(12, workers=4)
        os.kill(slurm.pid("n2"), signal.SIGKILL)
        for _, node, pid, _ in {tuple(each) for each in seen.lines()}:
            if node == "n2":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        outcome = run.wait(180)
        failed = check(run, outcome)
    assert len(failed) <= 2
    print(outcome.stdout)


def test_an_allocation_that_is_revoked(slurm: Cluster, tmp_path: Path) -> None:
    with slurm.allocated() as job, running(tmp_path, job) as (run, seen):
        seen.wait(12, workers=4)
        slurm.call("scancel", job["SLURM_JOB_ID"])
        outcome = run.wait(180)
        failed = check(run, outcome)
    assert failed
    print(outcome.stdout)


def test_random_kills(slurm: Cluster, tmp_path: Path) -> None:
    chosen = random.Random(19)
    with slurm.allocated() as job, running(tmp_path, job) as (run, seen):
        for number in range(20):
            seen.wait(4 * number + 4)
            mine = [each for each in run.alive() if in_step(each)]
            if mine:
                with contextlib.suppress(psutil.Error):
                    chosen.choice(mine).kill()
        outcome = run.wait(240)
        failed = check(run, outcome)
        assert slurm.steps(job["SLURM_JOB_ID"]) == []
    print(outcome.stdout)
    assert len(failed) <= 20
