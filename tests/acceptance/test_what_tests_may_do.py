"""A test's process is to the operating system what plain pytest's is, started from a shell."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from inner import run_pytest, write_files

_SUITE = """
import fcntl, os, signal, subprocess, sys, threading, time
import pytest

SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]

def test_leads_a_group_in_a_session_of_another():
    assert os.getpgrp() == os.getpid()
    os.setpgrp()
    os.setpgid(0, 0)
    with pytest.raises(PermissionError):
        os.setsid()
    assert os.getsid(0) != os.getpid()

def test_ends_its_group():
    os.setpgrp()
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1000)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert os.waitpid(pid, 0)[1] == signal.SIGTERM

@pytest.mark.parametrize("number", range(3))
def test_interrupts_its_parent(number, tmp_path):
    os.kill(os.getppid(), signal.SIGINT)

def test_leaves_a_process_in_a_group_of_its_own():
    subprocess.Popen(SLEEP, preexec_fn=os.setpgrp)

def test_leaves_a_thread_that_a_fresh_interpreter_waits_for():
    threading.Thread(target=time.sleep, args=(1000,)).start()

@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_has_neither_sockets_nor_event_descriptors():
    unexpected, ours = [], 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one of the listing
            continue
        if target.startswith(("socket:", "anon_inode:")):
            unexpected.append((name, target))
        if int(name) >= 1024:
            ours += 1
            if not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                unexpected.append((name, target))
    assert not unexpected
    assert ours <= 9  # files, and two pipes
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("-n1",),
        ("-n0", "--fkit-isolation=session"),
        ("-n1", "--fkit-start-method=spawn"),
    ],
    ids=["forked", "shared", "spawned"],
)
def test_groups_sessions_and_descriptors(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_files(tmp_path, {"test_it.py": _SUITE})
    ended = run_pytest(
        tmp_path, "--fkit", "--fkit-timeout=20", "-p", "no:cacheprovider", *arguments
    )
    wrong = {name: found for name, found in ended.outcomes.items() if found != "PASSED"}
    if not sys.platform.startswith("linux"):
        wrong = {name: found for name, found in wrong.items() if found != "SKIPPED"}
    assert not wrong, ended.out
    assert "1 test left processes running" in ended.out


_HOLDS = """
import fcntl, os, socket, sys
from pathlib import Path
import pytest

kept = []

@pytest.mark.parametrize("number", range(4))
def test_all_that_the_last_one_held_is_free(number):
    server = socket.socket()
    server.bind(("127.0.0.1", int(os.environ["PORT"])))
    server.listen()
    lock = open("lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    kept.extend([server, lock, bytearray(os.urandom(1 << 20) * 100)])
    last = Path("pid")
    if last.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(last.read_text()), 0)
    last.write_text(str(os.getpid()))
    sys.addaudithook(forbid)

def forbid(event, args):
    if event in ("open", "os.listdir", "mmap.__new__"):
        raise ValueError(event)

@pytest.mark.parametrize("number", range(2))
def test_a_copy_does_not_speak_for_the_test(number):
    os.fork()
"""


def test_the_next_test_begins_when_the_last_process_has_ended(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    write_files(tmp_path, {"test_it.py": _HOLDS})
    ended = run_pytest(tmp_path, "--fkit", "-n0", env={"PORT": str(port)})
    assert " 6 passed in " in ended.lines[-1], ended.out


_HANDLERS = """
import os, sys, warnings

def warns(text, category=RuntimeWarning):
    warnings.warn(f"overheard {text}", category, stacklevel=2)

def shows(text):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warns(text)

def raises():
    raise ValueError("overheard error")

os.register_at_fork(before=lambda: warns("before"))
os.register_at_fork(before=lambda: shows("that insists"))
os.register_at_fork(before=raises)
os.register_at_fork(after_in_parent=lambda: warns("in the parent", UserWarning))
os.register_at_fork(after_in_child=lambda: warns("in the child", DeprecationWarning))
"""

_FORKED = """
import gc, os, sys, warnings
import pytest

@pytest.fixture(scope="module")
def wide():
    return 1

@pytest.mark.parametrize("number", range(2))
def test_hears_nothing(wide, number, recwarn, capfd):
    assert gc.isenabled()
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")

def test_forks_itself():
    heard = []
    hook, sys.unraisablehook = sys.unraisablehook, heard.append
    with pytest.warns() as warned:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    sys.unraisablehook = hook
    assert "overheard before" in [str(each.message) for each in warned]
    assert len(heard) >= 1
"""

_LEAVES = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()

def test_in_a_fresh_interpreter():
    assert threading.active_count() == 2
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_nobody_hears_what_handlers_of_forks_say(tmp_path: Path, workers: str) -> None:
    files = {"conftest.py": _HANDLERS, "test_a.py": _FORKED, "test_b.py": _LEAVES}
    write_files(tmp_path, files)
    for filters in ("error", "always"):
        arguments = ("--fkit", workers, "-p", "no:cacheprovider", "-W", filters)
        ended = run_pytest(tmp_path, *arguments)
        assert ended.status == 0, ended.out
        assert "overheard" not in ended.out + ended.err


_MONITORED = """
import threading
from types import ModuleType
import sys

class TMonitor(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.was_killed = threading.Event()
        self.start()

    def run(self):
        self.was_killed.wait()

TMonitor.__module__ = "tqdm._monitor"
"""

_NUMBA = """
import sys
from types import ModuleType

for name, values in {
    "numba.np.ufunc.parallel": {"_threading_layer": "omp"},
    "numba.np.ufunc.omppool": {"openmp_vendor": "GNU"},
}.items():
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(values)
"""

_POOL = """
import os
from concurrent.futures import ThreadPoolExecutor

POOL = ThreadPoolExecutor(1)
POOL.submit(int).result()
"""

_TESTS = """
import os
import pytest
from helper import *
IMPORTED_IN = os.getpid()

def test_1():
    assert (IMPORTED_IN == os.getpid()) is {shares}
    if "POOL" in globals():
        assert POOL.submit(int, "1").result(10) == 1
"""


@pytest.mark.parametrize(
    ("helper", "cause"),
    [
        (_MONITORED + "TMonitor()\n", ""),
        (_NUMBA, "numba's threads of GNU OpenMP"),
        (_POOL, "thread 'ThreadPoolExecutor-0_0'"),
    ],
    ids=["tqdm", "numba", "pool"],
)
def test_what_a_plugin_left_before_conftest_files_is_known(
    tmp_path: Path, helper: str, cause: str
) -> None:
    write_files(tmp_path, {"helper.py": helper, "test_it.py": _TESTS.format(shares=bool(cause))})
    for workers in ("-n0", "-n1"):
        ended = run_pytest(
            tmp_path,
            *("--fkit", workers, "-p", "no:cacheprovider", "-p", "helper", "--fkit-timeout=30"),
            env={"PYTHONPATH": str(tmp_path)},
        )
        assert ended.status == 0, ended.out
        expected = f"because of a plugin, or the program that runs pytest: {cause}"
        assert (expected in ended.out) is bool(cause), ended.out
