"""Marks and isolation scopes: which tests share a process, and what a crash in it costs."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

MARKED = """
    import os, pytest

    def note(name):
        with open(os.path.join(os.environ["PID_DIR"], name), "w") as file:
            file.write(str(os.getpid()))

    @pytest.mark.fkit_skip
    def test_shared_1(): note("shared_1")
    def test_own(): note("own")
    @pytest.mark.fkit_skip
    def test_shared_2(): note("shared_2")
    @pytest.mark.fkit_skip
    def test_shared_dies(): note("shared_dies"); os.kill(os.getpid(), 11)
    @pytest.mark.fkit_skip
    def test_shared_3(): note("shared_3")
    @pytest.mark.fkit_skip
    def test_shared_4(): note("shared_4")

    @pytest.mark.fkit(isolation="class", timeout=60, memory_limit="2G")
    class TestTogether:
        def test_1(self): note("class_1")
        def test_2(self): note("class_2")
        @pytest.mark.fkit(isolation="function")
        def test_apart(self): note("class_apart")

    @pytest.mark.fkit(isolation=None)
    def test_default(): note("default")
    @pytest.mark.fkit_single_gpu
    def test_single_gpu(): pass
    @pytest.mark.fkit_multi_gpu
    def test_multi_gpu(): pass
    @pytest.mark.fkit_multi_gpu(4)
    def test_four_gpus(): pass
    @pytest.mark.fkit_multi_gpu(number=3)
    def test_three_gpus(): pass
"""
WRONG = {
    "fkit(3)": "@pytest.mark.fkit takes keyword arguments only: isolation, timeout, memory_limit, ",
    "fkit(scope=1)": "@pytest.mark.fkit has no argument 'scope', only isolation,",
    "fkit(isolation='test')": "@pytest.mark.fkit(isolation='test'): expected one of function,",
    "fkit(timeout=-1)": "@pytest.mark.fkit(timeout=-1): expected a non-negative number of seconds",
    "fkit(timeout=True)": "@pytest.mark.fkit(timeout=True): expected a non-negative number of",
    "fkit(memory_limit='2X')": "@pytest.mark.fkit(memory_limit='2X'): expected a size",
    "fkit(gpus=-1)": "@pytest.mark.fkit(gpus=-1): expected a non-negative number of GPUs (0: runs",
    "fkit(gpus=True)": "@pytest.mark.fkit(gpus=True): expected a non-negative number of GPUs",
    "fkit(serial=3)": "@pytest.mark.fkit(serial=3): expected a name",
    "fkit(serial='')": "@pytest.mark.fkit(serial=''): expected a name",
    "fkit_skip('why')": "@pytest.mark.fkit_skip takes no arguments",
    "fkit_single_gpu(1)": "@pytest.mark.fkit_single_gpu takes no arguments",
    "fkit_multi_gpu(0)": "@pytest.mark.fkit_multi_gpu(0): expected an integer, 2 or more",
    "fkit_multi_gpu('4')": "@pytest.mark.fkit_multi_gpu('4'): expected an integer, 2 or more",
    "fkit_multi_gpu(2, 3)": "@pytest.mark.fkit_multi_gpu takes one argument, number",
    "fkit_multi_gpu(gpus=3)": "@pytest.mark.fkit_multi_gpu takes one argument, number",
    "timeout('x')": "@pytest.mark.timeout('x'): expected a non-negative number of seconds",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marked")


@pytest.fixture(scope="module")
def marked(directory: Path) -> InnerRun:
    wrong = "".join(
        f"@pytest.mark.{mark}\ndef test_wrong_{number}(): note('wrong')\n"
        for number, mark in enumerate(WRONG)
    )
    text = textwrap.dedent(MARKED) + wrong
    write_files(directory, {"test_marks.py": text, "pids/none": ""})
    return run_pytest(
        directory, "--fkit", "-n1", "--strict-markers", env={"PID_DIR": str(directory / "pids")}
    )


@pytest.fixture(scope="module")
def marked_pids(marked: InnerRun, directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (directory / "pids").iterdir()}


def test_our_marks_pass_strict_markers(marked: InnerRun) -> None:
    names = ("default", "shared_1", "own")
    assert {marked.outcomes[f"test_marks.py::test_{name}"] for name in names} == {"PASSED"}
    skipped = [line.rpartition(": ")[2] for line in marked.lines if line.startswith("SKIPPED")]
    assert skipped == [
        f"needs {gpus}; this run has none" for gpus in ("1 GPU", "2 GPUs", "4 GPUs", "3 GPUs")
    ]
    assert marked.status == 1


@pytest.mark.parametrize("number", range(len(WRONG)), ids=list(WRONG))
def test_wrong_arguments_are_an_error_that_names_place_and_fix(
    marked: InnerRun, marked_pids: dict[str, str], number: int
) -> None:
    nodeid = f"test_marks.py::test_wrong_{number}"
    assert marked.outcomes[nodeid] == "ERROR"
    assert f"{list(WRONG.values())[number]}" in marked.out
    assert f"(mark of {nodeid})" in marked.out
    assert "wrong" not in marked_pids


def test_fkit_skip_tests_share_a_process_until_one_dies(
    marked: InnerRun, marked_pids: dict[str, str]
) -> None:
    pids = marked_pids
    assert pids["shared_1"] == pids["shared_2"] == pids["shared_dies"]
    assert pids["shared_3"] == pids["shared_4"] != pids["shared_dies"]
    assert len({pids["shared_1"], pids["own"], pids["shared_3"]}) == 3
    assert marked.outcomes["test_marks.py::test_shared_dies"] == "ERROR"
    assert "SIGSEGV at test_marks.py:" in marked.message("test_marks.py::test_shared_dies")
    for name in ("shared_1", "shared_2", "shared_3", "shared_4"):
        assert marked.outcomes[f"test_marks.py::test_{name}"] == "PASSED"


def test_the_closest_isolation_mark_counts(marked_pids: dict[str, str]) -> None:
    pids = marked_pids
    assert pids["class_1"] == pids["class_2"] != pids["class_apart"]
    assert pids["default"] not in (pids["class_1"], pids["class_apart"])


SCOPED = """\
import os

