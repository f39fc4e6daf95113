"""Ctrl-C and SIGTERM: the first ends tests and tears down within the grace, the second ends all."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from inner_runs import Outcome, Run, started

_SUITE = """
    import os, signal, subprocess, sys, time
    from pathlib import Path
    import pytest

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])

    def note(name, text="yes"):
        with open(DIRECTORY / name, "a") as file:
            file.write(text + chr(10))

    @pytest.fixture(scope="session")
    def wide():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        yield
        note("wide-ended.txt")

    @pytest.fixture(scope="module")
    def narrower(wide):
        yield
        note("narrower-ended.txt")

    @pytest.fixture
    def own():
        yield
        note("own-ended.txt")
"""

_SLEEPING = (
    _SUITE
    + """
    def test_sleeps(narrower, own):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        note("ready.txt")
        time.sleep(1000)

    @pytest.mark.parametrize("number", range(3))
    def test_not_run(number):
        note("went-on.txt")
"""
)

_DEAF = (
    _SUITE
    + """
    def test_deaf(narrower, own):
        signal.signal(signal.SIGINT, lambda *_: note("interrupted.txt"))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("ready.txt")
        while True:
            time.sleep(1000)
"""
)

_IN_SETUP = (
    _SUITE
    + """
    @pytest.fixture(scope="session")
    def slow(wide):
        note("ready.txt")
        time.sleep(1000)

    def test_waits(slow):
        note("went-on.txt")

    def test_not_run():
        note("went-on.txt")
"""
)

_IN_TEARDOWN = (
    _SUITE
    + """
    @pytest.fixture(scope="session")
    def hangs_at_its_end(wide):
        yield
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("hangs.txt")
        while True:
            time.sleep(1000)

    def test_sleeps(hangs_at_its_end):
        note("ready.txt")
        time.sleep(1000)
"""
)

_IN_COLLECTION = (
    _SUITE
    + """
    note("ready.txt")
    time.sleep(1000)

    def test_not_run():
        note("went-on.txt")
"""
)


def _interrupt(inner: Run, how: str) -> float:
    """Interrupt the run.

    :return: when.
    """
    now = time.monotonic()
    pid = inner.process.pid
    if how == "Ctrl-C":
        os.killpg(pid, signal.SIGINT)  # as a terminal does
    else:
        os.kill(pid, getattr(signal, how))
    return now


def _interrupted_outcome(inner: Run, since: float, limit: float) -> Outcome:
    """The outcome of a run, which has to be over within `limit` seconds on an idle machine."""
    limit += inner.slowness
    outcome = inner.wait(limit + 10)
    assert time.monotonic() - since < limit, outcome.stdout
    assert inner.await_gone(0.5 + inner.slowness) == []
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.stdout + outcome.stderr
    assert "INTERNALERROR" not in outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stderr
    return outcome


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
@pytest.mark.parametrize("how", ["SIGINT", "Ctrl-C", "SIGTERM"])
def test_first_ends_tests_and_tears_down(tmp_path: Path, workers: str, how: str) -> None:
    with started(tmp_path, {"test_i.py": _SLEEPING}, "--fkit", workers) as inner:
        inner.await_file("ready.txt")
        since = _interrupt(inner, how)
        _interrupted_outcome(inner, since, 10)
    for name in ("own", "narrower", "wide"):
        assert (tmp_path / f"{name}-ended.txt").read_text() == "yes\n"
    if workers == "-n0":
        assert not (tmp_path / "went-on.txt").exists()


_SHORT = """
import time
from pathlib import Path
import pytest

HERE = Path(__file__).parent

@pytest.fixture(scope="module")
def wide():
    yield
    time.sleep(0.2)
    with open(HERE / "torn-down.txt", "a") as file:
        file.write("x")

@pytest.mark.parametrize("number", range(200))
def test_it(wide, number):
    if number == 5:
        (HERE / "ready.txt").write_text("yes")
    time.sleep(0.05)
"""


@pytest.mark.parametrize("how", ["SIGINT", "Ctrl-C"])
def test_what_it_has_torn_down_is_not_interrupted(tmp_path: Path, how: str) -> None:
    """The order to stop comes again while the worker's tests are being torn down because of it."""
    suite = {f"test_{name}.py": _SHORT for name in "ab"}
    with started(tmp_path, suite, "--fkit", "-n2", "--dist=loadfile") as inner:
        inner.await_file("ready.txt")
        outcome = _interrupted_outcome(inner, _interrupt(inner, how), 10)
    assert "ERROR" not in outcome.stdout
    assert (tmp_path / "torn-down.txt").read_text() == "xx"


