"""What a test leaves running is named and ended; what a wide fixture started is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from inner_runs import Outcome, Run, run, started, wait_until

_SUITE = """
    import multiprocessing, os, signal, subprocess, sys, threading, time
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import shared_memory
    from pathlib import Path
    import psutil
    import pytest

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])
    SLEEP = "import time; time.sleep(1000)"
    DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP

    def program(text, *words, **options):
        return subprocess.Popen([sys.executable, "-c", text, *words], **options)

    def daemonise(word):
        '''Start a program as a daemon that holds every inherited descriptor.'''
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for descriptor in os.listdir("/proc/self/fd") if os.path.isdir("/proc") else "":
                    try:
                        os.set_inheritable(int(descriptor), True)
                    except OSError:
                        pass
                os.write(writer, str(os.getpid()).encode())
                os.execv(sys.executable, [sys.executable, "-c", SLEEP, word])
            os._exit(0)
        os.wait()
        return int(os.read(reader, 100))

    def test_program():
        program(SLEEP, "left-program")

    def test_deaf_program():
        program(DEAF, "left-deaf")

    def test_two_programs_in_sessions_of_their_own():
        program(SLEEP, "left-first", start_new_session=True)
        program(SLEEP, "left-second", start_new_session=True)

    def test_daemon():
        daemonise("left-daemon")

    def test_daemon_of_a_test_that_dies():
        daemonise("left-by-the-dead")
        os.abort()

    def test_copy_that_stays():
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)

    def test_stopped_program():
        os.kill(program(SLEEP, "left-stopped").pid, signal.SIGSTOP)

    def test_threads():
        threading.Thread(target=time.sleep, args=(1000,)).start()

    def test_failing():
        program(SLEEP, "left-failing")
        assert False

    def test_program_that_ends_by_itself():
        program("import sys; sys.stdin.read()", stdin=subprocess.PIPE)

    def test_pool():
        pool = multiprocessing.get_context("fork").Pool(2)
        assert pool.map(abs, [-1, -2]) == [1, 2]

    def test_spawned_pool():
        pool = multiprocessing.get_context("spawn").Pool(1)
        assert pool.map(abs, [-1]) == [1]

    def test_executor():
        global executor  # so that nothing but the end of the process ends it
        executor = ProcessPoolExecutor(1)
        assert executor.submit(abs, -1).result() == 1

    def test_shared_memory():
        memory = shared_memory.SharedMemory(create=True, size=4096)
        (DIRECTORY / "memory.txt").write_text(memory.name)

    @pytest.fixture(scope="session")
    def servers():
        server = program(SLEEP, "fixture-server")
        daemon = daemonise("fixture-daemon")
        yield server.pid, daemon
        alive = [psutil.Process(pid).status() for pid in (server.pid, daemon)]
        (DIRECTORY / "servers.txt").write_text(" ".join(alive))
        os.kill(daemon, signal.SIGKILL)
        server.kill()
        server.wait()

    @pytest.mark.parametrize("number", range(3))
    def test_servers(servers, number):
        for pid in servers:
            assert psutil.Process(pid).status() in ("sleeping", "running")
        program(SLEEP, "left-beside-servers")

    @pytest.fixture(scope="module")
    def forgetful():
        daemonise("left-by-fixture")

    def test_last(forgetful):
        pass
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    directory = tmp_path_factory.mktemp("left")
    outcome = run(directory, {"test_l.py": _SUITE}, "--fkit", "-n1", "--fkit-timeout=10")
    for name in ("servers.txt", "memory.txt"):
        outcome.stdout += f"\n{name}: {(directory / name).read_text()}"
    return outcome


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_program", ["left-program"]),
        ("test_deaf_program", ["SIG_IGN"]),
        ("test_two_programs_in_sessions_of_their_own", ["left-first", "left-second"]),
        ("test_daemon", ["left-daemon"]),
        ("test_copy_that_stays", ["a forked copy of the test process"]),
        ("test_stopped_program", ["left-stopped"]),
        ("test_servers[0]", ["left-beside-servers"]),
        ("test_servers[1]", ["left-beside-servers"]),
        ("test_servers[2]", ["left-beside-servers"]),
        ("test_last", ["left-by-fixture"]),
    ],
)
def test_left_processes_are_named_in_report_and_summary(
    outcome: Outcome, name: str, words: list[str]
) -> None:
    reports = outcome.reports(name)
    assert reports.outcome == "passed"
    named = reports.reports[-1]["leftovers"]
    assert named is not None
    assert len(named) == len(words), named
    summary = outcome.stdout.partition("pytest-fkit summary")[2]
    for word in words:
        (line,) = [line for line in named if word in line]
        assert line in reports.reports[-1]["sections"]["processes left running, now ended"]
        assert f"{name}  {line}" in summary


def test_left_processes_are_named_on_a_failure(outcome: Outcome) -> None:
    reports = outcome.reports("test_failing")
    assert reports.outcome == "failed"
    (line,) = reports.reports[-1]["leftovers"]
    assert "left-failing" in line


def test_left_processes_are_named_on_a_death(outcome: Outcome) -> None:
    death = outcome.reports("test_daemon_of_a_test_that_dies").death
    assert "left-by-the-dead" in death["text"]
    assert "left-by-the-dead" in outcome.stdout.partition("pytest-fkit summary")[2]


