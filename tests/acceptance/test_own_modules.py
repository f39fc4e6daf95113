"""Suites with modules of their own that have the names of some of the standard library's."""

from __future__ import annotations

import pkgutil
import sysconfig
from pathlib import Path

import pytest
from inner import run_pytest, write_files

# sys.path has the suite's directory in it, as `python -m pytest` and a conftest.py there have it.
_CONFTEST = """
import os, sys

def pytest_collection_finish():
    # By the worker: fresh interpreters come later.
    if not os.path.exists("path"):
        with open("path", "w") as file:
            file.write("\\n".join(sys.path))

def pytest_unconfigure():
    with open(f"{os.getpid()}.modules", "w") as file:
        file.write("\\n".join(sys.modules))
"""

_TESTS = """
import sys
import pytest

PATH = list(sys.path)

@pytest.fixture(scope="module")
def wide():
    yield list(sys.path)

@pytest.mark.parametrize("name", NAMES)
def test_the_suites_own_module_is_imported(name, wide):
    with open("path") as file:
        assert file.read().split("\\n") == wide == PATH == sys.path
    with pytest.raises(ZeroDivisionError):
        __import__(name)

def test_fails():
    assert [1, 2] == [1, 3]

def test_warns():
    import warnings
    warnings.warn("beware")
"""

_CRASH = """
import ctypes

def test_crashes():
    ctypes.string_at(0)

def test_passes_afterwards():
    pass
"""


def _unused(directory: Path) -> list[str]:
    """Modules of the standard library that plain pytest, with xdist, does not import here."""
    run_pytest(directory, "-n1")
    used = {name for file in directory.glob("*.modules") for name in file.read_text().split()}
    assert len(list(directory.glob("*.modules"))) == 2
    found = {each.name for each in pkgutil.iter_modules([sysconfig.get_path("stdlib")])}
    # Not what test_crashes needs, nor what setuptools takes over; and nobody gives a module a name
    # with an underscore.
    found -= {"ctypes", "distutils", *used, *(name for name in found if name[0] == "_")}
    return sorted(found | ({"mmap", "resource"} - used))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A suite with a module of each name that pytest does not use, and the outcomes without us."""
    directory = tmp_path_factory.mktemp("shadows")
    write_files(directory, {"conftest.py": _CONFTEST, "test_it.py": f"NAMES = []\n{_TESTS}"})
    names = _unused(directory)
    (directory / "path").unlink()
    assert {"pickle", "resource"} <= set(names)
    files = {f"{name}.py": "1 / 0\n" for name in names}
    files["test_it.py"] = f"NAMES = {names}\n{_TESTS}"
    run = run_pytest(write_files(directory, files), "-n1")
    failed = [nodeid for nodeid, outcome in run.outcomes.items() if outcome != "PASSED"]
    assert failed == ["test_it.py::test_fails"], run.out
    write_files(directory, {"test_crash.py": _CRASH})
    return directory, run.outcomes


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("road", ["", "1"], ids=["", "portable"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("-n0", "--fkit-journal=journal", "--fkit-trace=trace", "--fkit-top=3"),
        ("-n1",),
        ("-n1", "--fkit-isolation=session"),
        ("-n1", "--fkit-start-method=spawn"),
    ],
    ids=" ".join,
)
def test_each_finds_its_own(
    plain: tuple[Path, dict[str, str]], arguments: tuple[str, ...], road: str
) -> None:
    directory, expected = plain
    (directory / "path").unlink()
    run = run_pytest(directory, "--fkit", *arguments, env={"FKIT_PORTABLE": road})
    outcomes = run.outcomes
    assert "SIGSEGV" in run.message("test_crash.py::test_crashes")
    assert outcomes.pop("test_crash.py::test_crashes") == "ERROR", run.out
    assert outcomes.pop("test_crash.py::test_passes_afterwards") == "PASSED", run.out
    assert outcomes == expected, run.out + run.err


_REFUSES = """
import os, resource, sys

class Refuses:
    def find_spec(self, *_):
        raise RuntimeError("no imports")

sys.meta_path.insert(0, Refuses())
sys.path_importer_cache.clear()
sys.path_hooks.clear()
sys.path.clear()
del sys.excepthook, sys.unraisablehook
# No temporary directory can be made: pytest writes a file into it.
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

def test_fails():
    assert 1 == 2

def test_exits():
    os._exit(3)

def test_crashes():
    os.abort()

def test_passes():
    pass
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_module_that_leaves_python_unable_to_import(tmp_path: Path, workers: str) -> None:
    """What is imported late, to explain a death, say, is imported even so."""
    write_files(tmp_path, {"test_it.py": _REFUSES})
    ended = run_pytest(tmp_path, "--fkit", workers, "-p", "no:cacheprovider")
    assert ended.outcomes == {
        "test_it.py::test_fails": "FAILED", "test_it.py::test_exits": "ERROR",
        "test_it.py::test_crashes": "ERROR", "test_it.py::test_passes": "PASSED",
    }, ended.out + ended.err  # fmt: skip
    assert ended.status == 1
    assert "SIGABRT" in ended.message("test_it.py::test_crashes")
