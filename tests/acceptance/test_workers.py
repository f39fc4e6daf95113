"""Where tests run: the number of workers, none, no isolation, and all of xdist's modes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from inner import run_pytest, write_files

SUITE = {
    "test_a.py": """\
import os
import pytest

def show():
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{worker} {os.getpid()} {os.getppid()}\\n")

@pytest.mark.parametrize("number", range(4))
def test_it(number): show()
""",
    "test_b.py": """\
import os
class TestGroup:
    def test_1(self): pass
    def test_dies(self): os.abort()
    def test_2(self): pass
""",
}
NODEIDS = {
    *(f"test_a.py::test_it[{number}]" for number in range(4)),
    *(f"test_b.py::TestGroup::test_{name}" for name in ("1", "dies", "2")),
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("workers"), SUITE)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def _processes(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_fkit_alone_is_one_worker_and_a_process_per_test(suite: Path, log: Path) -> None:
    ended = run_pytest(suite, "--fkit", "test_a.py", env={"LOG": str(log)})
    assert "fkit: 1 worker, isolation: function, timeout: 600 s" in ended.lines
    processes = _processes(log)
    assert [worker for worker, _, _ in processes] == ["gw0"] * 4
    assert len({pid for _, pid, _ in processes}) == 4
    assert ended.status == 0


@pytest.mark.parametrize(
    "arguments",
    ["-n2", "--fkit-workers=2", "-n auto", "--fkit-workers=auto", "-n2 --fkit-workers=2"],
)
def test_the_number_of_workers_has_two_names(suite: Path, log: Path, arguments: str) -> None:
    env = {"LOG": str(log), "PYTEST_XDIST_AUTO_NUM_WORKERS": "2"}
    ended = run_pytest(suite, "--fkit", *arguments.split(), "test_a.py::test_it", env=env)
    assert "fkit: 2 workers, isolation: function, timeout: 600 s" in ended.lines
    assert {worker for worker, _, _ in _processes(log)} == {"gw0", "gw1"}


def test_n0_isolates_without_workers(suite: Path, log: Path) -> None:
    ended = run_pytest(suite, "--fkit", "-n0", env={"LOG": str(log)})
    assert "fkit: no workers, isolation: function, timeout: 600 s" in ended.lines
    processes = _processes(log)
    assert {worker for worker, _, _ in processes} == {"main"}
    assert len({pid for _, pid, _ in processes}) == 4
    assert set(ended.outcomes) == NODEIDS
    assert ended.outcomes["test_b.py::TestGroup::test_dies"] == "ERROR"


@pytest.mark.parametrize("option", ["--pdb", "--trace"])
def test_a_debugger_turns_isolation_off_and_says_so(suite: Path, log: Path, option: str) -> None:
    ended = run_pytest(suite, "--fkit", option, "test_a.py", env={"LOG": str(log)})
    assert f"fkit: isolation is off, because of {option}" in ended.lines
    # --trace stops at each test, and there is nobody to go on.
    assert len({pid for _, pid, _ in _processes(log)}) == (1 if option == "--pdb" else 0)
    assert ended.status == 0


def test_every_test_runs_once_without_distribution(suite: Path, log: Path) -> None:
    """test_pytest_itself.py tries the modes that distribute."""
    ended = run_pytest(suite, "--fkit", "-n2", "--dist", "no", env={"LOG": str(log)})
    outcomes = ended.outcomes
    assert set(outcomes) == NODEIDS
    assert {nodeid for nodeid, outcome in outcomes.items() if outcome != "PASSED"} == {
        "test_b.py::TestGroup::test_dies"
    }
    assert len({pid for _, pid, _ in _processes(log)}) == 4


def test_with_dist_each_every_worker_runs_every_test(suite: Path, log: Path) -> None:
    ended = run_pytest(suite, "--fkit", "-n2", "--dist", "each", env={"LOG": str(log)})
    assert "12 passed, 2 errors" in ended.lines[-1]
    workers = [worker for worker, _, _ in _processes(log)]
    assert (workers.count("gw0"), workers.count("gw1")) == (4, 4)


DEBUGGERS = {
    "test_debuggers.py": """\
import pdb, pytest
from pdb import set_trace
def test_breakpoint(): breakpoint()
def test_pdb(): pdb.set_trace()
def test_pytest(): pytest.set_trace()
def test_by_name(): set_trace()
@pytest.fixture
def stops(): breakpoint()
def test_fixture(stops): pass
@pytest.fixture(scope="module")
def wide(): breakpoint()
def test_wide_fixture(wide): pass
"""
}


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_call_of_the_debugger_names_the_command(tmp_path: Path, workers: str) -> None:
    ended = run_pytest(write_files(tmp_path, DEBUGGERS), "--fkit", workers, timeout=60)
    assert len(ended.outcomes) == 6
    assert set(ended.outcomes.values()) == {"FAILED", "ERROR"}
    # pytest 7's short summary leaves the text of errors in wide fixtures out.
    headers = re.findall(r"^E +Failed: .*-n0 --pdb, which turns isolation off", ended.out, re.M)
    assert len(headers) == 6
    assert ended.status == 1


@pytest.mark.parametrize("names", [("nowhere",), ("test_a.py::test_b", "test_a.py::test_c")])
def test_workers_that_end_for_a_wrong_argument_end_the_run(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    write_files(tmp_path, {"test_a.py": "def test_a(): pass\n"})
    ended = run_pytest(tmp_path, "--fkit", "-n2", *names)
    assert "INTERNALERROR" not in ended.out + ended.err
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    said = [line for line in ended.err.splitlines() if "not found: " in line]
    assert [line.rpartition("/")[2].rpartition(" ")[2] for line in said] == list(names)
    assert all(line.startswith("ERROR: ") for line in said)
