"""Failures that are known: they are shown and counted, and the run does not fail for them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files
from journals import events, verdicts

from pytest_fkit.journal.command import main

SUITE = {
    "test_known.py": """\
import os, signal, time
import psutil, pytest

@pytest.mark.parametrize("name", ["1-a", "*"])
def test_fails(name): assert 0, "known"

def test_dies(): os.abort()

@pytest.mark.fkit(timeout=0.3)
def test_hangs(): time.sleep(60)

@pytest.fixture
def bad():
    yield
    raise OSError("at the end")

def test_fails_twice(bad): assert 0, "both"
def test_setup(nope): pass
def test_of_this_cause(): raise ValueError("number 3")
def test_not_run(): open("ran", "w").close()

@pytest.mark.skipif("not config.getvalue('fkit_start_method') == 'fork'", reason="")
def test_worker_dies():
    _, keeper, worker = psutil.Process().parents()[:3]
    os.kill(worker.pid, signal.SIGKILL)
    signal.pause()

def test_passes(): pass
""",
    "pytest.ini": "[pytest]\nfkit_quarantine = known.toml\n",
}


def entry(test: str, expires: str = "2999-12-31", **more: str) -> str:
    given = {"test": f"test_known.py::{test}", "issue": "https://i/1", "expires": expires, **more}
    return "[[quarantine]]\n" + "".join(
        f"{name} = {json.dumps(it)}\n" for name, it in given.items()
    )


ENTRIES = (
    entry("test_fails[[]*"), entry("test_fails[1-a]"), entry("test_fails[*]"), entry("test_dies"),
    entry("test_h*"), entry("test_fails_twice"), entry("test_set*p"), entry("test_worker_dies"),
    entry("test_of_this*", cause="ValueError: number *"), entry("test_not_run", mode="skip"),
    entry("test_passes", "2001-12-31"),
)  # fmt: skip
QUARANTINED = {
    "test_fails[1-a]", "test_fails[*]", "test_dies", "test_hangs", "test_fails_twice", "test_setup",
    "test_of_this_cause",
}  # fmt: skip


@pytest.fixture(scope="module", params=["fork", "spawn"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    directory = write_files(
        tmp_path_factory.mktemp("quarantine"), {**SUITE, "known.toml": "".join(ENTRIES)}
    )
    workers = "-n2" if request.param == "fork" else "-n0"
    # -x: what is quarantined is no failure at which to stop.
    ended = run_pytest(
        directory, "--fkit", workers, "-x", f"--fkit-start-method={request.param}",
        "--fkit-journal=run.jsonl", "--junitxml=junit.xml",
    )  # fmt: skip
    return Ran(directory, ended, {"test_worker_dies"} if request.param == "fork" else set())


class Ran:
    """A run with a quarantine.

    :param also: what else is quarantined in it.
    """

    def __init__(self, directory: Path, ended: InnerRun, also: set[str]) -> None:
        self.directory = directory
        self.ended = ended
        self.quarantined = QUARANTINED | also


def test_the_run_does_not_fail(ran: Ran) -> None:
    assert ran.ended.status == 0, ran.ended.out
    number = len(ran.quarantined)
    assert f" {number} quarantined" in ran.ended.lines[-1]
    assert "1 passed" in ran.ended.lines[-1]
    found = verdicts(ran.directory / "run.jsonl")
    named = {name.partition("::")[2] for name, word in found.items() if word == "quarantined"}
    assert named == ran.quarantined
    assert not (ran.directory / "ran").exists()


def test_what_failed_is_shown_with_its_issue(ran: Ran) -> None:
    text = ran.ended.out
    assert f"{len(ran.quarantined)} tests failed without failing the run:" in text
    for line in (
        "test_dies  SIGABRT at test_known.py:7 in test_dies  quarantined until 2999-12-31: https://i/1",
        "test_fails_twice  OSError: at the end at test_known.py in bad  quarantined until",
        "test_setup  fixture 'nope' not found  quarantined until",
    ):
        assert f"\n  test_known.py::{line}" in text
    assert "expired, and without effect:\n  test_known.py::test_passes  2001-12-31\n" in text
    assert "matching no test of this run:\n  test_known.py::test_fails[[]*\n" in text


def test_in_junit_each_is_skipped_once(ran: Ran) -> None:
    tree = ElementTree.parse(ran.directory / "junit.xml")
    cases = {str(each.get("name")): each for each in tree.iter("testcase")}
    for name in (*ran.quarantined, "test_not_run"):
        (skipped,) = cases[name].iter("skipped")
        assert str(skipped.get("message")).startswith("quarantined until 2999-12-31: https://i/1")
    (suite,) = tree.iter("testsuite")
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    journal, made = ran.directory / "run.jsonl", ran.directory / "made.xml"
    assert main(["junit", str(journal), "-o", str(made)]) == 0
    ours = ElementTree.parse(made)
    assert {
        str(case.get("name")) for case in ours.iter("testcase") if list(case.iter("skipped"))
    } == {name for name, case in cases.items() if list(case.iter("skipped"))}


def test_the_journal_keeps_what_the_report_said(ran: Ran) -> None:
    (died,) = (
        each
        for each in events(ran.directory / "run.jsonl", "verdict")
        if each["test"].endswith("::test_dies")
    )
    (report,) = (each for each in died["reports"] if "fkit_quarantined" in each)
    assert "Current thread" in report["text"]
    assert report["fkit_death"].startswith("SIGABRT")


def test_a_resumed_run_has_the_same_verdicts(ran: Ran) -> None:
    if ran.quarantined == QUARANTINED:
        return  # one of them will do
    again = run_pytest(ran.directory, "--fkit", "-n0", "-v", "--fkit-resume=run.jsonl")
    assert again.status == 0, again.out
    assert again.out.count(" QUARANTINED (resumed)") == len(ran.quarantined)


def test_another_cause_is_a_failure_and_a_check_tells_what_is_due(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toml = entry("test_of_this*", cause="KeyError*") + entry("test_passes") + entry("gone")
    directory = write_files(tmp_path, {**SUITE, "known.toml": toml})
    selected = [f"test_known.py::{name}" for name in ("test_of_this_cause", "test_passes")]
    ended = run_pytest(directory, "--fkit", "-n0", "--fkit-journal=run.jsonl", *selected)
    assert "1 failed, 1 passed" in ended.lines[-1]
    files = [str(directory / name) for name in ("known.toml", "run.jsonl")]
    assert main(["quarantine", "check", *files]) == 1
    assert capfd.readouterr().out.splitlines() == [
        "about no test of these runs:",
        "  test_known.py::gone  2999-12-31  https://i/1",
        "passed in all of these runs:",
        "  test_known.py::test_passes  2999-12-31  https://i/1",
    ]
    (directory / "known.toml").write_text("")
    assert main(["quarantine", "check", *files]) == 0
    assert capfd.readouterr().out == "there are no entries\n"


def test_a_file_that_is_no_quarantine_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_files(tmp_path, {**SUITE, "known.toml": "[[quarantine]]\ntest = 'x'\n"})
    ended = run_pytest(directory, "--fkit", "-n0", "--fkit-quarantine=known.toml")
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    said = f"{directory}/known.toml: entry 1 (x): 'expires': expected a day"
    assert f"--fkit-quarantine: {said}" in ended.err
    assert main(["quarantine", "check", str(directory / "known.toml"), "run.jsonl"]) == 2
    assert capsys.readouterr().err.startswith(f"fkit: {said}")
