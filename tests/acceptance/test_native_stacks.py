"""Native stacks in reports on crashes and hangs, by each debugger that is installed."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest
from inner import InnerRun, run_pytest, write_files

from pytest_fkit.sandbox.keeper.debugger import TOOLS, Debugger, Runner, Tools

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

_LIBRARY = """
#include <pthread.h>
#include <stdlib.h>
static void frob(int *place) { *place = 1; }
static void twiddle(int *place) { frob(place); }
void crash(void) { twiddle(0); }
static void *routine(void *unused) { crash(); return unused; }
void crash_in_thread(void) {
    pthread_t thread;
    pthread_create(&thread, 0, routine, 0);
    pthread_join(thread, 0);
}
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
void lock_twice(void) { pthread_mutex_lock(&mutex); pthread_mutex_lock(&mutex); }
void give_up(void) { abort(); }
"""

_SUITE = """
import ctypes, faulthandler, multiprocessing, os, signal, time, pytest

library = ctypes.CDLL(os.path.abspath("libfrob.so"))


def crash_without_faulthandler():
    faulthandler.disable()
    library.crash()


def ended_by(target):
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join(30)
    return process.exitcode


def test_crash(): library.crash()
def test_thread(): library.crash_in_thread()
@pytest.mark.fkit(timeout=3)
def test_hang(): library.lock_twice()
def test_abort(): library.give_up()
def test_kill(): os.kill(os.getpid(), signal.SIGSEGV)
def test_keeper():
    os.kill(os.getsid(0), signal.SIGSEGV)
    time.sleep(60)
def test_disabled(): crash_without_faulthandler()
def test_child(): assert ended_by(library.crash) == -signal.SIGSEGV
def test_child_disabled(): assert ended_by(crash_without_faulthandler) == -signal.SIGSEGV
@pytest.fixture(scope="module")
def wide(): library.crash()
def test_wide(wide): pass
def test_passes(): pass
@pytest.mark.parametrize("number", range(5))
def test_again(number): library.crash()
"""

_INSTALLED = [tool.name for tool in TOOLS if shutil.which(tool.name)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("native")
    (made / "frob.c").write_text(_LIBRARY)
    (made / "test_it.py").write_text(_SUITE)
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    subprocess.run(
        [compiler, "-g", "-O0", "-shared", "-fPIC", "frob.c", "-o", "libfrob.so", "-lpthread"],
        cwd=made, check=True, timeout=60,
    )  # fmt: skip
    return made


def _run(directory: Path, tools: list[str], *arguments: str) -> InnerRun:
    """Run the suite where only these debuggers are installed."""
    programs = directory / "-".join(["bin", *tools])
    programs.mkdir(exist_ok=True)
    for name in tools:
        found = shutil.which(name)
        if found and not (programs / name).exists():
            (programs / name).symlink_to(found)
    env = {"PATH": str(programs), "FKIT_STACKS": ""}
    for _ in range(3):
        run = run_pytest(
            directory, "-p", "no:cacheprovider", "-rA", "--fkit", "--fkit-timeout=60", *arguments,
            env=env,
        )  # fmt: skip
        # Because of other runs on this machine, which have debuggers, too, or keep it busy.
        if not re.search("another crash's stack was being taken|did not answer within", run.out):
            break
    return run


def _report(run: InnerRun, name: str) -> str:
    """The report on a test's death."""
    _, found, rest = run.out.partition(f" of {name} ___")
    assert found, run.out
    return rest.partition("\nreproduce: ")[0]