_AMONG_QUICK_ONES = """
import os, signal, time
import pytest

MAIN = os.getpid()  # it imports this, and forks what runs it

@pytest.mark.parametrize("number", range(300))
def test_quick(number):
    if number == 280:
        os.kill(MAIN, signal.SIGINT)
        time.sleep(1000)
"""


def test_interrupted_tests_of_one_process_keep_what_the_others_said(tmp_path: Path) -> None:
    """Of what they said much is not heard yet, and belongs to several of them."""
    with started(
        tmp_path, {"test_i.py": _AMONG_QUICK_ONES}, "--fkit", "-n0", "--fkit-isolation=session"
    ) as inner:
        outcome = _interrupted_outcome(inner, time.monotonic(), 30)
    phases = {
        name: [report["when"] for report in verdict.reports]
        for name, verdict in outcome.verdicts.items()
    }
    assert phases.pop("test_i.py::test_quick[280]") == ["setup"]
    complete = ["setup", "call", "teardown"]
    assert phases == {f"test_i.py::test_quick[{number}]": complete for number in range(280)}


_TO_THE_NEXT = """
import os, signal, time
import psutil
import pytest

@pytest.mark.parametrize("number", range(8))
def test_whose_written_pages_the_next_children_copy_ahead(number):
    pass

def test_interrupts_the_process_that_waits_for_the_next_test():
    me, since = psutil.Process(), time.monotonic()
    while time.monotonic() < since + 20:
        for sibling in me.parent().children():
            if sibling.pid != me.pid:
                sibling.send_signal(signal.SIGINT)
                return

def test_is_interrupted_before_it_begins():
    open("went-on.txt", "w").close()

def test_not_run():
    open("went-on.txt", "w").close()
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_process_that_waits_for_its_test_puts_the_interrupt_off(
    tmp_path: Path, workers: str
) -> None:
    with started(tmp_path, {"test_i.py": _TO_THE_NEXT}, "--fkit", workers) as inner:
        outcome = _interrupted_outcome(inner, time.monotonic(), 30)
    assert {v.outcome for v in outcome.verdicts.values()} == {"passed"}, outcome.stdout
    assert len(outcome.verdicts) == 9
    assert not (tmp_path / "went-on.txt").exists()


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_second_ends_everything_at_once(tmp_path: Path, workers: str) -> None:
    with started(tmp_path, {"test_i.py": _DEAF}, "--fkit", workers) as inner:
        inner.await_file("ready.txt")
        _interrupt(inner, "Ctrl-C")
        inner.await_file("interrupted.txt")
        _interrupt(inner, "Ctrl-C")
        assert inner.await_gone(2.0 + inner.slowness) == []
        _interrupted_outcome(inner, time.monotonic(), 2)


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_deaf_test_is_ended_so_that_wide_fixtures_can_be_torn_down_within_the_grace(
    tmp_path: Path, workers: str
) -> None:
    arguments = ("--fkit", workers, "--fkit-grace=2")
    with started(tmp_path, {"test_i.py": _DEAF}, *arguments) as inner:
        inner.await_file("ready.txt")
        since = _interrupt(inner, "SIGTERM")
        _interrupted_outcome(inner, since, 4.5)
    assert (tmp_path / "wide-ended.txt").exists()


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_grace_ends_wide_fixtures_that_hang(tmp_path: Path, workers: str) -> None:
    arguments = ("--fkit", workers, "--fkit-grace=1")
    with started(tmp_path, {"test_i.py": _IN_TEARDOWN}, *arguments) as inner:
        inner.await_file("ready.txt")
        since = _interrupt(inner, "Ctrl-C")
        inner.await_file("hangs.txt")
        _interrupted_outcome(inner, since, 3.5)


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_wide_fixture_that_is_being_set_up_is_interrupted(tmp_path: Path, workers: str) -> None:
    with started(tmp_path, {"test_i.py": _IN_SETUP}, "--fkit", workers) as inner:
        inner.await_file("ready.txt")
        since = _interrupt(inner, "Ctrl-C")
        _interrupted_outcome(inner, since, 10)
    assert (tmp_path / "wide-ended.txt").read_text() == "yes\n"
    assert not (tmp_path / "went-on.txt").exists()


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_collection_is_interrupted(tmp_path: Path, workers: str, how: str) -> None:
    with started(tmp_path, {"test_i.py": _IN_COLLECTION}, "--fkit", workers) as inner:
        inner.await_file("ready.txt")
        since = _interrupt(inner, how)
        _interrupted_outcome(inner, since, 6)
    assert not (tmp_path / "went-on.txt").exists()