@pytest.mark.parametrize(
    "name",
    [
        "test_threads",
        "test_program_that_ends_by_itself",
        "test_pool",
        "test_spawned_pool",
        "test_executor",
        "test_shared_memory",
    ],
)
def test_what_ends_by_itself_is_not_named(outcome: Outcome, name: str) -> None:
    reports = outcome.reports(name)
    assert reports.outcome == "passed"
    assert reports.reports[-1]["leftovers"] is None


def test_what_a_session_fixture_started_lives_until_its_end(outcome: Outcome) -> None:
    assert "servers.txt: sleeping sleeping" in outcome.stdout


_TORN_DOWN_MEANWHILE = """
import subprocess, sys
import pytest

@pytest.fixture(scope="module")
def wide():
    yield
    print("tearing down")
    raise ValueError("torn down wrongly")

def test_it(wide):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
"""


def test_teardown_of_wide_fixtures_is_heard_while_a_left_process_is_waited_for(
    tmp_path: Path,
) -> None:
    ended = run(tmp_path, {"test_t.py": _TORN_DOWN_MEANWHILE}, "--fkit", "-n0")
    reports = ended.reports("test_it")
    assert [each["outcome"] for each in reports.reports] == ["passed", "passed", "failed"]
    assert "torn down wrongly" in reports.reports[-1]["text"]
    assert "tearing down" in reports.reports[-1]["sections"]["Captured stdout teardown"]
    assert reports.reports[-1]["leftovers"]


def test_shared_memory_is_unlinked(outcome: Outcome) -> None:
    name = outcome.stdout.partition("memory.txt: ")[2].strip()
    assert name
    assert not Path("/dev/shm", name).exists()


# What multiprocessing and PyTorch start to clean up after processes that died, and how.
_CLEANED_UP_AFTER = """
    import os, signal, subprocess, sys, time
    from multiprocessing import shared_memory
    from pathlib import Path
    import pytest

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])
    MANAGER = "while kill -0 {0} 2>/dev/null; do sleep 0.1; done; sleep 1; touch {1}"

    @pytest.fixture(autouse=True)
    def memory(request, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(DIRECTORY))  # where trackers of resources start late
        memory = shared_memory.SharedMemory(create=True, size=4096)
        (DIRECTORY / f"{request.node.name}.memory").write_text(memory.name)
        with subprocess.Popen(
            ["torch_shm_manager"], executable="/bin/sh", stdin=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as manager:
            cleaned = DIRECTORY / f"{request.node.name}.cleaned"
            manager.stdin.write(MANAGER.format(os.getpid(), cleaned))
            manager.stdin.close()
            manager.returncode = 0  # nobody waits for it
        yield

    def test_killed():
        os.kill(os.getpid(), signal.SIGKILL)

    def test_hangs():
        time.sleep(1000)

    def test_ignores_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)

    def test_passes():
        pass
"""

_STARTS_LATE = """
import sys, time

if b"resource_tracker" in open("/proc/self/cmdline", "rb").read():
    time.sleep(0.5)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /dev/shm")
def test_what_cleans_up_after_a_test_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_STARTS_LATE)
    outcome = run(tmp_path, {"test_c.py": _CLEANED_UP_AFTER}, "--fkit", "-n1", "--fkit-timeout=2")
    for name in ("test_killed", "test_hangs", "test_ignores_sigterm", "test_passes"):
        reports = outcome.reports(name)
        assert (reports.outcome == "passed") == (name == "test_passes")
        assert reports.reports[-1]["leftovers"] is None
        memory = (tmp_path / f"{name}.memory").read_text()
        assert not Path("/dev/shm", memory).exists(), name
        assert wait_until((tmp_path / f"{name}.cleaned").exists, 10.0), name


_PROBE = """
    import os, time
    from pathlib import Path
    import psutil
    import pytest

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])

    @pytest.fixture(scope="session")
    def wide(tmp_path_factory):
        return tmp_path_factory.mktemp("wide")

    def test_waits(wide, tmp_path):
        (DIRECTORY / "ready.txt").write_text("ready")
        while not (DIRECTORY / "go.txt").exists():
            time.sleep(0.01)
"""


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_no_socket_listens_and_no_file_is_left(tmp_path: Path, workers: str) -> None:
    with started(tmp_path, {"test_p.py": _PROBE}, "--fkit", workers) as inner:
        inner.await_file("ready.txt")
        listening = [c for p in inner.alive() for c in _listening(p)]
        during = _files(inner)
        (tmp_path / "go.txt").write_text("go")
        outcome = inner.wait()
    assert outcome.reports("test_waits").outcome == "passed"
    assert listening == []
    assert during == []
    assert _files(inner) == []


def _listening(process: psutil.Process) -> list[str]:
    connections = process.net_connections(kind="all")
    return [str(c) for c in connections if c.status == psutil.CONN_LISTEN or (c.laddr and c.raddr)]


def _files(inner: Run) -> list[str]:
    # What pytest's tmp_path makes is the test's own.
    temporary = inner.directory / "tmp"
    return [str(path) for path in temporary.iterdir() if not path.name.startswith("pytest-of-")]
