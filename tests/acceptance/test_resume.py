"""Runs that were killed and are resumed, and the shards of a CI matrix."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import chrome_trace
import inner_runs
import pytest
from inner import run_pytest, write_files
from journals import events, fkit, verdicts

from pytest_fkit.journal.command import main
from pytest_fkit.journal.reader import JournalError, read

SUITE = {
    "test_all.py": """\
import os
import pytest

@pytest.fixture(autouse=True)
def ran(request):
    with open(os.environ["RAN"], "a") as log: log.write(request.node.name + "\\n")

def test_passes(fkit_metrics):
    fkit_metrics["speed"] = 3
    print("output of the first run")
def test_fails(): assert 1 == 2, "first run"
def test_dies(): os.abort()
def test_skipped(): pytest.skip("for now")
@pytest.mark.xfail(reason="known")
def test_xfailed(): assert 0
@pytest.mark.xfail
def test_xpassed(): pass
@pytest.fixture
def bad():
    yield
    assert 0, "at the end"
def test_bad_teardown(bad): pass
def test_last(): pass
""",
}
FIRST = ("test_passes", "test_fails", "test_dies", "test_skipped", "test_bad_teardown")


def lines(ended_out: str, title: str) -> list[str]:
    """What a section of the terminal's output says."""
    found = ended_out.splitlines()
    (start,) = (i for i, line in enumerate(found) if f" {title} " in line)
    rest = found[start + 1 :]
    return rest[: next(i for i, line in enumerate(rest) if line.startswith("="))]


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_what_has_a_verdict_is_reported_and_not_run(tmp_path: Path, workers: str) -> None:
    directory = write_files(tmp_path, SUITE)
    env = {"RAN": str(tmp_path / "ran")}
    whole = run_pytest(directory, "--fkit", workers, env=env)
    selected = [f"test_all.py::{name}" for name in FIRST]
    run_pytest(directory, "--fkit", workers, "--fkit-journal=run.jsonl", *selected, env=env)
    with (directory / "run.jsonl").open("a") as file:
        file.write('{"event":"attempt","wall":1')  # as a SIGKILL in the middle of a write leaves it
    (tmp_path / "ran").unlink()
    resumed = run_pytest(
        directory, "--fkit", workers, "-v", "--fkit-resume=run.jsonl", "--junitxml=junit.xml",
        env=env,
    )  # fmt: skip
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran) == ["test_last", "test_xfailed", "test_xpassed"]
    assert resumed.status == whole.status == 1
    verdict = {nodeid: outcome for outcome, nodeid, _ in whole.reported}
    plain = replace(resumed, out=resumed.out.replace(" (resumed)", ""))
    assert {nodeid: outcome for outcome, nodeid, _ in plain.reported} == verdict
    # Twice in the lines of the tests and of the short summary; a skipped test is not named there.
    marked = Counter(line.count("(resumed)") for line in resumed.lines)
    assert marked[1] >= 2 * len(FIRST) - 1
    assert lines(resumed.out, "pytest-fkit: resumed") == [
        "5 tests were not run again: their verdicts are from run.jsonl",
        "3 tests not in the previous run",
    ]
    assert "test_all.py::test_passes PASSED (resumed)" in resumed.out
    assert "SIGABRT at test_all.py:12 in test_dies" in resumed.out
    junit = (directory / "junit.xml").read_text()
    assert junit.count('name="fkit_resumed"') == 5
    assert 'name="speed" value="3"' in junit
    # The short summary names no skipped test.
    # Of older versions it doesn't name one that passed unexpectedly, either.
    assert set(verdicts(directory / "run.jsonl")) == {
        *verdict,
        "test_all.py::test_skipped",
        "test_all.py::test_xpassed",
    }
    assert "resumed 1 time" in fkit(directory, "summary", "run.jsonl").stdout


