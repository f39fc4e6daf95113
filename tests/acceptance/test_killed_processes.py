"""Whatever process of a run is killed, nothing is left, and every test is reported once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from inner_runs import Outcome, kill, run, started, wait_until

_PEOPLE = """
    import os, signal, subprocess, sys, time
    from pathlib import Path
    import psutil
    import pytest

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])

    def above(generations):
        process = psutil.Process()
        for _ in range(generations):
            process = process.parent()
        return process.pid

    host, keeper, worker, controller = 1, 2, 3, 4

    def start_everything():
        '''A daemon, a program that ignores SIGTERM, one in a session of its own.'''
        if os.fork() == 0:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(1000)
        os.wait()
        text = "import time; time.sleep(1000)"
        subprocess.Popen([sys.executable, "-c", text])
        subprocess.Popen([sys.executable, "-c", text], start_new_session=True)

    @pytest.fixture(scope="session")
    def wide():
        start_everything()
        yield

    def kill(generations):
        start_everything()
        os.kill(above(generations), signal.SIGKILL)
        while True:
            time.sleep(1000)
"""

_DEATHS = (
    _PEOPLE
    + """
    def test_first(wide):
        pass

    def test_kills_host(wide):
        kill(host)

    def test_kills_keeper(wide):
        kill(keeper)

    def test_between(wide):
        pass

    def test_kills_worker(wide):
        kill(worker)

    @pytest.mark.parametrize("number", range(10))
    def test_after(wide, number):
        pass

    @pytest.mark.fkit(isolation="module")
    def test_kills_itself_in_a_shared_host(wide):
        start_everything()
        os.kill(os.getpid(), signal.SIGKILL)

    @pytest.mark.fkit(isolation="module")
    def test_in_the_next_shared_host(wide):
        pass

    @pytest.fixture(scope="module")
    def kills_its_keeper():
        start_everything()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)

    def test_under_fixture_that_kills_the_keeper(kills_its_keeper):
        pass

    def test_last(wide):
        pass
"""
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(
        tmp_path_factory.mktemp("killed"),
        {"test_k.py": _DEATHS},
        *("--fkit", "-n2", "--fkit-timeout=20"),
    )


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        ("test_kills_host", "lost: its host process was ended by SIGKILL"),
        ("test_kills_keeper", "lost: its keeper process was ended by SIGKILL"),
        ("test_kills_worker", "lost: worker gw"),
        ("test_kills_itself_in_a_shared_host", "SIGKILL"),
        ("test_under_fixture_that_kills_the_keeper", "lost: its keeper process was ended by"),
    ],
)
def test_the_test_whose_process_was_killed_is_reported_as_lost(
    outcome: Outcome, name: str, headline: str
) -> None:
    assert outcome.reports(name).death["death"].startswith(headline)


@pytest.mark.parametrize(
    "name",
    [
        "test_first",
        "test_between",
        *(f"test_after[{number}]" for number in range(10)),
        "test_in_the_next_shared_host",
        "test_last",
    ],
)
def test_every_other_test_passes_once(outcome: Outcome, name: str) -> None:
    reports = outcome.reports(name).reports
    assert [(report["when"], report["outcome"]) for report in reports] == [
        ("setup", "passed"),
        ("call", "passed"),
        ("teardown", "passed"),
    ]


_AT_EXIT = (
    _PEOPLE
    + """
    import atexit

    def test_kills_host_at_its_exit(wide):
        atexit.register(os.kill, above(host), signal.SIGKILL)
"""
)

# The worker's own plugins hear of a death before the keeper is told which test follows.
_KILLS_KEEPER_THEN = """
    import os, psutil

    def pytest_runtest_logreport(report):
        if report.failed and "PYTEST_XDIST_WORKER" in os.environ:
            for keeper in psutil.Process().children():
                keeper.kill()
                while keeper.status() != psutil.STATUS_ZOMBIE:  # left for the worker to reap
                    pass
"""


def test_a_test_that_died_is_not_reported_again_for_its_keepers_death(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        {"conftest.py": _KILLS_KEEPER_THEN, "test_k.py": _AT_EXIT},
        *("--fkit", "-n1", "--fkit-timeout=20"),
    )
    reports = outcome.reports("test_kills_host_at_its_exit").reports
    assert [each["when"] for each in reports if each["outcome"] == "failed"] == ["teardown"]
    assert "its host process was ended by SIGKILL" in reports[-1]["death"]
    assert "after its death, its keeper process was ended by SIGKILL" in outcome.stdout, (
        outcome.stdout
    )


_WAITS = (
    _PEOPLE
    + """
    def test_waits(wide):
        start_everything()
        pids = [above(number) for number in range(5)]
        (DIRECTORY / "pids.part").write_text(" ".join(map(str, pids)))
        (DIRECTORY / "pids.part").rename(DIRECTORY / "pids.txt")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1000)

    def test_next():
        pass
"""
)


@pytest.mark.parametrize(
    ("workers", "generations"),
    [("-n0", 3), ("-n1", 4), ("-n2", 4)],
)
def test_nothing_outlives_a_killed_controller(
    tmp_path: Path, workers: str, generations: int
) -> None:
    with started(tmp_path, {"test_w.py": _WAITS}, "--fkit", workers) as inner:
        pids = [int(pid) for pid in inner.await_file("pids.txt").split()]
        assert pids[generations] == inner.process.pid
        assert len(inner.alive()) > generations + 6
        kill(inner.process.pid)
        assert inner.await_gone(2.0 + inner.slowness) == []


def test_run_ends_when_a_hanging_tests_worker_is_killed_from_outside(tmp_path: Path) -> None:
    with started(tmp_path, {"test_w.py": _WAITS}, "--fkit", "-n1") as inner:
        pids = [int(pid) for pid in inner.await_file("pids.txt").split()]
        kill(pids[3])
        limit = 2.0 + inner.slowness
        gone = wait_until(lambda: not {p.pid for p in inner.alive()} & set(pids[:4]), limit)
        outcome = inner.wait()
        assert gone
        assert inner.await_gone(0.5) == []
    assert outcome.reports("test_waits").death["death"].startswith("lost: worker gw0 died")
    assert outcome.reports("test_next").outcome == "passed"


def test_stopped_worker_does_not_keep_a_killed_run_alive(tmp_path: Path) -> None:
    with started(tmp_path, {"test_w.py": _WAITS}, "--fkit", "-n1") as inner:
        pids = [int(pid) for pid in inner.await_file("pids.txt").split()]
        os.kill(pids[3], signal.SIGSTOP)
        os.kill(pids[1], signal.SIGSTOP)
        kill(inner.process.pid)
        assert inner.await_gone(2.0 + inner.slowness) == []


_IMPATIENT = """
    from pytest_fkit.worker import keeper_link

    keeper_link.SILENCE = 2.0
"""

_SUSPENDS = (
    """
    from pytest_fkit.worker import keeper_link
    """
    + _PEOPLE
    + """
    def test_suspends_its_worker():
        time.sleep(0.5)  # nothing that it has not read shall be there when it goes on
        os.kill(above(worker), signal.SIGSTOP)
        time.sleep(keeper_link.SILENCE + 1)
        os.kill(above(worker), signal.SIGCONT)
        time.sleep(0.5)
"""
)


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_worker_that_was_suspended_finds_its_keeper_again(tmp_path: Path, workers: str) -> None:
    """As by Ctrl-Z, which stops all but the keeper and the processes below it."""
    suite = {"conftest.py": _IMPATIENT, "test_s.py": _SUSPENDS}
    outcome = run(tmp_path, suite, "--fkit", workers)
    assert outcome.status == 0, outcome.stdout
