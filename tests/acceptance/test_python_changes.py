"""What Python 3.12 and 3.14 changed: warnings of forks, multiprocessing's default, annotations."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

# forkserver is the default on Linux from 3.14 on. Its server, and the tracker of resources, are
# children of the test that are left when it is over, and end when it has ended.
_SERVERS = """
import multiprocessing, sys
import pytest

CONTEXTS = [None, "forkserver", "spawn", "fork"]

@pytest.fixture(scope="module")
def wide(): return 3

@pytest.mark.parametrize("name", CONTEXTS)
def test_process(name, wide):
    process = multiprocessing.get_context(name).Process(target=sys.exit, args=(wide,))
    process.start()
    process.join()
    assert process.exitcode == 3

@pytest.mark.parametrize("name", CONTEXTS)
def test_pool(name):
    with multiprocessing.get_context(name).Pool(1) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
"""


@pytest.mark.parametrize("arguments", ["-n0", "-n1", "-n1 --fkit-isolation=session"])
def test_every_start_method_of_multiprocessing(tmp_path: Path, arguments: str) -> None:
    write_files(tmp_path, {"test_it.py": _SERVERS})
    ended = run_pytest(tmp_path, "--fkit", *arguments.split())
    assert ended.status == 0, ended.out
    assert set(ended.outcomes.values()) == {"PASSED"}
    assert "left processes running" not in ended.out


# The thread is started while tests are collected, so every fork of ours is one that 3.12 warns of.
_THREADS = """
import os, threading, time, warnings
import pytest

@pytest.fixture(scope="session", autouse=True)
def a_thread():
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()

def test_sees_none_of_our_warnings(recwarn):
    assert not recwarn.list

@pytest.mark.filterwarnings("default")
def test_sees_those_of_its_own_forks():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    print("warned", [each.category.__name__ for each in seen])
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> InnerRun:
    """The tests with a thread, without us."""
    directory = write_files(tmp_path_factory.mktemp("plain"), {"test_it.py": _THREADS})
    return run_pytest(directory, "-W", "error", "-p", "no:fkit")


@pytest.mark.parametrize("arguments", ["-n0", "-n1", "-n1 --fkit-isolation=session"])
def test_warnings_of_forks_are_those_of_plain_pytest(
    tmp_path: Path, plain: InnerRun, arguments: str
) -> None:
    write_files(tmp_path, {"test_it.py": _THREADS})
    ended = run_pytest(tmp_path, "-W", "error", "--fkit", *arguments.split())
    assert ended.outcomes == plain.outcomes, ended.out
    assert (ended.status, plain.status) == (0, 0)
    [said] = [line for line in plain.lines if line.startswith("warned")]
    assert said in ended.lines
    assert ("DeprecationWarning" in said) is (sys.version_info >= (3, 12))


# From 3.14 on they are evaluated when somebody asks (PEP 649); nobody of ours does.
_ANNOTATIONS = """
import pytest

@pytest.fixture(scope="module")
def wide(request: pytest.FixtureRequest) -> Nowhere: return 1

def test_a(wide: Nowhere, fkit_metrics: "NorThere") -> Nowhere: fkit_metrics["a"] = wide

class TestGroup:
    value: Nowhere
    def test_b(self, wide: Nowhere): pass
"""


@pytest.mark.parametrize("arguments", ["-n0", "-n1", "-n1 --fkit-start-method=spawn"])
def test_annotations_of_names_that_do_not_exist(tmp_path: Path, arguments: str) -> None:
    future = "" if sys.version_info >= (3, 14) else "from __future__ import annotations"
    text = _ANNOTATIONS.replace("import pytest", f"{future}\nimport pytest", 1)
    write_files(tmp_path, {"test_it.py": text})
    ended = run_pytest(tmp_path, "--fkit", *arguments.split())
    assert ended.status == 0, ended.out
    assert len(ended.outcomes) == 2


# 3.14: https://docs.python.org/3.14/library/sys.html#sys.remote_exec
@pytest.mark.skipif(sys.version_info < (3, 14), reason="sys.remote_exec is new in Python 3.14")
@pytest.mark.parametrize("arguments", ["-n0", "-n1"])
def test_code_from_another_process_runs_in_the_test_only(tmp_path: Path, arguments: str) -> None:
    suite = """
import os, subprocess, sys, time, pathlib
def test_a():
    pathlib.Path("script.py").write_text("import os; open('ran', 'a').write(f'{os.getpid()} ')")
    code = f"import sys; sys.remote_exec({os.getpid()}, 'script.py')"
    subprocess.run([sys.executable, "-c", code], check=True)
    deadline = time.monotonic() + 30
    while not os.path.exists("ran") and time.monotonic() < deadline: pass
    assert pathlib.Path("ran").read_text().split() == [str(os.getpid())]
def test_b(): pass
"""
    write_files(tmp_path, {"test_it.py": suite})
    if os.getuid() != 0:
        pytest.skip("a process may be forbidden to look into its parent's")
    ended = run_pytest(tmp_path, "--fkit", *arguments.split())
    assert ended.status == 0, ended.out
