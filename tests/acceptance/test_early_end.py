"""The next test may begin while the memory of the last one's process is taken down, not before."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from inner import run_pytest, write_files

_LETS_GO = """\
import fcntl
import os
import socket
import pytest

kept = []

@pytest.mark.parametrize("number", range(20))
def test_port(number):
    server = socket.socket()
    server.bind(("127.0.0.1", int(os.environ["PORT"])))
    server.listen()
    kept.append(server)

@pytest.mark.parametrize("number", range(20))
def test_lock(number):
    file = open("lock", "w")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    kept.append(file)
"""


def test_ports_and_locks_are_free_for_the_next_test(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    write_files(tmp_path, {"test_it.py": _LETS_GO})
    ended = run_pytest(tmp_path, "--fkit", "-n0", env={"PORT": str(port)})
    assert " 40 passed in " in ended.lines[-1], ended.out


_IS_WAITED_FOR = """\
import os
import subprocess
import sys
from pathlib import Path
import pytest

kept = []

def end_of_former():
    pid = Path("pid").read_text()
    Path("pid").unlink()
    return not Path("/proc", pid).exists()

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    if number % 2:
        assert end_of_former()
        return
    Path("pid").write_text(str(os.getpid()))
    if sys.argv[-1] == "memory":
        kept.append(bytearray(os.urandom(1 << 20) * 300))
    elif sys.argv[-1] == "device":
        kept.append(open("/dev/ptmx", "rb"))
    else:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
"""


@pytest.mark.parametrize("what", ["memory", "device", "child"])
def test_the_end_is_waited_for_where_it_gives_something_back(tmp_path: Path, what: str) -> None:
    write_files(tmp_path, {"test_it.py": _IS_WAITED_FOR.replace("sys.argv[-1]", repr(what))})
    ended = run_pytest(tmp_path, "--fkit", "-n0", timeout=60)
    assert " 6 passed in " in ended.lines[-1], ended.out
    assert ("left processes running" in ended.out) is (what == "child")


_COPIES = """\
import os
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    os.fork()
"""


def test_a_copy_of_the_test_process_does_not_speak_for_it(tmp_path: Path) -> None:
    write_files(tmp_path, {"test_it.py": _COPIES})
    ended = run_pytest(tmp_path, "--fkit", "-n0")
    assert " 4 passed in " in ended.lines[-1], ended.out


_ENDINGS = """\
import os
import signal
import pytest

@pytest.mark.parametrize("number", range(12))
def test_it(number):
    if number % 3 == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number % 3 == 2:
        os.closerange(3, 4096)
"""


def test_those_that_can_say_nothing_are_seen_to_end(tmp_path: Path) -> None:
    write_files(tmp_path, {"test_it.py": _ENDINGS})
    ended = run_pytest(tmp_path, "--fkit", "-n0", timeout=60)
    assert " 4 passed, 8 errors in " in ended.lines[-1], ended.out
    for number in range(12):
        said = ["", "SIGSEGV", "lost: it closed the descriptor by which its reports are sent"]
        line = f"ERROR test_it.py::test_it[{number}] - {said[number % 3]}"
        assert any(each.startswith(line) for each in ended.lines) is (number % 3 > 0), ended.out