@pytest.mark.parametrize("tool", [tool.name for tool in TOOLS if tool.name != "py-spy"])
def test_the_functions_of_a_library_are_in_the_report(directory: Path, tool: str) -> None:
    if tool not in _INSTALLED:
        pytest.skip(f"{tool} is not installed")
    run = _run(directory, [tool], "-n0", "-k", "test_thread or test_hang or test_passes")
    assert run.outcomes == {
        "test_it.py::test_thread": "ERROR",
        "test_it.py::test_hang": "ERROR",
        "test_it.py::test_passes": "PASSED",
    }
    crash, hang = _report(run, "test_thread"), _report(run, "test_hang")
    assert f"native stack of the thread that crashed, by {tool}:\n  > frob at " in crash
    assert "frob.c:4" in crash.partition("> frob")[2].splitlines()[0]
    assert [f"    {name} at " in crash for name in ("twiddle", "crash", "routine")] == [True] * 3
    assert run.message("test_it.py::test_thread").startswith("SIGSEGV in frob (")
    assert f"native stacks of all threads, by {tool}:" in hang
    assert "  > lock_twice at " in hang


@pytest.mark.skipif(not _INSTALLED, reason="no debugger is installed")
@pytest.mark.parametrize(
    "arguments", [("-n1",), ("-n0", "--fkit-start-method=spawn")], ids=["fork", "spawn"]
)
def test_who_crashes_ends_as_without_a_debugger(
    directory: Path, arguments: tuple[str, ...]
) -> None:
    run = _run(directory, _INSTALLED, *arguments, "-k", "not hang and not thread and not again")
    errors = {
        nodeid: message.partition(" at ")[0].partition(" in ")[0].partition(" while ")[0]
        for outcome, nodeid, message in run.reported
        if outcome == "ERROR"
    }
    assert errors == {
        "test_it.py::test_crash": "SIGSEGV",
        "test_it.py::test_abort": "SIGABRT",
        "test_it.py::test_kill": "SIGSEGV",
        "test_it.py::test_keeper": "lost: its keeper process was ended by SIGSEGV",
        "test_it.py::test_disabled": "SIGSEGV",
        "test_it.py::test_wide": "SIGSEGV",
    }
    assert sorted(set(run.outcomes) - set(errors)) == [
        "test_it.py::test_child",
        "test_it.py::test_child_disabled",
        "test_it.py::test_passes",
    ]
    assert "  > frob at " in _report(run, "test_wide")
    assert "  > frob at " in _report(run, "test_disabled")
    if {"gdb", "eu-stack"} & set(_INSTALLED):  # pystack names what follows the call of abort()
        assert "  > give_up at " in _report(run, "test_abort")


_IMPORTS = {
    "quick.py": """
import pytest_fkit.config.settings as settings
settings.SHORTEST_START_LIMIT = 6
""",
    "test_crash.py": """
import ctypes, multiprocessing
library = ctypes.CDLL("{library}")
process = multiprocessing.get_context("fork").Process(target=library.crash)
process.start()  # it waits, too, and has to be let go
process.join()
assert process.exitcode == -11
library.crash_in_thread()
""",
    "test_hang.py": """
import ctypes
ctypes.CDLL("{library}").lock_twice()
""",
    "test_at_once.py": """
import ctypes, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGSEGV])
ctypes.CDLL("{library}").crash()
""",
    "test_passes.py": "def test_passes(): pass\n",
}


@pytest.mark.skipif(not _INSTALLED, reason="no debugger is installed")
def test_an_import_that_crashes_or_hangs_has_its_native_stack(
    directory: Path, tmp_path: Path
) -> None:
    library = str(directory / "libfrob.so")
    write_files(
        tmp_path, {name: text.replace("{library}", library) for name, text in _IMPORTS.items()}
    )
    run = run_pytest(
        tmp_path, "-p", "no:cacheprovider", "-p", "quick", "--fkit", "-n2", "--fkit-timeout=6",
        env={"FKIT_STACKS": "native"},
    )  # fmt: skip
    # One report on each, though both workers tried each: no numbers of threads are in it.
    assert sorted(run.outcomes) == [
        "test_at_once.py", "test_crash.py", "test_hang.py", "test_passes.py::test_passes",
    ]  # fmt: skip
    assert run.message("test_crash.py").startswith("SIGSEGV in frob (")
    assert run.message("test_at_once.py") == "SIGSEGV"
    crash, hang, at_once = (
        run.out.partition(f" ERROR collecting {name}.py ___")[2].partition("\n____")[0]
        for name in ("test_crash", "test_hang", "test_at_once")
    )
    assert "native stack of the thread that crashed, by " in crash
    assert [f"    {name} at " in crash for name in ("twiddle", "crash", "routine")] == [True] * 3
    assert "native stacks of all threads, by " in hang
    assert "  > lock_twice at " in hang
    assert ": the process died at once: it had blocked the signal" in at_once


