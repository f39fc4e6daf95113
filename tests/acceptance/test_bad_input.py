"""What can't be meant is a usage error that names the option and what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import run_pytest, write_files

SECONDS = "expected a non-negative number of seconds"
ISOLATION = "expected one of function, class, module, session"
WORKERS = "expected a positive integer or auto; -n0 runs without workers"
CASES = {
    "--fkit-isolation=test": f"--fkit-isolation=test: {ISOLATION}",
    "--fkit-timeout=-1": f"--fkit-timeout=-1: {SECONDS}",
    "--fkit-timeout=soon": f"--fkit-timeout=soon: {SECONDS}",
    "--fkit-grace=inf": f"--fkit-grace=inf: {SECONDS}",
    "--fkit-memory-limit=2X": "--fkit-memory-limit=2X: expected a size such as 500M or 2G",
    "--fkit-gpu-memory-timeout=x": f"--fkit-gpu-memory-timeout=x: {SECONDS}",
    "--fkit-workers=0": f"--fkit-workers=0: {WORKERS}",
    "--fkit-workers=-1": f"--fkit-workers=-1: {WORKERS}",
    "--fkit-workers=x": f"--fkit-workers=x: {WORKERS}",
    "-n3 --fkit-workers=2": "-n 3 and --fkit-workers=2 contradict each other",
    "-n0 --fkit-workers=2": "-n 0 and --fkit-workers=2 contradict each other",
    "-n2 -o fkit_isolation=test": f"ini value fkit_isolation=test: {ISOLATION}",
    "-o fkit_timeout=soon": f"ini value fkit_timeout=soon: {SECONDS}",
    "-o fkit_memory_limit=lots": "ini value fkit_memory_limit=lots: expected a size",
    "-o fkit_grace=-3": f"ini value fkit_grace=-3: {SECONDS}",
    "-p without_fork": "--fkit needs os.fork(), which this platform lacks",
    "-n0 -p without_fork": "--fkit needs os.fork(), which this platform lacks",
}

# What Windows has not: to import one of these modules raises ModuleNotFoundError.
_WITHOUT_FORK = """
import os, sys
del os.fork
sys.modules.update(dict.fromkeys(["fcntl", "pwd", "resource"]))
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {
        "without_fork.py": _WITHOUT_FORK,
        "test_a.py": "import os\ndef test_pid(): print('pid', os.getpid())\n",
    }
    return write_files(tmp_path_factory.mktemp("bad"), files)


@pytest.mark.parametrize("arguments", list(CASES))
def test_is_a_usage_error_without_a_traceback(
    suite: Path, pytester: pytest.Pytester, arguments: str
) -> None:
    words = ("--fkit", *arguments.split())
    if "without_fork" in arguments:  # which changes the process
        ended = run_pytest(suite, *words)
        status, both = ended.status, ended.out + ended.err
    else:
        result = pytester.runpytest_inprocess(suite, "-rA", *words)
        status, both = int(result.ret), f"{result.stdout.str()}\n{result.stderr.str()}"
    assert status == pytest.ExitCode.USAGE_ERROR
    assert both.count(f"pytest-fkit: {CASES[arguments]}") == 1
    assert "Traceback" not in both
    assert "test_pid" not in both


@pytest.mark.parametrize("arguments", [(), ("--fkit-workers=2",)], ids=["", "with workers"])
def test_without_xdist_it_says_so_and_runs_as_with_n0(
    suite: Path, arguments: tuple[str, ...]
) -> None:
    ended = run_pytest(suite, "--fkit", "-p", "no:xdist", *arguments)
    assert ended.status == 0
    assert "fkit: pytest-xdist is disabled, so there are no workers, as with -n0" in ended.lines
    assert ended.outcomes == {"test_a.py::test_pid": "PASSED"}


@pytest.mark.parametrize("arguments", [(), ("-n1",)])
def test_where_nothing_can_be_forked_tests_run_without_the_option(
    suite: Path, arguments: tuple[str, ...]
) -> None:
    ended = run_pytest(suite, "-p", "without_fork", *arguments)
    assert ended.status == 0
    assert ended.outcomes == {"test_a.py::test_pid": "PASSED"}
