"""--fkit-repeat: each repetition in a process of its own, and one verdict on all of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from inner import InnerRun, run_pytest, write_files
from inner_runs import started
from journals import events, verdicts

from pytest_fkit.journal.command import main
from pytest_fkit.protocol.repetitions import FRESH_EVERY, is_fresh, seed_of

CONFTEST = """\
import pathlib
import pytest

def note(name, text="x"):
    with open(pathlib.Path(__file__).with_name(name), "a") as file:
        file.write(text + chr(10))

def pytest_runtest_logreport(report):
    note("heard.log", f"{report.nodeid} {report.when}")

@pytest.fixture
def own():
    yield
    note("own.log")
"""

FLAKES = {
    "conftest.py": CONFTEST,
    "test_flakes.py": """\
import os, random
import pytest

@pytest.fixture(scope="module")
def wide():
    from conftest import note
    note("wide.log")

def test_random(wide, own, tmp_path):
    assert random.random() >= 0.1

def test_hashes(wide):
    assert next(iter(set("abcdefghij"))) != os.environ["ROTTEN"]
""",
}


def first_of_set(hash_seed: int) -> str:
    return subprocess.run(
        [sys.executable, "-S", "-c", "print(next(iter(set('abcdefghij'))))"],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)}, capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip


def fails(seed: int, times: int, below: float = 0.1) -> list[int]:
    """The repetitions in which the first random number is that small."""
    draws = (random.Random(seed_of(seed, each)).random() for each in range(times))
    return [number for number, drawn in enumerate(draws) if drawn < below]


class Found(NamedTuple):
    """A run in which flakes were looked for.

    :param rotten: the repetitions, in fresh interpreters, in which hashes are in the wrong order.
    """

    directory: Path
    run: InnerRun
    seed: int
    rotten: list[int]


TIMES = 2 * FRESH_EVERY


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A flake of 10 % by random, and one by the order of hashes, in which one of ten is first."""
    directory = write_files(tmp_path_factory.mktemp("repeat"), FLAKES)
    common = first_of_set(0)
    for seed in filter(lambda each: fails(each, TIMES), range(100)):
        firsts = {
            each: first_of_set(seed_of(seed, each)) for each in range(TIMES) if is_fresh(each)
        }
        rotten = firsts[TIMES - 1]
        if rotten != common and list(firsts.values()).count(rotten) == 1:
            break
    ended = run_pytest(
        directory, "--fkit", "-n2", f"--fkit-repeat={TIMES}", f"--fkit-repeat-seed={seed}",
        "--fkit-journal=run.jsonl", "--junitxml=junit.xml",
        env={"ROTTEN": rotten, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    assert ended.status == 1, ended.out
    return Found(directory, ended, seed, [TIMES - 1])


def repeated(directory: Path) -> dict[str, dict[str, Any]]:
    """What the journal says of all repetitions, by the name of the test."""
    found = events(directory / "run.jsonl", "verdict")
    return {each["test"].rpartition("::")[2]: each["repeated"] for each in found}


def test_a_flake_is_found_within_its_interval(found: Found) -> None:
    expected = {"test_random": fails(found.seed, TIMES), "test_hashes": found.rotten}
    for name, said in repeated(found.directory).items():
        failed = len(expected[name])
        assert (said["times"], said["failed"], said["fresh"]) == (TIMES, failed, 2)
        assert said["low"] <= 10 <= said["high"]
        rate = f"failed {failed} of {TIMES} ({100 * failed / TIMES:g} %, 95 %: "
        assert f"test_flakes.py::{name}  {rate}" in found.run.out
    # The verdict is the report on the first failure, of those that were made at the same time.
    assert repeated(found.directory)["test_hashes"]["first"] == TIMES - 1
    seed = seed_of(found.seed, TIMES - 1)
    assert (
        f"again: PYTHONHASHSEED={seed} pytest --fkit --fkit-repeat=1 --fkit-repeat-seed={seed} "
        in (found.run.out)
    )


def test_all_who_hear_reports_hear_of_one_verdict(found: Found) -> None:
    phases = ("setup", "call", "teardown")
    names = ("test_random", "test_hashes")
    assert sorted((found.directory / "heard.log").read_text().splitlines()) == sorted(
        f"test_flakes.py::{name} {when}" for name in names for when in phases
    )
    cases = ElementTree.parse(found.directory / "junit.xml").findall(".//testcase")
    assert sorted(case.get("name", "") for case in cases) == sorted(names)
    assert all(case.find(".//property[@name='fkit_repeated']") is not None for case in cases)
    assert found.run.outcomes == {f"test_flakes.py::{name}": "FAILED" for name in names}


def test_each_has_a_process_of_its_own_and_wide_fixtures_are_set_up_as_usual(found: Found) -> None:
    attempts = events(found.directory / "run.jsonl", "attempt")
    by_test: dict[str, list[int]] = {}
    for each in attempts:
        about = each["repetition"]
        by_test.setdefault(each["test"], []).append(about["number"])
        assert about["seed"] == seed_of(found.seed, about["number"])
        assert about["fresh"] == is_fresh(about["number"])
    assert [sorted(each) for each in by_test.values()] == [list(range(TIMES))] * 2
    assert len({each["pid"] for each in attempts}) == len(attempts)
    assert len({each["worker"] for each in attempts}) == 2
    # Once for each worker, and in each fresh interpreter.
    assert len((found.directory / "wide.log").read_text().splitlines()) <= 2 + 4
    # Also where the next one is a repetition of the same test.
    assert len((found.directory / "own.log").read_text().splitlines()) == TIMES


def test_commands_know_repetitions_of_runs_that_were_cut_off_too(
    found: Found, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    whole = found.directory / "run.jsonl"
    cut = tmp_path / "cut.jsonl"
    lines = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(line for line in lines if b'"event":"verdict"' not in line))

    def said(*arguments: object) -> str:
        assert main([*map(str, arguments)]) == 0
        return capsysbinary.readouterr().out.decode()

    for path in (whole, cut):
        summary = said("summary", path)
        assert f"test_flakes.py::test_hashes  failed 1 of {TIMES} (5 %, 95 %: " in summary
        assert set(said("failed", path).split()) == set(verdicts(whole))
        assert b"stands" not in path.read_bytes() or path is whole
    assert "2 tests without a verdict:" in said("summary", cut)
    assert len(json.loads(said("summary", "--format=json", whole))["repeated"]) == 2
    assert said("junit", whole).count('name="fkit_repeated"') == 2
    assert said("html", whole).count("test_hashes") > 0


ENDINGS = """\
import os, random, signal, threading, time
import psutil, pytest

@pytest.fixture(autouse=True)
def unlucky(): return random.random() < 0.3

def test_dies(unlucky):
    if unlucky: os.kill(os.getpid(), signal.SIGSEGV)

@pytest.mark.fkit(timeout=0.5)
def test_hangs(unlucky):
    if unlucky: time.sleep(60)

def test_worker_dies(unlucky):
    if unlucky:
        _, keeper, worker = psutil.Process().parents()[:3]
        os.kill(worker.pid, signal.SIGKILL)
        signal.pause()

def test_quarantined(unlucky): assert not unlucky

def test_sometimes_skipped(unlucky):
    if unlucky: pytest.skip("today")

@pytest.mark.xfail
def test_xfails(): assert 0

@pytest.fixture
def at_end(unlucky):
    yield
    assert not unlucky

def test_teardown(at_end): pass

@pytest.mark.fkit(isolation="class")
class TestTogether:
    def test_one(self): TestTogether.made = True
    def test_two(self): assert TestTogether.made
"""

SHARED = """\
import random, threading
import pytest

@pytest.fixture(scope="module")
def thread():
    stop = threading.Event()
    started = threading.Thread(target=stop.wait)
    started.start()
    yield
    stop.set()

class TestSharedByFixture:
    def test_method(self, thread):
        assert not hasattr(self, "ran")
        self.ran = True
        assert random.random() >= 0.3
"""

QUARANTINE = """\
[[quarantine]]
test = "test_endings.py::test_quarantined"
issue = "https://i/1"
expires = "2999-12-31"
"""


def test_however_repetitions_end_they_are_counted(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"test_endings.py": ENDINGS, "test_shared.py": SHARED, "known.toml": QUARANTINE}
    )
    times = FRESH_EVERY - 1
    seed = next(each for each in range(99) if 1 < len(fails(each, times, 0.3)) < 4)
    ended = run_pytest(
        tmp_path, "--fkit", "-n2", f"--fkit-repeat={times}", f"--fkit-repeat-seed={seed}",
        "--fkit-journal=run.jsonl", "--fkit-quarantine=known.toml",
    )  # fmt: skip
    assert ended.status == 1
    said = repeated(tmp_path)
    unlucky = len(fails(seed, times, 0.3))
    for name in ("dies", "hangs", "worker_dies", "quarantined", "teardown", "method"):
        assert said[f"test_{name}"]["failed"] == unlucky, (name, ended.out)
    assert all(each["times"] == times for each in said.values() if "once" not in each)
    assert said["test_sometimes_skipped"]["others"] == {"skipped": unlucky}
    assert said["test_xfails"]["others"] == {"xfailed": times}
    assert said["test_method"]["shared"] == times
    assert {name for name, each in said.items() if "once" in each} == {"test_one", "test_two"}
    assert verdicts(tmp_path / "run.jsonl") == {
        "test_endings.py::test_dies": "error",
        "test_endings.py::test_hangs": "error",
        "test_endings.py::test_worker_dies": "error",
        "test_endings.py::test_quarantined": "quarantined",
        "test_endings.py::test_sometimes_skipped": "passed",
        "test_endings.py::test_xfails": "xfailed",
        "test_endings.py::test_teardown": "error",
        "test_shared.py::TestSharedByFixture::test_method": "failed",
        "test_endings.py::TestTogether::test_one": "passed",
        "test_endings.py::TestTogether::test_two": "passed",
    }


STOPS = """\
import random
import pytest
def test_passes(): open("ran.txt", "a").write("x")
def test_fails(): assert random.random() >= 0.3
"""


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--fkit-repeat=until-failure",), "a test failed"),
        (("--fkit-repeat=1000000", "-x"), "1 failing test ends the run"),
    ],
)
def test_it_ends_when_it_is_enough(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    write_files(tmp_path, {"test_stops.py": STOPS})
    order = ("test_stops.py::test_fails", "test_stops.py::test_passes")
    ended = run_pytest(tmp_path, "--fkit", "-n1", *arguments, *order)
    assert ended.status == 1, ended.out
    assert f": {reason}\n" in ended.out
    assert ended.outcomes["test_stops.py::test_fails"] == "FAILED"


def test_after_ctrl_c_there_are_verdicts_on_what_was_run(tmp_path: Path) -> None:
    arguments = ("--fkit", "-n1", "--fkit-repeat=1000000", "--junitxml=junit.xml")
    with started(tmp_path, {"test_stops.py": STOPS}, *arguments, "-k", "passes") as inner:
        inner.await_file("ran.txt")
        inner.process.send_signal(signal.SIGINT)
        outcome = inner.wait()
        assert inner.await_gone(0.5) == []
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome.stdout
    assert list(outcome.verdicts) == ["test_stops.py::test_passes"]
    assert "1000000: the run was stopped" in outcome.stdout
    assert len(ElementTree.parse(tmp_path / "junit.xml").findall(".//testcase")) == 1


def test_workers_elsewhere_repeat_tests_too(tmp_path: Path) -> None:
    body = """
        import os
        import pytest

        def test_it():
            assert os.environ["MACHINE"] == os.environ["FKIT_MACHINE"]
    """
    ended = run_pytest(
        write_files(tmp_path, {"test_it.py": textwrap.dedent(body)}),
        "--fkit", "-n1", "--fkit-repeat=3",
        "--fkit-machines=exec:one,two env MACHINE={machine} {python}",
    )  # fmt: skip
    assert "fkit: one gw0 | two gw1" in ended.out
    assert "test_it.py::test_it  failed 0 of 3" in ended.out
