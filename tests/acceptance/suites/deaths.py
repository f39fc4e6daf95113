"""Tests that end in every way a test can end. The file is copied into inner runs."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import pathlib
import resource
import signal
import sys
import tempfile
import threading
from typing import Iterator

import pytest

log = logging.getLogger("suite")


def speak() -> None:
    print("said on stdout")
    print("said on stderr", file=sys.stderr)
    log.warning("said in the log")


def crash() -> None:
    ctypes.string_at(0)  # here: crash


# --- signals ---


def test_before() -> None:
    print("only of test_before")
    log.warning("only of test_before")


def test_segv() -> None:
    speak()
    ctypes.string_at(0)  # here: test_segv


def test_after_segv() -> None:
    raise AssertionError("fails to have a report")


def test_abrt() -> None:
    os.abort()  # here: test_abrt


def test_fatal_error() -> None:
    ctypes.pythonapi.Py_FatalError(b"said by C")  # here: test_fatal_error


def test_bus() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        file.truncate(0)
        memory[0]  # here: test_bus


def test_fpe() -> None:
    os.kill(os.getpid(), signal.SIGFPE)  # here: test_fpe


def test_ill() -> None:
    os.kill(os.getpid(), signal.SIGILL)  # here: test_ill


def test_kill() -> None:
    speak()
    os.kill(os.getpid(), signal.SIGKILL)


def test_term() -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # here: test_term


def test_usr1() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def test_stack_overflow() -> None:
    # A small stack, so that it overflows before Python's own limit on calls in C.
    resource.setrlimit(resource.RLIMIT_STACK, (256 * 1024, resource.RLIM_INFINITY))
    sys.setrecursionlimit(1_000_000)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    libc = ctypes.CDLL(None)
    data = (ctypes.c_int * 2)(2, 1)

    def again(first: int, second: int) -> int:
        libc.qsort(data, 2, 4, compare)
        return 0

    compare = kind(again)
    again(0, 0)


def test_thread() -> None:
    begin = threading.Event()

    def wait_and_crash() -> None:
        begin.wait()
        crash()

    thread = threading.Thread(target=wait_and_crash)
    thread.start()
    begin.set()
    thread.join()


# --- phases ---


@pytest.fixture
def dies_in_setup() -> None:
    speak()
    ctypes.string_at(0)  # here: dies_in_setup


def test_setup(dies_in_setup: None) -> None:
    pass


@pytest.fixture
def dies_in_teardown() -> Iterator[None]:
    print("said in setup")
    yield
    speak()
    ctypes.string_at(0)  # here: dies_in_teardown


def test_teardown(dies_in_teardown: None) -> None:
    print("said in call")


def test_teardown_after_failure(dies_in_teardown: None) -> None:
    raise AssertionError("the call failed before")


def test_atexit() -> None:
    import atexit

    atexit.register(crash)


class TestXunit:
    def setup_method(self, method: object) -> None:
        ctypes.string_at(0)  # here: setup_method

    def test_setup_method(self) -> None:
        pass


# --- exits ---


def test_exit_0() -> None:
    speak()
    os._exit(0)


def test_exit_3() -> None:
    os._exit(3)


def test_execv() -> None:
    os.execv(sys.executable, [sys.executable, "-c", "pass"])


def test_sys_exit() -> None:
    sys.exit("leaving")


# --- what reports and output carry ---


class CrashesInReprError(Exception):
    def __str__(self) -> str:
        ctypes.string_at(0)  # here: repr
        return ""

    __repr__ = __str__


def test_repr_crashes() -> None:
    raise CrashesInReprError


class NotPicklableError(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.lock = threading.Lock()


def test_not_picklable() -> None:
    raise NotPicklableError


def test_surrogates() -> None:
    print("before \udc80 after")
    log.warning("log \udc80")
    raise AssertionError("lone \udc80 surrogate")


def test_bytes() -> None:
    os.write(1, b"before \xff\xfe after\n")
    ctypes.string_at(0)


def test_property(record_property: object) -> None:
    record_property("path", pathlib.Path("/some/where"))  # type: ignore[operator]


def test_capsys(capsys: pytest.CaptureFixture[str]) -> None:
    print("consumed")
    capsys.readouterr()
    speak()
    sys.stdout.buffer.write(b"as bytes\n")
    ctypes.string_at(0)  # here: test_capsys


def test_capfd(capfd: pytest.CaptureFixture[str]) -> None:
    speak()
    os.system("echo from a process")
    ctypes.string_at(0)  # here: test_capfd


@pytest.fixture
def noisy(capfd: pytest.CaptureFixture[str]) -> None:
    print("from the fixture")


def test_capfd_reads_its_own(noisy: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert capfd.readouterr().out == "from the fixture\n"


def test_capfd_reads_processes(noisy: None, capfd: pytest.CaptureFixture[str]) -> None:
    os.system("echo from a process")
    assert capfd.readouterr().out == "from the fixture\nfrom a process\n"


def test_capsys_fails(capsys: pytest.CaptureFixture[str]) -> None:
    print("held back")
    raise AssertionError("fails with capsys")


# --- attacks ---


def test_closes_everything() -> None:
    os.closerange(0, 65536)


def test_closes_usual_descriptors() -> None:
    os.closerange(3, 256)


def test_kills_parent() -> None:
    speak()
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def test_kills_group() -> None:
    os.killpg(0, signal.SIGKILL)


def note(name: str) -> None:
    with open("finalized", "a") as file:
        file.write(f"{name}\n")


@pytest.fixture
def finalized(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    note(request.node.name)


def test_copy_returns(finalized: None) -> None:
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0


def test_copy_raises(finalized: None) -> None:
    pid = os.fork()
    if pid == 0:
        raise ValueError("in the copy")
    assert os.waitpid(pid, 0)[1] != 0


@pytest.fixture
def forks(request: pytest.FixtureRequest) -> Iterator[None]:
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    yield
    note(request.node.name)


def test_fixture_forks(forks: None) -> None:
    pass


@pytest.fixture
def forks_at_the_end(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        note(request.node.name)


def test_finalizer_forks(finalized: None, forks_at_the_end: None) -> None:
    pass


def test_leaves_threads() -> None:
    threading.Thread(target=signal.sigwait, args=([signal.SIGUSR2],)).start()


# --- skipped tests set nothing up ---


@pytest.fixture
def crashes() -> None:
    os.abort()


@pytest.fixture(scope="session")
def crashes_session_wide() -> None:
    os.abort()


@pytest.mark.skip(reason="by mark")
def test_skip(crashes: None) -> None:
    pass


@pytest.mark.skipif(sys.version_info > (3,), reason="by condition")
def test_skipif(crashes_session_wide: None, crashes: None) -> None:
    pass


@pytest.mark.xfail(run=False, reason="not run")
def test_xfail_not_run(crashes_session_wide: None, crashes: None) -> None:
    pass


# --- xfail ---


@pytest.mark.xfail(reason="known")
def test_xfail() -> None:
    crash()


@pytest.mark.xfail(strict=True, reason="known, strictly")
def test_xfail_strict() -> None:
    crash()


@pytest.mark.xfail(raises=ValueError, reason="another")
def test_xfail_raises() -> None:
    crash()


@pytest.mark.xfail(False, reason="does not apply")
def test_xfail_off() -> None:
    crash()


@pytest.mark.xfail(reason="known")
def test_xfail_setup(crashes: None) -> None:
    pass


@pytest.fixture
def crashes_after() -> Iterator[None]:
    yield
    os.abort()


@pytest.mark.xfail(reason="known")
def test_xfail_teardown(crashes_after: None) -> None:
    raise AssertionError("expected, too")


def test_add_marker(request: pytest.FixtureRequest) -> None:
    request.node.add_marker(pytest.mark.xfail(reason="found out late"))
    crash()


def test_applymarker(request: pytest.FixtureRequest) -> None:
    request.applymarker(pytest.mark.xfail(reason="found out late"))
    crash()


def test_add_marker_raises(request: pytest.FixtureRequest) -> None:
    request.node.add_marker(pytest.mark.xfail(reason="another", raises=ValueError))
    crash()


def test_at_the_end() -> None:
    pass