def note(name):
    path = os.path.join(os.environ["PID_DIR"], __name__ + "." + name)
    with open(path, "w") as file:
        file.write(str(os.getpid()))

def test_1(): note("1")
class TestOne:
    def test_2(self): note("2")
    def test_3(self): note("3")
    def test_4(self): note("4"); os.kill(os.getpid(), 11)
    def test_5(self): note("5")
class TestTwo:
    def test_6(self): note("6")
    def test_7(self): note("7")
"""
# Groups of tests that share a process, as written by _groups().
ALONE_1 = "a.1 a.2 a.3 a.4 a.5 a.6 a.7 b.1 b.2 b.3 b.4 b.5 b.6 b.7"
GROUPS = {
    "function": ALONE_1.split(),
    "class": ["a.1", "a.2+a.3+a.4", "a.5", "a.6+a.7", "b.1", "b.2+b.3+b.4", "b.5", "b.6+b.7"],
    "module": ["a.1+a.2+a.3+a.4", "a.5+a.6+a.7", "b.1+b.2+b.3+b.4", "b.5+b.6+b.7"],
    "session": ["a.1+a.2+a.3+a.4", "a.5+a.6+a.7+b.1+b.2+b.3+b.4", "b.5+b.6+b.7"],
}


def _groups(directory: Path) -> list[str]:
    by_pid: dict[str, list[str]] = {}
    for path in sorted(directory.iterdir()):
        by_pid.setdefault(path.read_text(), []).append(path.name[len("test_") :])
    return sorted("+".join(names) for names in by_pid.values())


@pytest.mark.parametrize("isolation", list(GROUPS))
def test_isolation_says_which_tests_share_a_process(tmp_path: Path, isolation: str) -> None:
    write_files(tmp_path, {"test_a.py": SCOPED, "test_b.py": SCOPED})
    pids = tmp_path / "pids"
    pids.mkdir()
    workers = "-n1" if isolation == "module" else "-n0"
    ended = run_pytest(
        tmp_path, "--fkit", workers, f"--fkit-isolation={isolation}", env={"PID_DIR": str(pids)}
    )
    assert _groups(pids) == GROUPS[isolation]
    dying = {nodeid for nodeid, outcome in ended.outcomes.items() if outcome == "ERROR"}
    assert dying == {"test_a.py::TestOne::test_4", "test_b.py::TestOne::test_4"}
    assert len(ended.outcomes) == 14
    assert set(ended.outcomes.values()) == {"PASSED", "ERROR"}