_LISTENER = """\
import os
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    report.description, report.names, report.big = item.name, {report.when}, ["x" * 300_000]
    return report

def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with open("heard", "a") as file:
            print(report.nodeid, report.description, report.names, len(report.big), file=file)
"""


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_nothing_is_left_to_run_and_reports_have_what_plugins_added(
    tmp_path: Path, workers: str
) -> None:
    files = {"test_a.py": "def test_a(): pass\ndef test_b(): pass\n", "conftest.py": _LISTENER}
    directory = write_files(tmp_path, files)
    run_pytest(directory, "--fkit", workers, "--fkit-journal=run.jsonl")
    before = (directory / "heard").read_text().splitlines()
    again = run_pytest(directory, "--fkit", workers, "--fkit-resume=run.jsonl")
    assert again.status == 0, again.out
    assert "2 passed in" in again.lines[-1]
    heard = (directory / "heard").read_text().splitlines()
    assert len(before) == 6
    # What is as big as that is not in the journal.
    assert sorted(heard[6:]) == sorted(f"{line[:-1]}0" for line in before)


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_another_revision_of_the_suite_is_handled_and_said(tmp_path: Path, workers: str) -> None:
    before = {"test_a.py": "def test_stays(): pass\ndef test_goes(): assert 0\n"}
    after = {"test_a.py": "def test_comes(): pass\ndef test_stays(): assert 0\n"}
    directory = write_files(tmp_path, before)
    run_pytest(directory, "--fkit", workers, "--fkit-journal=run.jsonl")
    again = run_pytest(write_files(tmp_path, after), "--fkit", workers, "--fkit-resume=run.jsonl")
    assert again.status == 0, again.out
    assert "2 passed" in again.lines[-1]
    assert lines(again.out, "pytest-fkit: resumed") == [
        "1 test was not run again: its verdict is from run.jsonl",
        "1 test of run.jsonl not in this run:",
        "  test_a.py::test_goes",
        "1 test not in the previous run",
    ]
    summary = fkit(directory, "summary", "run.jsonl").stdout.splitlines()
    assert "2 tests: 2 passed" in summary
    assert summary[-2:] == [
        "1 test with a verdict, no longer in the suite:",
        "  test_a.py::test_goes",
    ]


def test_failures_of_the_first_run_do_not_stop_the_second(tmp_path: Path) -> None:
    files = {"test_a.py": "def test_a(): assert 0\n", "test_b.py": "def test_b(): pass\n"}
    directory = write_files(tmp_path, files)
    for workers in ("-n0", "-n1"):
        first = run_pytest(directory, "--fkit", workers, "-x", "--fkit-journal=run.jsonl")
        assert "1 failed" in first.lines[-1]
        (path,) = directory.glob("run.jsonl")
        assert verdicts(path) == {"test_a.py::test_a": "failed"}
        again = run_pytest(directory, "--fkit", workers, "-x", "--fkit-resume=run.jsonl")
        assert "1 failed, 1 passed" in again.lines[-1], again.out
        assert again.status == 1


def test_a_test_that_the_user_interrupted_has_no_verdict(tmp_path: Path) -> None:
    files = {"test_a.py": "def test_a(): pass\ndef test_b(): raise KeyboardInterrupt\n"}
    directory = write_files(tmp_path, files)
    for workers in ("-n0", "-n1"):
        run_pytest(directory, "--fkit", workers, "--fkit-journal=run.jsonl")
        assert verdicts(directory / "run.jsonl") == {"test_a.py::test_a": "passed"}
        assert [each["exitstatus"] for each in events(directory / "run.jsonl", "end")] == [2]


