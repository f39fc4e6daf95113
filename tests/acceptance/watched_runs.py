"""Runs on two machines whose workers can be told from each other, so that tests can lose them."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Iterator

import psutil
from far_machines import Machines, tree
from inner_runs import Run, started, wait_until

TESTS = 100

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


class Seen:
    """The workers of a run that runs."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._path = run.directory / "seen.txt"

    def lines(self, node: str = "") -> list[list[str]]:
        """Name, node, pid and step of the worker of each test that began, of a node or of all."""
        try:
            found = [line.split(" ") for line in self._path.read_text().splitlines()]
        except OSError:
            return []
        return [each for each in found if not node or each[1] == node]

    def wait(self, tests: int, workers: int = 1, node: str = "") -> None:
        """Wait for so many tests, by so many workers."""

        def enough() -> bool:
            lines = self.lines(node)
            return len(lines) >= tests and len({each[0] for each in lines}) >= workers

        assert wait_until(enough, 60), f"{self.lines(node)}\n{self._run.output()}"

    def last(self, node: str) -> tuple[str, int, str]:
        """Name, pid and step of the worker of a node that has begun a test last."""
        name, _, pid, step = self.lines(node)[-1]
        return name, int(pid), step

    def pids(self, node: str = "") -> list[int]:
        """Of all its workers so far."""
        return list({int(each[2]): None for each in self.lines(node)})

    def kill_any(self, chosen: random.Random, spared: int) -> None:
        """Kill a process that is elsewhere: a worker, or one that is about to become one.

        What workers have started dies in test_random_deaths.py.

        :param spared: pid of one that is left alone.
        """
        starting = [each for each in self._run.alive() if _is_worker(each)]
        pids = {*self.pids(), *(each.pid for each in starting if not _is_worker(_parent(each)))}
        found = [each for pid in sorted(pids - {spared}) for each in tree(pid)[:1]]
        found = [each for each in found if _is_worker(each)]
        if found:
            with contextlib.suppress(psutil.Error):
                chosen.choice(found).kill()


def _parent(process: psutil.Process) -> psutil.Process | None:
    try:
        return process.parent()
    except psutil.Error:  # it has ended meanwhile
        return None


def _is_worker(process: psutil.Process | None) -> bool:
    """Whether it is a Python that execnet has started, or its fork, not a command on the way."""
    try:
        words = [] if process is None else process.cmdline()
    except psutil.Error:
        return False
    titled = " ".join(words).startswith("[pytest-xdist")  # where setproctitle is installed
    return titled or (words[1:3] == ["-u", "-c"] and "exec(eval(" in words[-1])


@contextlib.contextmanager
def running(directory: Path, machines: Machines, *arguments: str) -> Iterator[tuple[Run, Seen]]:
    """A run with two workers on each of two machines, once all of them run tests."""
    with started(
        directory, SUITE, "--fkit", f"--fkit-machines={machines.option}", "-n2",
        "--fkit-machines-timeout=20", "--fkit-grace=5", *arguments, env=machines.environ,
    ) as run:  # fmt: skip
        seen = Seen(run)
        seen.wait(12, workers=4)
        yield run, seen


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
