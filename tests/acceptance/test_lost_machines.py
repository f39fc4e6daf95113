"""What becomes of a run whose workers elsewhere are lost, one by one or all at once.

`tests/machines` has what is lost more rarely.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

import psutil
import pytest
from far_machines import Machines, by_each_engine
from inner_runs import run
from slurm_cluster import Cluster
from watched_runs import TESTS, Seen, check, running

KILLS = 20

machines = by_each_engine


def test_workers_that_are_lost_one_by_one(machines: Machines, tmp_path: Path) -> None:
    """A connection is cut, a worker is stopped, and processes are killed at random."""
    chosen = random.Random(19)
    with running(tmp_path, machines, "--fkit-worker-timeout=5") as (run, seen):
        cut, pid, step = seen.last("n2")
        machines.cut(pid, step)
        stopped, pid, _ = seen.last("n1")
        os.kill(pid, signal.SIGSTOP)
        for number in range(KILLS):
            seen.wait(12 + 3 * number)
            seen.kill_any(chosen, spared=pid)
        failed, printed = check(run, machines)
    assert f"replacing crashed worker {cut}\n" in printed
    assert sum(f"worker {cut} died" in each for each in failed) == 1, failed
    silent = f"worker {stopped} was killed: it had not answered for 5 s"
    assert sum(silent in each for each in failed) == 1, failed
    # A machine that has a lot to do may be silent, too.
    assert len(failed) <= KILLS + 1 + printed.count(" has not answered for 5 s")


def lose_daemon(slurm: Cluster, seen: Seen) -> None:
    """A node is lost without a word to Slurm, with the workers on it."""
    os.kill(slurm.pid("n2"), signal.SIGKILL)
    for pid in seen.pids("n2"):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


def test_machines_that_leave(machines: Machines, tmp_path: Path) -> None:
    with running(tmp_path, machines) as (run, seen):
        if machines.slurm:
            lose_daemon(machines.slurm, seen)
            seen.wait(len(seen.lines("n1")) + 20, node="n1")  # it goes on
        machines.leave()
        if machines.slurm:
            machines.slurm.start_node("n2")  # which ends what is left of the steps there
        failed, printed = check(run, machines)
    assert len(failed) > TESTS / 2
    assert sum("is lost: " in each for each in failed) > TESTS / 2 - 4
    assert "n1 is lost: " in printed or "n2 is lost: " in printed


CLIENT = """\
#!/bin/sh
# Reaches a machine; what it reaches ends as soon as it is asked for its cores, some of the times.
number=$(ls -d reached-* 2>/dev/null | wc -l)
mkdir "reached-$number"
case $number in $1) export PYTHONPATH="$PWD/ends" ;; esac
shift
exec "$@"
"""


@pytest.mark.parametrize(
    ("times", "reached", "said"),
    [("2", 4, ""), ("[2-9]", 6, "n1 is lost: ")],  # the first one is asked, the second one runs
    ids=["once", "always"],
)
def test_a_connection_that_is_lost_before_the_worker_starts(
    times: str, reached: int, said: str, tmp_path: Path
) -> None:
    suite = {
        "client": CLIENT,
        "test_a.py": """\
            import os, signal

            def test_a():
                os.kill(int(os.environ["FKIT_WORKER_PID"]), signal.SIGKILL)

            def test_b():
                pass
        """,
        "conftest.py": "import os; os.environ['FKIT_WORKER_PID'] = str(os.getpid())\n",
    }
    ends = tmp_path / "ends"
    ends.mkdir()
    (ends / "sitecustomize.py").write_text("import os; os.sched_getaffinity = os._exit\n")
    machines = f"--fkit-machines=exec:n1 sh ./client {times} {{python}}"
    outcome = run(tmp_path, suite, "--fkit", machines, "-n1")
    assert len([*tmp_path.glob("reached-*")]) == reached
    assert outcome.reports("test_a").outcome == "failed", outcome.stdout
    assert outcome.reports("test_b").outcome == ("failed" if said else "passed"), outcome.stdout
    assert said in outcome.stdout