RUN = {"event": "run", "wall": 1.0, "format": "pytest-fkit journal", "schema": "1.0"}
ONE, OTHER = ({**RUN, "session": session, "id": session} for session in "ab")
UNUSABLE = {
    "no JSON": ("nonsense\n", "journal.jsonl:1: not a line of a journal: it is not JSON"),
    "empty": ("", "journal.jsonl: not a journal of pytest-fkit: it has no complete line"),
    "foreign": ('{"a": 1}\n', "journal.jsonl:1: not a line of a journal: it has no event, or no"),
    "no run": (
        '{"event":"end","wall":1}\n',
        "journal.jsonl:1: not a journal of pytest-fkit: it does not begin",
    ),
    "newer": (
        json.dumps({**RUN, "schema": "2.0"}) + "\n",
        "journal.jsonl:1: schema 2.0, where 1.0 can be read; a newer pytest-fkit wrote it",
    ),
    "mixed": (
        f"{json.dumps(ONE)}\n" + '{"event":"run","wall":1}\n',
        "journal.jsonl:2: not a journal of pytest-fkit, but another program's record",
    ),
    "infinite": (
        f'{json.dumps(ONE)}\n{{"event":"end","wall":1e999}}\n',
        "journal.jsonl:2: not a line of a journal: it is not JSON",
    ),
    "far future": (
        json.dumps({**ONE, "wall": 1e300}) + "\n",
        "journal.jsonl:1: not a line of a journal: 'run' with a missing or invalid 'wall'",
    ),
    "other fields": (
        f'{json.dumps(ONE)}\n{{"event":"verdict","wall":1,"test":"a","worker":"b","reports":[1]}}\n',
        "journal.jsonl:2: not a line of a journal: 'verdict' with a missing or invalid 'reports'",
    ),
    "garbage inside": (f"{json.dumps(ONE)}\n\0\0\n{json.dumps(ONE)}\n", "journal.jsonl:2: not a"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_is_no_journal_is_an_error_with_its_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    text, message = UNUSABLE[name]
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    monkeypatch.chdir(tmp_path)
    status = main(["summary", "journal.jsonl"])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith(f"fkit: {message}")
    if name in ("newer", "garbage inside"):  # a run reads it in the same way
        write_files(tmp_path, {"test_a.py": "def test_a(): pass\n"})
        run = run_pytest(tmp_path, "--fkit", "-n0", "--fkit-resume=journal.jsonl")
        assert run.status == pytest.ExitCode.USAGE_ERROR
        assert message in run.err
        assert path.read_text() == text


ODD = {
    "gz": (gzip.compress(b"x"), "gz: it is compressed; `gunzip` it first"),
    "utf-16": ("{}\n".encode("utf-16"), "utf-16:1: not a line of a journal: it is not JSON"),
    "zeros": (b"\0" * 999 + b"\n", "zeros:1: not a line of a journal: it is not JSON"),
    "nested": (
        json.dumps(ONE).encode() + b"\n" + b"[" * 100_000 + b"\n",
        "nested:2: not a line of a journal: it is not JSON",
    ),
    "odd-version": (
        json.dumps({**ONE, "schema": "²"}).encode() + b"\n",
        "odd-version:1: schema ², where 1.0 can be read",
    ),
    "missing": (
        json.dumps(ONE).encode() + b'\n{"event":"attempt","wall":1,"worker":"gw0"}\n',
        "missing:2: not a line of a journal: 'attempt' with a missing or invalid 'test'",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_errors_with_their_line(tmp_path: Path, name: str) -> None:
    data, message = ODD[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(JournalError) as raised:
        read(path)
    assert str(raised.value) == f"{tmp_path}/{message}"


def test_a_directory_is_an_error(tmp_path: Path) -> None:
    ended = fkit(tmp_path, "summary", ".")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "fkit: .: can't be read: Is a directory\n"


def test_a_missing_file_and_one_given_twice_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ONE) + "\n")
    assert fkit(tmp_path, "summary", "none.jsonl").returncode == 2
    ended = fkit(tmp_path, "merge", "a.jsonl", "a.jsonl")
    assert ended.returncode == 2
    assert ended.stderr == "fkit: a.jsonl: has the same run as a.jsonl; give one of them\n"


def test_arguments_that_make_no_sense_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ONE) + "\n")
    ended = fkit(tmp_path, "slowest", "-n", "-5", "a.jsonl")
    assert ended.returncode == 2
    assert "'-5' is not a number of tests" in ended.stderr
    ended = fkit(tmp_path, "csv", "a.jsonl", "-o", "no/where")
    assert ended.returncode == 2
    assert ended.stderr == "fkit: no/where: can't be written: No such file or directory\n"


def test_what_a_later_version_adds_is_ignored(tmp_path: Path) -> None:
    added = {"event": "gpu_probe", "wall": 2.0, "worker": "gw0"}
    run = {**ONE, "schema": "1.7", "devices": ["H100"]}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(run)}\n{json.dumps(added)}\n")
    for command in ("summary", "slowest", "trace", "csv", "merge"):
        assert fkit(tmp_path, command, "a.jsonl").returncode == 0


def test_merged_journals_are_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(ONE)}\n{json.dumps(OTHER)}\n")
    ended = run_pytest(tmp_path, "--fkit", "-n0", "--fkit-resume=a.jsonl")
    assert "holds 2 runs, merged" in ended.err


