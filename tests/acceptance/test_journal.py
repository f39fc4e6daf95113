"""The journal, the trace, and what else is told of what each test used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import chrome_trace
import pytest
from inner import run_pytest, write_files
from journals import attempt, events, fkit, verdicts

SUITE = {
    "test_all.py": """\
import os, subprocess, sys, time
import pytest

@pytest.fixture(scope="module")
def wide():
    time.sleep(0.05)
    yield 1
    print("wide is over")

def test_passes(wide): print("said \\u2713")
def test_fails():
    print("password='hunter2'")
    assert 1 == 2
def test_dies(fkit_metrics):
    fkit_metrics["tokens_per_s"] = 12.5
    fkit_metrics["gone"] = 1
    del fkit_metrics["gone"]
    fkit_metrics["name \\u2713"] = "\\ud800 <a>"
    os.abort()
def test_skipped(): pytest.skip("for now")
@pytest.mark.xfail(reason="known")
def test_xfailed(): assert 0
@pytest.mark.fkit(timeout=0.3)
def test_hangs(): time.sleep(60)
@pytest.fixture
def bad():
    yield
    raise RuntimeError("at the end")
def test_bad_teardown(bad): pass
@pytest.mark.parametrize("text", ["caf\\u00e9 </script> \\" \\\\ \\u2028 \\n"])
def test_named(text): print("x" * 50_000)
def test_writes():
    with open(os.devnull, "wb", buffering=0) as file: file.write(bytes(1_000_000))
    end = time.process_time() + 0.2
    while time.process_time() < end: pass
def test_memory(): bytearray(b"x") * 100_000_000
def test_metrics(fkit_metrics):
    assert dict(fkit_metrics) == {}
    fkit_metrics["n"] = 1
    fkit_metrics["n"] = 2
    fkit_metrics["inf"] = float("inf")
    fkit_metrics["yes"] = True
    for wrong in (None, [1], 1j, object()):
        with pytest.raises(TypeError, match="has to be|a str, bool, int or float, not"):
            fkit_metrics["wrong"] = wrong
    with pytest.raises(TypeError, match="a name has to be a str, not int"):
        fkit_metrics[1] = 1
    assert dict(fkit_metrics) == {"n": 2, "inf": float("inf"), "yes": True}

@pytest.mark.fkit(isolation="class")
class TestShared:
    def test_first(self): bytearray(b"x") * 80_000_000
    def test_second(self): pass
""",
}
VERDICTS = {
    "test_passes": "passed", "test_fails": "failed", "test_dies": "error",
    "test_skipped": "skipped", "test_xfailed": "xfailed", "test_hangs": "error",
    "test_bad_teardown": "error", "test_writes": "passed", "test_memory": "passed",
    "test_metrics": "passed", "TestShared::test_first": "passed",
    "TestShared::test_second": "passed",
}  # fmt: skip


@pytest.fixture(scope="module", params=["-n0", "-n2"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_files(tmp_path_factory.mktemp("journal"), SUITE)
    ended = run_pytest(
        directory, "--fkit", request.param, "--fkit-journal=made/run.jsonl",
        "--fkit-trace=trace.json", "--fkit-html=report.html", "--fkit-top=2",
        "--junitxml=junit.xml",
    )  # fmt: skip
    (directory / "output.txt").write_text(ended.out)
    assert ended.status == 1, ended.out + ended.err
    return directory


@pytest.fixture
def journal(recorded: Path) -> Path:
    return recorded / "made" / "run.jsonl"


def test_every_test_has_its_verdict(journal: Path) -> None:
    found = {nodeid.partition("::")[2]: outcome for nodeid, outcome in verdicts(journal).items()}
    (named,) = (name for name in found if name.startswith("test_named["))
    assert found.pop(named) == "passed"
    assert found == VERDICTS


def test_the_report_is_made_and_nothing_tells_a_secret(recorded: Path, journal: Path) -> None:
    assert f"fkit: report in {recorded}/report.html" in (recorded / "output.txt").read_text()
    assert "<title>4 red tests of 13</title>" in (recorded / "report.html").read_text()
    for path in (journal, recorded / "report.html", recorded / "trace.json"):
        assert "hunter2" not in path.read_text()
    assert "password='***'" in journal.read_text()


def test_every_event_has_two_times_and_the_run_comes_first(journal: Path) -> None:
    found = events(journal)
    assert all(
        isinstance(each["wall"], float) and isinstance(each["mono"], float) for each in found
    )
    assert [each["event"] for each in found].count("run") == 1
    assert (found[0]["event"], found[-1]["event"]) == ("run", "end")
    assert found[0]["schema"] == "1.0"
    assert found[0]["versions"]["pytest"] == pytest.__version__
    assert found[-1]["exitstatus"] == 1
    (collection,) = (each for each in found if "nodeids" in each)
    assert sorted(collection["nodeids"]) == sorted(verdicts(journal))


def test_an_attempt_tells_process_phases_and_ending(journal: Path) -> None:
    passed, dead = attempt(journal, "test_passes"), attempt(journal, "test_dies")
    assert passed["pid"] != dead["pid"]
    assert [each["when"] for each in passed["phases"]] == ["setup", "call", "teardown"]
    assert passed["ending"]["type"] == "Finished"
    (setup,) = (each for each in passed["wide"] if each["what"] == "setup")
    assert setup["label"] == "module-scoped fixture 'wide'"
    assert setup["duration"] >= 0.05
    # The fixture was set up by another process, before the test's own began.
    assert passed["duration"] < 0.05 or passed["start"] >= setup["start"] + setup["duration"]
    assert dead["ending"]["title"] == "SIGABRT"
    assert dead["ending"]["signal"] == 6
    assert [(each["when"], each["outcome"]) for each in dead["phases"]] == [
        ("setup", "passed"),
        ("call", "died"),
    ]
    assert attempt(journal, "test_hangs")["ending"]["type"] == "TimedOut"


def test_an_attempt_tells_what_was_used(journal: Path) -> None:
    busy, quiet = attempt(journal, "test_writes"), attempt(journal, "test_skipped")
    assert busy["user"] + busy["system"] >= 0.2
    if sys.platform.startswith("linux"):
        assert busy["written"] - quiet["written"] >= 990_000
        assert busy["read"] >= 0
    big = attempt(journal, "test_memory")
    assert big["peak_memory"] - quiet["peak_memory"] > 80_000_000
    assert big["minor_faults"] >= 0
    assert big["major_faults"] >= 0
    assert "user" in attempt(journal, "test_dies")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are never reset elsewhere")
def test_tests_of_one_process_are_told_apart(journal: Path) -> None:
    first = attempt(journal, "TestShared::test_first")
    second = attempt(journal, "TestShared::test_second")
    if first["worker"] != second["worker"]:
        pytest.skip("xdist gave them to two workers")
    assert first["pid"] == second["pid"] > 0
    assert first["peak_memory"] - second["peak_memory"] > 60_000_000
    assert second["user"] + second["system"] < 0.2


DEATHS = """\
import os, subprocess, sys, time
import pytest

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass

@pytest.mark.fkit(isolation="class")
class TestShared:
    def test_first(self):
        burn(0.6)
        bytearray(b"x") * 300_000_000
    def test_dies(self):
        burn(0.1)
        with open(os.devnull, "wb", buffering=0) as file: file.write(bytes(1_000_000))
        block = bytearray(b"x") * 100_000_000
        os.abort()

@pytest.fixture(scope="module")
def dies():
    burn(0.3)
    os.abort()

def test_of_a_fixture_that_dies(dies): pass
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_test_in_which_a_shared_process_died_has_its_share(tmp_path: Path, method: str) -> None:
    directory = write_files(tmp_path, {"test_a.py": DEATHS})
    journal = directory / "run.jsonl"
    ended = run_pytest(
        directory, "--fkit", "-n0", "--fkit-journal=run.jsonl", f"--fkit-start-method={method}"
    )
    assert ended.status == 1, ended.out
    first, dead = attempt(journal, "TestShared::test_first"), attempt(journal, "test_dies")
    if method == "fork":
        assert first["pid"] == dead["pid"]
    assert dead["ending"]["title"] == "SIGABRT"
    assert 0.1 <= dead["user"] + dead["system"] < 0.6
    assert dead["minor_faults"] > 0
    if sys.platform.startswith("linux"):
        assert 100_000_000 < dead["peak_memory"] < 300_000_000
        assert 1_000_000 <= dead["written"] < 2_000_000
    if method == "fork":
        # What its host used is not what the test did, which had not begun.
        assert "user" not in attempt(journal, "test_of_a_fixture_that_dies")


def test_long_texts_are_cut_and_the_cut_is_marked(journal: Path) -> None:
    (named,) = (each for each in events(journal, "verdict") if "::test_named[" in each["test"])
    (text,) = {text for report in named["reports"] for _, text in report.get("sections", ())}
    assert len(text) < 21_000
    assert "characters cut" in text


def test_metrics_survive_the_death_of_the_test(recorded: Path, journal: Path) -> None:
    values = {"tokens_per_s": 12.5, "name ✓": "\\ud800 <a>"}
    assert attempt(journal, "test_dies")["metrics"] == values
    assert attempt(journal, "test_metrics")["metrics"] == {"n": 2, "inf": "inf", "yes": True}
    assert properties(recorded, "test_dies") == {
        **{name: str(value) for name, value in values.items()},
        "fkit_worker": worker(journal, "test_dies"), "fkit_attempts": "1", "fkit_ending": "SIGABRT",
    }  # fmt: skip


def test_junit_tells_worker_attempts_and_ending(recorded: Path, journal: Path) -> None:
    assert properties(recorded, "test_fails") == {
        "fkit_worker": worker(journal, "test_fails"),
        "fkit_attempts": "1",
        "fkit_ending": "finished",
    }
    assert properties(recorded, "test_hangs")["fkit_ending"] == "timed out after 0.3 s"


def properties(directory: Path, name: str) -> dict[str | None, str | None]:
    tree = ElementTree.parse(directory / "junit.xml")
    (case,) = (each for each in tree.iter("testcase") if each.get("name") == name)
    return {each.get("name"): each.get("value") for each in case.iter("property")}


def worker(journal: Path, name: str) -> str:
    return str(attempt(journal, name)["worker"])


def test_top_lists_memory_and_cpu_time(recorded: Path) -> None:
    lines = (recorded / "output.txt").read_text().splitlines()
    for title, first in (("peak memory", "test_memory"), ("CPU time", "test_writes")):
        (start,) = (i for i, line in enumerate(lines) if f" fkit: top 2 by {title} " in line)
        assert lines[start + 1].endswith(f"::{first}")
        assert "::" in lines[start + 2]


def test_the_trace_keeps_the_rules_of_its_format(recorded: Path, journal: Path) -> None:
    trace = chrome_trace.load(recorded / "trace.json")
    tests = chrome_trace.slices(trace, "test")
    assert {each["name"] for each in tests} == set(verdicts(journal))
    for phase in chrome_trace.slices(trace, "phase"):
        assert any(
            chrome_trace.lane(test) == chrome_trace.lane(phase)
            and test["ts"] <= phase["ts"]
            and phase["ts"] + phase["dur"] <= test["ts"] + test["dur"]
            for test in tests
        )
    assert len(chrome_trace.slices(trace, "phase")) > 2 * len(tests)
    (setup,) = {
        each["name"] for each in chrome_trace.slices(trace, "fixture") if "set" in each["name"]
    }
    assert setup == "setup: module-scoped fixture 'wide'"
    endings = {each["name"] for each in trace if each["ph"] == "i" and each["cat"] == "ending"}
    assert endings == {"SIGABRT", "timed out after 0.3 s"}
    assert {each["name"] for each in trace if each["ph"] == "C"} == {"peak memory", "CPU"}
    (dead,) = (each for each in tests if each["name"].endswith("::test_dies"))
    assert dead["args"]["metric tokens_per_s"] == 12.5


def test_another_reader_of_traces_finds_nothing_to_mend(recorded: Path, tmp_path: Path) -> None:
    # It moves slices that cross on one track, which Perfetto would drop, to tracks of their own.
    pytest.importorskip("trace_lanefix")
    command = "import sys; from trace_lanefix.core import fix_overlaps; fix_overlaps(*sys.argv[1:])"
    mended = tmp_path / "mended.json"
    subprocess.run(
        [sys.executable, "-c", command, recorded / "trace.json", mended], check=True, timeout=60
    )
    assert _sorted(mended) == _sorted(recorded / "trace.json")


def _sorted(path: Path) -> list[str]:
    return sorted(json.dumps(each, sort_keys=True) for each in chrome_trace.load(path))


def test_the_script_makes_the_trace_of_the_journal(recorded: Path, journal: Path) -> None:
    assert fkit(recorded, "trace", str(journal), "-o", "again.json").returncode == 0
    again = chrome_trace.load(recorded / "again.json")
    assert again == chrome_trace.load(recorded / "trace.json")


def test_the_script_tells_of_a_journal(recorded: Path, journal: Path) -> None:
    summary = fkit(recorded, "summary", str(journal)).stdout.splitlines()
    assert "13 tests: 1 failed, 3 error, 7 passed, 1 skipped, 1 xfailed" in summary
    assert "  failed  test_all.py::test_fails  assert 1 == 2" in summary
    assert any(line.startswith("  error   test_all.py::test_dies  SIGABRT at") for line in summary)
    slowest = fkit(recorded, "slowest", "-n", "1", str(journal)).stdout.splitlines()
    assert len(slowest) == 1
    assert slowest[0].endswith(("::test_hangs", "::test_writes"))
    rows = fkit(recorded, "csv", str(journal)).stdout.splitlines()
    assert rows[0].startswith("session,test,outcome,message,ending,attempt,worker,gpus,pid,")
    assert sum(line.startswith("1,") for line in rows) == 13


def test_nothing_is_written_that_was_not_asked_for(tmp_path: Path) -> None:
    directory = write_files(tmp_path, {"test_a.py": "def test_a(): pass\n"})
    before = set(os.listdir(directory))
    ended = run_pytest(directory, "--fkit", "-n0", "-p", "no:cacheprovider")
    assert set(os.listdir(directory)) == before
    assert "top" not in ended.out


def test_a_running_test_is_in_the_journal(tmp_path: Path) -> None:
    # It reads the journal of the run that it belongs to.
    directory = write_files(tmp_path, {"test_reads.py": READS})
    for workers in ("-n0", "-n1"):
        ended = run_pytest(directory, "--fkit", workers, "--fkit-journal=run.jsonl")
        assert ended.status == 0, ended.out


READS = """\
import json, time

def test_reads():
    deadline = time.monotonic() + 30
    found = []
    while [each["event"] for each in found] != ["start", "report"]:
        assert time.monotonic() < deadline, found
        lines = open("run.jsonl").read().splitlines()
        found = [each for each in map(json.loads, lines) if each.get("test")]
    assert found[1]["when"] == "setup"
"""


def test_a_verdict_is_written_before_a_reporter_hears_of_it(tmp_path: Path) -> None:
    directory = write_files(tmp_path, {"test_a.py": PASSES, "conftest.py": LISTENS})
    for workers in ("-n0", "-n1"):
        ended = run_pytest(directory, "--fkit", workers, "--fkit-journal=run.jsonl")
        assert ended.status == 0, ended.out
        assert "heard 18 reports" in ended.out


PASSES = "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_it(n): pass\n"
LISTENS = """\
import json, os

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Listener())

class Listener:
    heard = 0

    def pytest_runtest_logreport(self, report):
        if not hasattr(self, "pid"):
            self.pid = os.getpid()
        lines = [json.loads(line) for line in open("run.jsonl")]
        mine = [each for each in lines if each.get("test") == report.nodeid]
        told = [each["when"] for each in mine if each["event"] == "report"]
        told += [r["when"] for each in mine if each["event"] == "verdict" for r in each["reports"]]
        assert report.when in told
        self.heard += 1

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.line(f"heard {self.heard} reports")
"""


def test_a_worker_that_dies_is_told_of_with_its_test(tmp_path: Path) -> None:
    suite = (
        "import os, psutil, signal, pytest\n"
        "@pytest.mark.skipif('PYTEST_XDIST_WORKER' not in os.environ, reason='')\n"
        "def test_kills():\n"
        "    _, keeper, worker = psutil.Process().parents()[:3]\n"
        "    os.kill(worker.pid, signal.SIGKILL)\n"
        "    signal.pause()\n"
        "def test_a(): pass\n"
    )
    directory = write_files(tmp_path, {"test_kills.py": suite})
    ended = run_pytest(directory, "--fkit", "-n1", "--fkit-journal=run.jsonl", "--fkit-timeout=30")
    assert ended.status == 1
    assert verdicts(directory / "run.jsonl") == {
        "test_kills.py::test_a": "passed",
        "test_kills.py::test_kills": "error",
    }
    assert attempt(directory / "run.jsonl", "test_kills")["ending"]["type"] == "Lost"
    downs = events(directory / "run.jsonl", "worker_down")
    assert [each["worker"] for each in downs if each["error"]] == ["gw0"]
    assert len(events(directory / "run.jsonl", "worker_up")) == 2


MISUSES: dict[str, tuple[list[str], str]] = {
    "a directory": (["--fkit-journal=."], "--fkit-journal: .*Is a directory"),
    "a directory for the report": (["--fkit-html=."], "--fkit-html: .*Is a directory"),
    "one file for both": (["--fkit-journal=a", "--fkit-trace=a"], "can't be one file"),
    "a number": (
        ["--fkit-top=many"],
        "--fkit-top=many: expected a non-negative integer",
    ),
    "two journals": (["--fkit-resume=a", "--fkit-journal=b"], "leave out --fkit-journal"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_an_error_that_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    directory = write_files(tmp_path, {"test_a.py": "def test_a(): pass\n"})
    arguments, text = MISUSES[name]
    ended = run_pytest(directory, "--fkit", "-n0", *arguments)
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    assert re.search(text, ended.err)


def test_a_trace_has_all_that_happened_before_an_internal_error(tmp_path: Path) -> None:
    error = "def pytest_sessionfinish(): raise RuntimeError('oh')\n"
    directory = write_files(tmp_path, {"test_a.py": "def test_a(): pass\n", "conftest.py": error})
    ended = run_pytest(directory, "--fkit", "-n0", "--fkit-trace=run.json")
    assert ended.status == 1, ended.out
    assert '"name":"test_a.py::test_a"' in (directory / "run.json").read_text()


def test_a_pipe_that_nobody_reads_does_not_stop_the_run(tmp_path: Path) -> None:
    directory = write_files(tmp_path, {"test_a.py": PASSES})
    os.mkfifo(directory / "pipe")
    ended = run_pytest(directory, "--fkit", "-n0", "--fkit-journal=pipe", timeout=60)
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    assert "--fkit-journal: " in ended.err
    assert "pipe: a pipe, where a file is expected" in ended.err


def test_github_gets_the_summary_as_markdown(tmp_path: Path) -> None:
    directory = write_files(
        tmp_path,
        {
            "test_a.py": "def test_a(): pass\n",
            "test_b.py": "import os, pytest\n@pytest.mark.parametrize('x', ['a|b`c'])\n"
            "def test_dies(x): os.abort()\n",
            "test_c.py": "def test_known(): assert 0\ndef test_passes(): assert 1\n",
            "known.toml": '[[quarantine]]\ntest = "test_c.py::test_known"\n'
            'issue = "https://i/1"\nexpires = "2999-12-31"\n',
        },
    )
    page = directory / "page.md"
    env = {"GITHUB_STEP_SUMMARY": str(page)}
    assert run_pytest(directory, "--fkit", "-n1", "test_a.py", env=env).status == 0
    assert not page.exists(), page.read_text()
    arguments = ("--fkit-quarantine=known.toml", "--fkit-repeat=3")
    assert run_pytest(directory, "--fkit", "-n1", *arguments, env=env).status == 1
    assert page.read_text().splitlines() == [
        "### pytest-fkit",
        "",
        "| Crashed | how | where | worker |",
        "|---|---|---|---|",
        "| ``test_b.py::test_dies[a\\|b`c]`` | `SIGABRT` | `test_b.py:3 in test_dies` | gw0 |",
        "",
        "| Quarantined: failed without failing the run | how | why |",
        "|---|---|---|",
        (
            "| `test_c.py::test_known` | `AssertionError: assert <n> at test_c.py in test_known` | "
            "`quarantined until 2999-12-31: https://i/1` |"
        ),
        "",
        "| Repeated | rate |",
        "|---|---|",
        "| ``test_b.py::test_dies[a\\|b`c]`` | failed 3 of 3 (100 %, 95 %: 29.2 to 100) |",
        "| `test_c.py::test_known` | failed 3 of 3 (100 %, 95 %: 29.2 to 100) |",
        "",
        "2 repeated tests did not fail",
        "",
    ]


def test_a_full_disk_does_not_stop_the_run(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    directory = write_files(tmp_path, {"test_a.py": PASSES})
    (directory / "full.jsonl").symlink_to("/dev/full")
    ended = run_pytest(directory, "--fkit", "-n0", "--fkit-trace=full.jsonl")
    assert ended.status == 0, ended.out + ended.err
    assert "full.jsonl is not complete: No space left on device" in ended.out
