"""Tests whose process another program runs, and folders of tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest

_SUITE = """
import ctypes, os, shutil, pytest

wrapped_by = lambda *words: pytest.mark.fkit(wrapper=words)
strace, gdb = (
    pytest.mark.skipif(not shutil.which(name), reason="not there") for name in ("strace", "gdb")
)
BAD_END = "sh", "-c", '"$@"; exit 99', "sh"

def test_has_its_own_process(fkit_artifacts):
    (fkit_artifacts / "file").write_text("x")
    assert os.environ["FKIT_INNER_PARENT"] != str(os.getppid())

@pytest.mark.parametrize("name", ["a/b", "a-b"])
def test_fails(fkit_artifacts, name):
    (fkit_artifacts / "file").write_text(name)
    assert False

@wrapped_by(*BAD_END)
def test_wrapper_says_no(): print("said by the test")

@wrapped_by("true", "{artifacts}")
def test_never_begins(): pass

@wrapped_by("there-is-no-such-program")
def test_has_no_wrapper(): pass

@strace
@wrapped_by("strace", "-f", "-o", "{artifacts}/trace")
class TestStrace:
    def test_leaves(self, fkit_artifacts):
        assert (fkit_artifacts / "trace").exists()
        os._exit(7)

    def test_crashes(self): ctypes.string_at(8)

@gdb
@wrapped_by("gdb", "-nx", "-batch", "-ex", "run", "-ex", "bt 3", "--args")
def test_gdb(): ctypes.string_at(8)

@pytest.mark.fkit(wrapper="valgrind -q --error-exitcode=99", timeout=600)
def test_valgrind():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.memset(ctypes.c_void_p(libc.malloc(4)), 1, 9)
"""

_NAME = "test_it.py-test_fails-a-b"


def _run(directory: Path, *arguments: str) -> InnerRun:
    (directory / "test_it.py").write_text(_SUITE)
    return run_pytest(
        directory, "-p", "no:cacheprovider", "--fkit", "--fkit-artifacts=kept", *arguments,
        env={"FKIT_INNER_PARENT": str(os.getpid())}, timeout=600,
    )  # fmt: skip


def test_what_a_wrapper_does_is_told_from_what_the_test_did(tmp_path: Path) -> None:
    run = _run(tmp_path, "-n1", "-k", "not valgrind")
    kept = tmp_path / "kept"
    said = {nodeid.rpartition("::")[2]: text for _, nodeid, text in run.reported if text}
    assert said["test_never_begins"] == "true: exit status 0, without starting Python"
    assert "there is no program 'there-is-no-such-program'" in said["test_has_no_wrapper"]
    # The test passed; that its wrapper did not is an error of its teardown.
    outcomes = [outcome for outcome, nodeid, _ in run.reported if nodeid.endswith("says_no")]
    assert sorted(outcomes) == ["ERROR", "PASSED"]
    assert said["test_wrapper_says_no"] == "sh: exit status 99"
    assert "had finished the test; then its wrapper, sh, ended by exit status 99" in run.out
    assert "test session starts" not in run.out.partition("= ERRORS =")[2]
    # What failed, and had something in its folder, has it still; equal names are told apart.
    wanted = [f"{_NAME}", f"{_NAME}-2"]
    if shutil.which("strace"):
        assert said["test_leaves"] == "exit status 7"
        assert said["test_crashes"].startswith("SIGSEGV at ")
        wanted += [f"test_it.py-TestStrace-{name}" for name in ("test_crashes", "test_leaves")]
        assert (kept / wanted[-2] / "trace").stat().st_size
    if shutil.which("gdb"):
        assert said["test_gdb"] == "SIGSEGV"
        assert "received signal SIGSEGV" in run.out
    assert sorted(path.name for path in kept.iterdir()) == sorted(wanted)
    assert all(f"\n{kept / name}\n" in run.out for name in wanted)


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
@pytest.mark.skipif(
    os.environ.get("FKIT_EVERY_MODE") != "1",
    reason="takes half a minute; FKIT_EVERY_MODE=1 runs it",
)
def test_valgrind_runs_a_test(tmp_path: Path) -> None:
    run = _run(tmp_path, "-n0", "-k", "valgrind")
    said = {outcome: message for outcome, _, message in run.reported}
    assert said == {"PASSED": "", "ERROR": "valgrind: exit status 99"}, run.out
    assert "1 test survived a sanitizer's report:" in run.out


def test_a_wrapper_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    run = _run(tmp_path, "--fkit-wrapper=there-is-none --yes")
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert (
        "pytest-fkit: --fkit-wrapper=there-is-none --yes: there is no program 'there-is-none'; "
        "install it, or give its path"
    ) in run.err


def test_without_fkit_the_folder_is_there(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(fkit_artifacts): (fkit_artifacts / 'x').write_text('y')")
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1)
