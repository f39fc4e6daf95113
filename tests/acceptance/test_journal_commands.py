"""What the commands of fkit make of one run, and of its journal as a kill leaves it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Callable

import pytest
from inner import InnerRun, run_pytest, write_files
from journals import events, verdicts

from pytest_fkit import __version__
from pytest_fkit.journal.command import COMMANDS, main

SUITE = {
    "lib.py": """\
def load(number):
    raise ValueError(f"can't load {number} of /data/{number}.bin at {hex(number)}")
""",
    "pytest.ini": "[pytest]\nfkit_versions = pluggy\n    no-such-package\n",
    ".git/HEAD": f"{'f' * 40}\n",
    "test_red.py": """\
import os
import pytest
import lib

@pytest.mark.parametrize("number", range(9))
def test_load(number):
    lib.load(number)

class TestOther:
    def test_loads_too(self):
        print("said \\x01 so")
        lib.load(99)

@pytest.fixture
def broken():
    raise RuntimeError("no 5")

def test_setup(broken): pass
def test_dies(): os.abort()
def test_plain(): assert [1] == [2], "a <message>"
@pytest.fixture
def bad():
    yield
    raise OSError("at the end")
def test_teardown(bad): pass
""",
    "test_green.py": """\
import pytest

def test_passes(record_property): record_property("speed", 3)
def test_skipped(): pytest.skip("for now")
@pytest.mark.xfail(reason="known")
def test_xfailed(): assert 0
@pytest.mark.xfail
def test_xpassed(): pass
@pytest.mark.parametrize("text", ["a::b[c]/x.py"])
def test_named(text): pass
""",
}
LOADS = "ValueError: can't load <n> of <path> at <address> at lib.py in load"


class Recorded:
    """A run, with the journal "run.jsonl", and a copy of it as a kill leaves it."""

    def __init__(self, directory: Path, ended: InnerRun) -> None:
        self.directory = directory
        self.ended = ended
        self.journal = directory / "run.jsonl"
        self.cut = directory / "cut.jsonl"
        lines = self.journal.read_bytes().splitlines(keepends=True)
        begun = {"event": "start", "wall": 2e9, "mono": 1.0, "worker": "gw0", "location": None}
        last = next(i for i, line in enumerate(lines) if b'"event":"verdict"' in line)
        running = json.dumps({**begun, "test": self.unfinished(lines, last)}).encode()
        self.cut.write_bytes(b"".join([*lines[: last + 1], running, b"\n", lines[-1][:20]]))

    def unfinished(self, lines: list[bytes], last: int) -> str:
        done = json.loads(lines[last])["test"]
        planned = next(each["nodeids"] for each in events(self.journal) if "nodeids" in each)
        return str(next(nodeid for nodeid in planned if nodeid != done))

    def answer(self, *arguments: str) -> str:
        """What fkit writes, in this process: starts of the script would show no more."""
        here = [str(self.directory / it) if it.endswith(".jsonl") else it for it in arguments]
        made = self.directory / "made"
        assert main([*here, "-o", str(made)]) == 0
        return made.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    directory = write_files(tmp_path_factory.mktemp("commands"), SUITE)
    ended = run_pytest(
        directory,
        "--fkit",
        "-n2",
        "--fkit-stacks=python",
        "--fkit-journal=run.jsonl",
        "--junitxml=junit.xml",
    )
    assert ended.status == 1, ended.out + ended.err
    return Recorded(directory, ended)


def test_a_run_with_much_red_ends_with_its_causes(recorded: Recorded) -> None:
    lines = recorded.ended.lines
    (start,) = (i for i, line in enumerate(lines) if "pytest-fkit: 5 causes of 14 failures" in line)
    assert lines[start + 1] == f"10  {LOADS}"
    assert re.fullmatch(r" +as in test_red.py::\S+", lines[start + 2])
    assert {line[4:] for line in lines[start + 3 : -1 : 2]} == {
        "RuntimeError: no <n> at test_red.py in broken",
        "SIGABRT at test_red.py in test_dies",
        "AssertionError: a <message> at test_red.py in test_plain",
        "OSError: at the end at test_red.py in bad",
    }
    # Below the short summary, which may have hundreds of lines.
    assert start > max(i for i, line in enumerate(lines) if line.startswith("ERROR test_red"))
    assert len(lines) == start + 1 + 2 * 5 + 1


def test_the_journal_has_the_same_causes(recorded: Recorded) -> None:
    lines = recorded.answer("summary", "--group", "run.jsonl").splitlines()
    start = lines.index("5 causes:")
    assert lines[start + 1].startswith(f"  10 tests  {LOADS}  [gw")
    assert lines[start + 5] == "    and 7 more"
    told = json.loads(recorded.answer("summary", "--format=json", "run.jsonl"))
    assert [len(each["tests"]) for each in told["causes"]] == [10, 1, 1, 1, 1]
    assert told["causes"][0]["title"] == LOADS
    assert sum(told["outcomes"].values()) == len(verdicts(recorded.journal))


def test_the_tests_that_went_wrong_are_what_pytest_takes(recorded: Recorded) -> None:
    failed = recorded.answer("failed", "run.jsonl").splitlines()
    bad = [name for name, word in verdicts(recorded.journal).items() if word in ("failed", "error")]
    assert failed == bad
    assert len(failed) == 14
    assert (
        recorded.answer("failed", "--format=json", "run.jsonl") == json.dumps(bad, indent=2) + "\n"
    )


def _cases(root: ElementTree.Element) -> dict[tuple[str, str], ElementTree.Element]:
    found = {
        (str(each.get("classname")), str(each.get("name"))): each for each in root.iter("testcase")
    }
    assert len(found) == len(list(root.iter("testcase")))
    return found


def _result(case: ElementTree.Element) -> tuple[str, ...]:
    found = [each for each in case if each.tag in ("failure", "error", "skipped")]
    return tuple(f"{each.tag} {each.get('type')} {each.get('message')}" for each in found)


def _properties(case: ElementTree.Element) -> set[tuple[str | None, str | None]]:
    return {(each.get("name"), each.get("value")) for each in case.iter("property")}


def test_junit_says_what_pytests_own_says(recorded: Recorded) -> None:
    made = ElementTree.fromstring(recorded.answer("junit", "run.jsonl").encode())
    pytests = ElementTree.parse(recorded.directory / "junit.xml").getroot()
    ours, theirs = _cases(made), _cases(pytests)
    assert ours.keys() == theirs.keys()
    for name, case in theirs.items():
        assert _result(ours[name]) == _result(case), name
        assert _properties(ours[name]) == _properties(case), name
    assert made[0].get("tests") == str(len(ours))  # older pytests count some twice
    for count in ("errors", "failures", "skipped"):
        assert made[0].get(count) == pytests[0].get(count)
    said = ours["test_red.TestOther", "test_loads_too"]
    assert [each.text for each in said.iter("system-out")] == ["said #x01 so\n"]
    told = json.loads(recorded.answer("junit", "--format=json", "run.jsonl"))
    assert len(told[0]["cases"]) == len(ours)


def test_junit_of_a_run_that_was_killed_is_not_green(recorded: Recorded) -> None:
    made = ElementTree.fromstring(recorded.answer("junit", "cut.jsonl").encode())
    cases = _cases(made)
    assert (
        cases.keys() == _cases(ElementTree.parse(recorded.directory / "junit.xml").getroot()).keys()
    )
    messages = [
        str(each.get("message")) for each in made.iter() if each.tag in ("error", "skipped")
    ]
    assert messages.count("no verdict: the run was cut off while gw0 ran the test") == 1
    assert messages.count("not run: the run was cut off") == len(cases) - 2
    # Nothing was running, and nothing went wrong before.
    lines = recorded.cut.read_bytes().splitlines(keepends=True)
    idle = [line for line in lines[:-1] if b'"start"' not in line and b'"verdict"' not in line]
    (recorded.directory / "idle.jsonl").write_bytes(b"".join(idle))
    made = ElementTree.fromstring(recorded.answer("junit", "idle.jsonl").encode())
    assert made[0].get("errors") == "1"


def test_the_run_knows_its_commit_and_versions(recorded: Recorded) -> None:
    (run,) = events(recorded.journal, "run")
    assert re.fullmatch("[0-9a-f]{40}", run["commit"])
    assert run["versions"]["no-such-package"] == "not installed"
    lines = recorded.answer("summary", "run.jsonl").splitlines()
    assert lines[1].startswith(f"commit {run['commit']}")
    assert "no-such-package not installed" in lines[2]


def test_times_are_rounded(recorded: Recorded) -> None:
    rows = list(csv.DictReader(io.StringIO(recorded.answer("csv", "run.jsonl"))))
    times = ("start", "duration", "setup", "call", "teardown", "user", "system")
    values = [row[name] for row in rows for name in times if row[name]]
    assert all(re.fullmatch(r"\d+(\.\d{1,6})?", value) for value in values), values
    told = json.loads(recorded.answer("csv", "--format=json", "run.jsonl"))
    assert [each["test"] for each in told] == [row["test"] for row in rows]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_examples_and_json(
    name: str, recorded: Recorded, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*name.split(), "--help"])
    assert raised.value.code == 0
    text = capfdbinary.readouterr().out.decode()
    assert f"examples:\n  fkit {name} " in text
    assert "json" in COMMANDS[name].formats or name == "html"  # which is for eyes


def test_the_command_has_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"pytest-fkit {__version__}\n"


# --- the command as a process ---

FKIT = str(Path(sys.executable).with_name("fkit"))


def limited(kind: int, bytes_: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (bytes_, bytes_))


def started(recorded: Recorded, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FKIT, *arguments], cwd=recorded.directory, capture_output="stdout" not in more,
        encoding="utf-8", timeout=60, check=False, **more,
    )  # fmt: skip


def test_a_file_for_which_there_is_no_room_stays_as_it_was(recorded: Recorded) -> None:
    whole = (recorded.directory / "run.jsonl").read_bytes()
    (recorded.directory / "input.jsonl").write_bytes(whole)
    limit = limited(resource.RLIMIT_FSIZE, 10_000)
    for name in ("input.jsonl", "new.jsonl"):
        ended = started(recorded, "merge", "input.jsonl", "-o", name, preexec_fn=limit)
        assert ended.returncode == 2
        assert ended.stderr == f"fkit: {name}: can't be written: File too large\n"
    assert (recorded.directory / "input.jsonl").read_bytes() == whole
    assert not (recorded.directory / "new.jsonl").exists()
    (recorded.directory / "longer.txt").write_bytes(whole)
    assert started(recorded, "failed", "input.jsonl", "-o", "longer.txt").returncode == 0
    assert (recorded.directory / "longer.txt").read_text() == recorded.answer("failed", "run.jsonl")


def test_what_can_not_be_read_or_written_at_all_is_said(recorded: Recorded) -> None:
    with open("/dev/full", "wb") as full:
        ended = started(recorded, "failed", "run.jsonl", stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 2
    assert ended.stderr == "fkit: standard output: can't be written: No space left on device\n"
    shell = ["sh", "-c", 'exec "$0" failed run.jsonl >&-', FKIT]
    closed = subprocess.run(
        shell, cwd=recorded.directory, stderr=subprocess.PIPE, encoding="utf-8", timeout=60,
        check=False,
    )  # fmt: skip
    assert closed.returncode == 2
    assert closed.stderr == "fkit: standard output: can't be written: it is closed\n"
    with (recorded.directory / "huge.jsonl").open("wb") as huge:
        huge.truncate(2**32)
    limit = limited(resource.RLIMIT_AS, 2**30)
    ended = started(recorded, "summary", "huge.jsonl", preexec_fn=limit)
    assert ended.returncode == 2
    assert re.fullmatch("fkit: it takes more memory than there is; .*\n", ended.stderr)


def test_standard_input_and_output_are_files_too(recorded: Recorded) -> None:
    with (recorded.directory / "run.jsonl").open("rb") as journal:
        ended = started(recorded, "failed", "-", "-o", "-", stdin=journal)
    assert (ended.stdout, ended.stderr) == (recorded.answer("failed", "run.jsonl"), "")
    ended = started(recorded, "failed", "-", input="no journal\n")
    assert ended.returncode == 2
    assert ended.stderr.startswith("fkit: standard input:1: not a line of a journal")


def _ends_by_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_command_that_is_interrupted_says_nothing(recorded: Recorded) -> None:
    slow = recorded.directory / "slow.jsonl"
    os.mkfifo(slow)
    with subprocess.Popen(
        [FKIT, "summary", slow], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=_ends_by_interrupts,
    ) as running, slow.open("wb"):  # fmt: skip
        # It reads now: else the file would not be open.
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=60)[0] == b""
    assert running.returncode == 128 + signal.SIGINT