@pytest.mark.skipif(not _INSTALLED, reason="no debugger is installed")
def test_nobody_is_asked_again_and_again_for_crashes_that_are_alike(directory: Path) -> None:
    run = _run(directory, _INSTALLED, "-n0", "-k", "test_again")
    messages = {message for _, nodeid, message in run.reported if "test_again" in nodeid}
    seen, inferred = sorted(messages)
    assert seen.startswith("SIGSEGV in frob (")
    assert inferred == seen.replace(" in ", " probably in ", 1)
    assert run.out.count("native stack of the thread that crashed, by ") == 3
    assert run.out.count("native stack of an earlier crash with the same signal, Python") == 2
    assert run.out.count("  > frob at ") == 5


def test_debuggers_of_a_machine_take_turns(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    another = os.open("/tmp", os.O_RDONLY)
    fcntl.flock(another, fcntl.LOCK_EX)

    def until(condition: Callable[[], bool], limit: float) -> bool:
        end = time.monotonic() + limit
        while not condition() and time.monotonic() < end:
            pass
        return condition()

    with (tmp_path / "out").open("wb") as file:
        runner = Runner(until, lambda pid: None)
        trouble = runner.run(("touch", str(ran)), file.fileno(), file.fileno(), 1.0)
        assert trouble == "another crash's stack was being taken for 0.5 s"
        assert not ran.exists()
        os.close(another)
        stopped = Runner(until, lambda pid: None, lambda: time.monotonic() - 1)
        assert stopped.run(("touch", str(ran)), file.fileno(), file.fileno(), 20.0) != ""
        assert not ran.exists()
        assert runner.run(("touch", str(ran)), file.fileno(), file.fileno(), 20.0) == ""
        assert ran.exists()


def test_who_is_traced_already_is_not_attached_to() -> None:
    traced = os.fork()
    if traced == 0:
        ctypes.CDLL(None).ptrace(0, 0, 0, 0)  # PTRACE_TRACEME
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        os.waitpid(traced, os.WUNTRACED)
        debugger = Debugger(Tools(TOOLS[0], TOOLS[1]), Runner(lambda holds, limit: False, print))
        assert debugger.stacks(traced).trouble.startswith(f"traced already, by pid {os.getpid()} ")
    finally:
        os.kill(traced, signal.SIGKILL)
        os.waitpid(traced, 0)


def test_without_a_debugger_one_line_says_what_to_install(directory: Path) -> None:
    run = _run(directory, [], "-n0", "-k", "test_crash or test_child")
    assert run.outcomes["test_it.py::test_crash"] == "ERROR"
    assert run.out.count("no native stack: install gdb") == 1
    quiet = _run(directory, [], "-n0", "-k", "test_crash", "--fkit-stacks=python")
    assert "native stack" not in quiet.out


def test_a_debugger_that_may_not_attach_says_so(directory: Path, tmp_path: Path) -> None:
    tool = tmp_path / "gdb"
    # As gdb 13 prints it in a container without CAP_SYS_PTRACE.
    tool.write_text("#!/bin/sh\necho 'ptrace: Operation not permitted.' >&2\nexit 1\n")
    tool.chmod(0o755)
    run = run_pytest(
        directory, "-p", "no:cacheprovider", "-rA", "--fkit", "-n0", "-k", "test_crash",
        env={"PATH": str(tmp_path), "FKIT_STACKS": "native"},
    )  # fmt: skip
    assert run.message("test_it.py::test_crash").startswith("SIGSEGV at ")
    assert "no native stack: gdb: attaching to a process is not permitted here" in run.out