def test_one_verdict_per_worker_is_not_gone_on_with(tmp_path: Path) -> None:
    directory = write_files(tmp_path, {"test_a.py": "def test_a(): pass\n"})
    each = ("--fkit", "--dist=each", "--tx=2*popen")
    ended = run_pytest(directory, *each, "--fkit-journal=run.jsonl")
    assert ended.status == 0, ended.out + ended.err
    found = events(directory / "run.jsonl", "verdict")
    assert [verdict["test"] for verdict in found] == ["test_a.py::test_a"] * 2
    before = (directory / "run.jsonl").read_text()
    for arguments, said in (
        (each, "leave out --dist=each, or start again with --fkit-journal"),
        (("--fkit", "-n1"), "run.jsonl is of a run with --dist=each"),
    ):
        again = run_pytest(directory, *arguments, "--fkit-resume=run.jsonl")
        assert again.status == pytest.ExitCode.USAGE_ERROR
        assert said in again.err
        assert (directory / "run.jsonl").read_text() == before


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    waits = (
        "import os, time\ndef test_a():\n    open('started', 'w').write('1')\n    time.sleep(60)\n"
    )
    (tmp_path / "outer").mkdir()
    with inner_runs.started(
        tmp_path / "outer", {"test_a.py": waits}, "--fkit", "-n0", "--fkit-journal=run.jsonl"
    ) as run:
        run.await_file("started")
        second = run_pytest(run.directory, "--fkit", "-n0", "--fkit-journal=run.jsonl")
        assert second.status == pytest.ExitCode.USAGE_ERROR
        assert "another run writes it" in second.err


MATRIX = """\
import os, pytest, time

@pytest.mark.parametrize("number", range(24))
def test_it(number):
    with open(os.environ["RAN"], "a") as log: log.write(f"{number}\\n")
    time.sleep(0.05)
    assert number != 7
"""


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_matrix_of_shards_one_of_which_is_killed(tmp_path: Path, workers: str) -> None:
    pytest.importorskip("pytest_split")
    nodeids = [f"test_matrix.py::test_it[{number}]" for number in range(24)]
    durations = json.dumps(dict.fromkeys(nodeids, 0.05))
    ini = "[pytest]\nfkit_start_method = fork\n"
    files = {"test_matrix.py": MATRIX, ".test_durations": durations, "pytest.ini": ini}
    env = {"RAN": str(tmp_path / "ran")}
    shard = ("--fkit", workers, "--splits", "2")
    killed = tmp_path / "killed"
    killed.mkdir()
    arguments = (*shard, "--group", "1", "--fkit-journal=../shard-1.jsonl")
    journal = tmp_path / "shard-1.jsonl"
    with inner_runs.started(killed, files, *arguments, env=env) as run:
        there = inner_runs.wait_until(
            lambda: journal.exists() and journal.read_bytes().count(b'"event":"verdict"') > 2, 60
        )
        assert there, run.output()
        inner_runs.kill(run.process.pid)
        run.process.wait()
        assert not run.await_gone(10)
    before = set(verdicts(journal))
    planned = events(journal, "collection")[0]["nodeids"]
    assert 2 < len(before) < len(planned) < 24
    told = fkit(tmp_path, "summary", "shard-1.jsonl").stdout
    assert "cut off" in told
    assert f"{len(planned) - len(before)} tests without a verdict:" in told
    run_pytest(killed, *shard, "--group", "1", "--fkit-resume=../shard-1.jsonl", env=env)
    run_pytest(killed, *shard, "--group", "2", "--fkit-journal=../shard-2.jsonl", env=env)

    times = Counter((tmp_path / "ran").read_text().split())
    assert all(times[nodeid.partition("[")[2][:-1]] == 1 for nodeid in before)
    merged = fkit(tmp_path, "merge", "shard-2.jsonl", "shard-1.jsonl", "-o", "run.jsonl")
    assert merged.returncode == 0, merged.stderr
    found = verdicts(tmp_path / "run.jsonl")
    assert sorted(found) == sorted(nodeids)
    assert [nodeid for nodeid, outcome in found.items() if outcome != "passed"] == [nodeids[7]]
    summary = fkit(tmp_path, "summary", "run.jsonl").stdout.splitlines()
    assert "together: 24 tests: 1 failed, 23 passed" in summary
    assert sum("without a verdict" in line for line in summary) == 0
    assert fkit(tmp_path, "trace", "run.jsonl", "-o", "trace.json").returncode == 0
    trace = chrome_trace.slices(chrome_trace.load(tmp_path / "trace.json"), "test")
    assert sorted(each["name"] for each in trace) == sorted(nodeids)


def test_the_script_stops_where_its_reader_does(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ONE) + "\n")
    script = Path(sys.executable).with_name("fkit")
    assert os.system(f"cd {tmp_path} && {script} csv a.jsonl | true") == 0
