"""Cores of test processes: found, moved, named, counted; taken by gdb if the kernel pipes them."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest
from inner import run_pytest

from pytest_fkit.sandbox.keeper.debugger import TOOLS, Runner
from pytest_fkit.sandbox.keeper.kept_cores import Cores, Keeping
from pytest_fkit.sandbox.process.crash_wait import crashed
from pytest_fkit.system import cores

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

needs_cores = pytest.mark.skipif(
    cores.is_piped(cores.pattern()) or not resource.getrlimit(resource.RLIMIT_CORE)[1],
    reason="the kernel writes no core files here",
)
needs_gdb = pytest.mark.skipif(not shutil.which("gdb"), reason="needs gdb")

_SUITE = """
import ctypes, faulthandler, os, resource, signal, subprocess, sys, threading, pytest

def crash_here_alone():
    ctypes.string_at(8)

def test_crashes(): crash_here_alone()

def test_crashes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thread = threading.Thread(target=crash_here_alone)
    thread.start()
    thread.join()

def test_does_not_wait():
    faulthandler.disable()
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    crash_here_alone()

@pytest.fixture(scope="module")
def wide(): os.abort()
def test_wide(wide): pass

def test_limits():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    print(f"core limit: {soft}")
    assert open("/proc/self/coredump_filter").read().strip() == os.environ["FILTER"]

def test_leaves_by_itself(): os._exit(3)
"""


def _found(directory: Path) -> dict[str, Path]:
    """The cores in a folder, by the name of the test."""
    return {
        re.sub(r"test_it\.py-(\w+)\.\d+\.core", r"\1", path.name): path
        for path in directory.iterdir()
        if not path.name.startswith(".")
    }


@needs_cores
def test_each_death_by_a_signal_has_a_core(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_SUITE)
    run = run_pytest(
        tmp_path, "-p", "no:cacheprovider", "--fkit", "-n2", "--fkit-cores=kept/here",
        "--fkit-keep-cores=9", "--fkit-journal=j.jsonl", "--junitxml=j.xml",
        env={"FILTER": "00000011", "FKIT_STACKS": "native"},
    )  # fmt: skip
    assert run.outcomes["test_it.py::test_limits"] == "PASSED", run.out
    assert re.search(r"core limit: [1-9]", run.out)
    found = _found(tmp_path / "kept/here")
    tests = ["crashes", "crashes_elsewhere", "does_not_wait", "wide"]
    assert sorted(found) == [f"test_{each}" for each in tests], run.out
    assert "4 cores were kept:" in run.out
    assert not list(tmp_path.glob("core*"))
    recorded = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    junit = (tmp_path / "j.xml").read_text()
    for name, path in found.items():
        program = os.path.realpath(sys.executable)
        assert f"core: {path}\nopen it with: gdb {program} {path}\n" in run.out
        assert f'<property name="fkit_core" value="{path}"' in junit
        assert any(
            report.get("fkit_core") == str(path)
            for each in recorded if each["event"] == "verdict" and each["test"].endswith(name)
            for report in each["reports"]
        )  # fmt: skip
        assert cores.read_core(str(path)).pid == int(path.name.split(".")[-2])
    if any(tool.of_core and shutil.which(tool.name) for tool in TOOLS):
        # One of the four did not wait: that is from its core.
        assert run.out.count("native stack of the thread that crashed, by ") == 4
    if shutil.which("gdb"):
        for name in ("test_crashes_elsewhere", "test_does_not_wait"):  # the thread that crashed
            assert "string_at" in _stack(found[name]), name


def _stack(core: Path) -> str:
    """The native functions of the thread that gdb shows first."""
    shown = subprocess.run(
        ["gdb", "-nx", "-batch", "-ex", "bt 12", os.path.realpath(sys.executable), str(core)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return shown.stdout


@needs_cores
def test_so_many_are_kept_and_limits_stay_without_the_option(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_SUITE)
    run = run_pytest(
        tmp_path, "-p", "no:cacheprovider", "--fkit", "-n0", "--fkit-cores=kept",
        "--fkit-keep-cores=1", "-k", "test_crashes or wait", env={"FILTER": ""},
    )  # fmt: skip
    assert list(_found(tmp_path / "kept")) == ["test_crashes"]
    assert "no core of 2 tests: 1 of this run are kept (--fkit-keep-cores)" in run.out
    assert not list(tmp_path.glob("core*"))
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    plain = Path("/proc/self/coredump_filter").read_text().strip()
    without = run_pytest(
        tmp_path, "-p", "no:cacheprovider", "--fkit", "-n0", "-k", "test_limits",
        env={"FILTER": plain},
    )  # fmt: skip
    assert without.outcomes["test_it.py::test_limits"] == "PASSED"
    assert f"core limit: {soft}" in without.out


def test_a_hard_limit_of_0_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_SUITE)
    run = run_pytest(
        tmp_path, "-p", "no:cacheprovider", "--fkit", "-n1", "--fkit-cores=kept",
        "-k", "test_crashes or wait", ulimit="-Hc 0", env={"FILTER": ""},
    )  # fmt: skip
    assert run.out.count("the hard limit on core files is 0") == 1
    assert "no core of 3 tests: the hard limit on core files is 0" in run.out
    assert not _found(tmp_path / "kept")


# --- a kernel that pipes cores, as this test says and not the machine -----------------------------

_CRASHES = """
import ctypes, faulthandler, threading
from pytest_fkit.protocol.descriptors import slots
from pytest_fkit.sandbox.process import crash_wait
crash_wait.install()
faulthandler.enable(file=open("dump", "wb"))
thread = threading.Thread(target=ctypes.string_at, args=(8,))
thread.start()
thread.join()
"""


def _until(condition: Callable[[], bool], limit: float) -> bool:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@needs_gdb
def test_gdb_takes_the_core_that_the_kernel_would_pipe_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = tmp_path / "core_pattern"
    pattern.write_text("|/usr/lib/systemd/systemd-coredump %P %u %g %s %t %c %h\n")
    monkeypatch.setattr(cores, "_PATTERN", str(pattern))
    process = subprocess.Popen([sys.executable, "-c", _CRASHES], cwd=tmp_path)
    try:
        assert _until(lambda: crashed(process.pid) is not None, 30)
        found = crashed(process.pid)
        assert found is not None
        runner = Runner(_until, lambda pid: None)
        keeping = Keeping(str(tmp_path / "kept"), 3, "run")
        core = Cores(keeping, runner, _until).let_die(process.pid, *found)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -11
    if core.why_not:
        pytest.skip(core.why_not)  # gdb may not attach here
    assert cores.read_core(core.path).pid == process.pid
    assert "string_at" in _stack(Path(core.path))
    assert not list(tmp_path.glob("core.[0-9]*"))


def test_a_pipe_that_nobody_can_reach_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = tmp_path / "core_pattern"
    pattern.write_text("|/wsl-capture-crash %t %E %p %s\n")
    monkeypatch.setattr(cores, "_PATTERN", str(pattern))
    keeper = Cores(
        Keeping(str(tmp_path / "kept"), 3, "run"), Runner(_until, lambda pid: None), _until
    )
    core = keeper.of_dead(2**22 + 1, 11, dumped=True)
    assert core is not None
    assert core.why_not.startswith("core_pattern pipes cores to wsl-capture-crash, from which none")
    assert keeper.of_dead(2**22 + 1, 9, dumped=False) is None
