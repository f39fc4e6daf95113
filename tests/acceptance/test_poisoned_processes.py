"""A process in which a GPU error was raised that makes its GPU unusable runs no other test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Mapping

import pytest
from inner import InnerRun, run_pytest, write_files

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

_CONFTEST = """\
import json, os
import pytest

@pytest.fixture(autouse=True)
def told(request):
    yield
    entry = [request.node.name, os.getpid(), os.getppid()]
    with open("told.jsonl", "a") as log:
        log.write(json.dumps(entry) + "\\n")

@pytest.fixture(scope="session")
def loaded():
    with open("told.jsonl", "a") as log:
        log.write(json.dumps(["loaded", os.getpid(), os.getppid()]) + "\\n")
"""

SHARED = {
    "conftest.py": _CONFTEST,
    "test_shared.py": """\
import fleet_torch as torch
import pytest

pytestmark = pytest.mark.usefixtures("loaded")

class TestIt:
    def test_first(self): assert torch.launch(1) == 1
    def test_second(self): assert torch.launch(2) == 2
    def test_breaks(self): torch.launch(fault="assert")
    def test_after(self): assert torch.launch(3) == 3
    @pytest.mark.xfail
    def test_expected(self): torch.launch(fault="illegal")
    def test_after_that(self): assert torch.launch(4) == 4
    def test_argument(self): torch.launch(fault="argument")
    def test_same(self): assert torch.launch(5) == 5
    def test_skips(self): pytest.skip("no GPU")
    def test_last(self): assert torch.launch(6) == 6
""",
}

# By the processes that run them.
_APART = [
    ["test_first", "test_second", "test_breaks"],
    ["test_after", "test_expected"],
    ["test_after_that", "test_argument", "test_same", "test_skips", "test_last"],
]


def _run(
    machine: Mapping[str, str], directory: Path, files: Mapping[str, str], *arguments: str
) -> tuple[InnerRun, list[list[Any]]]:
    write_files(directory, files)
    ended = run_pytest(
        directory, "--fkit", *arguments, env=fleets.with_framework(machine), timeout=200
    )
    log = (directory / "told.jsonl").read_text().splitlines()
    return ended, [json.loads(line) for line in log]


def _outcomes(ended: InnerRun) -> dict[str, str]:
    return {nodeid.rpartition("::")[2]: outcome for nodeid, outcome in ended.outcomes.items()}


def _by_process(told: list[list[Any]], column: int = 1) -> list[list[str]]:
    """The tests of each process, which is named in a column, in the order of their ends."""
    found: dict[int, list[str]] = {}
    for entry in told:
        if entry[0] != "loaded":
            found.setdefault(entry[column], []).append(entry[0])
    return list(found.values())


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    "arguments",
    [
        "-n1 --fkit-isolation=session", "-n0 --fkit-isolation=session",
        "-n1 --fkit-isolation=module", "-n0 --fkit-isolation=class",
        "-n1 --fkit-start-method=spawn", "-n0 --fkit-start-method=spawn",
    ],
)  # fmt: skip
def test_tests_that_share_a_process(fleet: Fleet, tmp_path: Path, arguments: str) -> None:
    ended, told = _run(fleet(fleets.nvidia(2)), tmp_path, SHARED, *arguments.split())
    assert _by_process(told) == _APART
    assert len([entry for entry in told if entry[0] == "loaded"]) == 3
    outcomes = _outcomes(ended)
    bad = {name: outcome for name, outcome in outcomes.items() if outcome != "PASSED"}
    assert bad == {"test_breaks": "FAILED", "test_expected": "XFAIL", "test_argument": "FAILED"}
    assert len(outcomes) == 9  # and one that is skipped, of which no node id is shown


def test_without_gpus_nobody_looks(fleet: Fleet, tmp_path: Path) -> None:
    files = {
        "conftest.py": _CONFTEST,
        "test_x.py": (
            "def test_a(): raise RuntimeError('CUDA error: device-side assert triggered')\n"
            "def test_b(): pass\n"
        ),
    }
    _, told = _run(fleet(fleets.nvidia(2)), tmp_path, files, "--fkit-isolation=session", "-n1")
    assert _by_process(told) == [["test_a"], ["test_b"]]
    (tmp_path / "told.jsonl").unlink()
    _, told = _run(fleet(), tmp_path, files, "--fkit-isolation=session", "-n1")
    assert _by_process(told) == [["test_a", "test_b"]]


def test_a_host_that_runs_tests_itself(fleet: Fleet, tmp_path: Path) -> None:
    files = {
        "conftest.py": _CONFTEST,
        "test_host.py": """\
import fleet_torch as torch
import pytest

@pytest.fixture(scope="module", autouse=True)
def model(loaded):
    return torch.alloc()  # opens the runtime, which does not survive a fork

def test_first(): assert torch.launch(1) == 1
def test_breaks(): torch.launch(fault="illegal")
def test_after(): assert torch.launch(3) == 3
def test_last(): assert torch.launch(3) == 3
""",
    }
    ended, told = _run(fleet(fleets.nvidia(2)), tmp_path, files, "-n1")
    assert _by_process(told) == [["test_first", "test_breaks"], ["test_after", "test_last"]]
    assert set(_outcomes(ended).values()) == {"PASSED", "FAILED"}
    assert _outcomes(ended)["test_breaks"] == "FAILED"


WIDE = {
    "conftest.py": _CONFTEST,
    "test_wide.py": """\
import pytest

@pytest.fixture(scope="module")
def breaks(): raise RuntimeError("CUDA error: an illegal memory access was encountered")

@pytest.fixture(scope="module")
def fails(): raise RuntimeError("CUDA error: invalid argument")

@pytest.fixture(scope="class")
def breaks_late():
    yield
    raise RuntimeError("CUDA error: unspecified launch failure")

def test_first(): pass
def test_breaks(breaks): pass
def test_after(): pass
def test_fails(fails): pass
class TestLate:
    def test_late(self, breaks_late): pass
def test_last(): pass
""",
}


def test_a_host_in_which_a_wide_fixture_met_it(fleet: Fleet, tmp_path: Path) -> None:
    ended, told = _run(fleet(fleets.amd(2)), tmp_path, WIDE, "-n1", "--fkit-start-method=fork")
    # By the processes that forked them; those whose setup failed don't tell.
    assert _by_process(told, 2) == [["test_first"], ["test_after", "test_late"], ["test_last"]]
    reported = [(nodeid.rpartition("::")[2], outcome) for outcome, nodeid, _ in ended.reported]
    assert sorted(reported) == [
        ("test_after", "PASSED"), ("test_breaks", "ERROR"), ("test_fails", "ERROR"),
        ("test_first", "PASSED"), ("test_last", "PASSED"), ("test_late", "ERROR"),
        ("test_late", "PASSED"),
    ]  # fmt: skip
