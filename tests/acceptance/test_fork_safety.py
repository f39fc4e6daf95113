"""What does not survive a fork is not forked."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files
from inner_runs import run

WIDE = """
    import os, socket, sqlite3, subprocess, sys, threading
    from concurrent.futures import ThreadPoolExecutor
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from urllib.request import urlopen
    import asyncio
    import multiprocessing
    import pytest

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.hits += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"%d" % self.server.hits)
        def log_message(self, *args):
            pass

    @pytest.fixture(scope="class")
    def server():
        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            server.hits = 0
            thread = threading.Thread(target=server.serve_forever, name="serving")
            thread.start()
            yield server
            server.shutdown()
            thread.join()

    class TestThreadServer:
        def test_first(self, server):
            assert urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=5).read() == b"1"
            assert server.hits == 1

        def test_second(self, server):
            assert server.hits == 1

    @pytest.fixture(scope="class")
    def process():
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        yield process
        process.communicate(b"end")
        assert process.returncode == 0

    class TestChildProcess:
        def test_runs(self, process):
            assert process.poll() is None

        def test_runs_still(self, process):
            assert process.poll() is None

    @pytest.fixture(scope="class")
    def connection(tmp_path_factory):
        connection = sqlite3.connect(tmp_path_factory.mktemp("db") / "x.db")
        connection.execute("create table t (n integer)")
        yield connection
        connection.close()

    class TestDatabase:
        def test_writes(self, connection):
            connection.execute("insert into t values (7)")
            connection.commit()

        def test_reads(self, connection):
            assert connection.execute("select n from t").fetchall() == [(7,)]

    @pytest.fixture(scope="class")
    def loop():
        loop = asyncio.new_event_loop()
        yield loop
        loop.close()

    class TestEventLoop:
        def test_runs(self, loop):
            loop.shared = "kept"
            assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"

        def test_is_the_same(self, loop):
            assert loop.shared == "kept"

    @pytest.fixture(scope="class")
    def pool():
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(int, "1").result(5) == 1
            yield pool

    class TestExecutor:
        def test_works(self, pool):
            assert pool.submit(int, "2").result(5) == 2

    @pytest.fixture(scope="class")
    def processes():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            yield pool

    class TestProcessPool:
        def test_works(self, processes):
            assert processes.apply_async(int, ("3",)).get(20) == 3

    @pytest.fixture(scope="class")
    def value():
        return os.getpid()

    class TestNothingLeft:
        def test_has_a_process_of_its_own(self, value):
            assert value == os.getppid()
"""


PRISTINE = """
    import os, threading, pytest

    seen = []

    @pytest.fixture(scope="class")
    def thread():
        end = threading.Event()
        thread = threading.Thread(target=end.wait)
        thread.start()
        yield
        end.set()
        thread.join()

    class TestShares:
        def test_changes(self, thread):
            seen.append("changed")

        def test_sees_it(self, thread):
            assert seen == ["changed"]

    def test_is_pristine():
        assert seen == []
"""

CRASH = """
    import os, threading, pytest

    @pytest.fixture(scope="module")
    def thread():
        end = threading.Event()
        thread = threading.Thread(target=end.wait)
        thread.start()
        yield
        end.set()
        thread.join()

    def test_before(thread):
        pass

    def test_crash(thread):
        os.abort()

    def test_after(thread):
        pass
"""

SAME_NAME = """
    import os, threading
    import pytest

    @pytest.fixture(scope="class")
    def serving():
        end = threading.Event()
        thread = threading.Thread(target=end.wait, name="serving")
        thread.start()
        yield os.getpid()
        end.set()
        thread.join()

    class TestOne:
        def test_1(self, serving):
            assert serving == os.getpid()

    class TestTwo:
        def test_2(self, serving):
            assert serving == os.getpid()
"""

SUITES = {"wide": WIDE, "pristine": PRISTINE, "crash": CRASH, "same_name": SAME_NAME}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> InnerRun:
    """A run of all of these, one after the other by one worker."""
    files = {f"test_{name}.py": textwrap.dedent(text) for name, text in SUITES.items()}
    directory = write_files(tmp_path_factory.mktemp("together"), files)
    return run_pytest(directory, "--fkit", "-n1", "--fkit-timeout=60")


def outcomes(run: InnerRun, name: str) -> list[str]:
    """Of the tests of one of them, sorted."""
    return sorted(
        outcome
        for nodeid, outcome in run.outcomes.items()
        if nodeid.startswith(f"test_{name}.py::")
    )


def test_tests_under_a_wide_fixture_that_left_something_share_its_process(
    together: InnerRun,
) -> None:
    assert outcomes(together, "wide") == ["PASSED"] * 11, together.out
    for line in (
        r"2 tests shared a process, because of class-scoped fixture 'server' \(.*py:\d+\): .*",
        r".*: thread 'serving', descriptor \d+: listening socket",
        r"2 tests shared .* fixture 'process' .*child process.*",
        r"2 tests shared .* fixture 'connection' .*x\.db, open for writing",
        r"2 tests shared .* fixture 'loop' .*event loop.*",
        r"1 test shared .* fixture 'pool' .*thread 'ThreadPoolExecutor-0_0'",
    ):
        assert any(re.match(line, found) for found in together.lines), line


def test_a_process_that_ran_tests_forks_no_other(together: InnerRun) -> None:
    assert outcomes(together, "pristine") == ["PASSED"] * 3, together.out


def test_a_process_that_ran_tests_forks_no_other_though_it_heard_late_which_is_next(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import os, time

        def pytest_runtest_logreport(report):
            # The worker is quicker than the controller: it has to wait for tests.
            if "PYTEST_XDIST_WORKER" not in os.environ:
                time.sleep(0.03)
        """
    )
    classes = (
        f"""
        class Test{number}:
            def test_is_pristine(self, loop):
                assert seen == []
                seen.append("changed")

            def test_shares(self, loop):
                assert seen == ["changed"]
        """
        for number in range(20)
    )
    pytester.makepyfile(
        """
        import asyncio, pytest

        seen = []

        @pytest.fixture(scope="class")
        def loop():
            loop = asyncio.new_event_loop()
            yield loop
            loop.close()
        """
        + "".join(classes)
    )
    result = pytester.runpytest_subprocess("--fkit", "-n1", timeout=60)
    result.assert_outcomes(passed=40)


def test_a_crash_of_a_shared_process_costs_one_test(together: InnerRun) -> None:
    assert outcomes(together, "crash") == ["ERROR", "PASSED", "PASSED"], together.out
    assert together.message("test_crash.py::test_crash").startswith("SIGABR")
    assert together.status == 1
    assert len(together.outcomes) == 11 + 3 + 3 + 2


MODULE_LEVEL_POOL = """
    import os
    from concurrent.futures import ThreadPoolExecutor

    POOL = ThreadPoolExecutor(1)
    POOL.submit(int).result()

    def test_first(tmp_path):
        assert POOL.submit(int, "1").result(5) == 1

    def test_crash():
        os.abort()

    def test_after():
        assert POOL.submit(int, "2").result(5) == 2

    def test_fails():
        print("said before")
        assert POOL is None
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_module_whose_import_left_a_thread_runs_in_a_fresh_interpreter(
    pytester: pytest.Pytester, workers: str
) -> None:
    pytester.makepyfile(
        test_pool=MODULE_LEVEL_POOL,
        test_other="import os\ndef test_is_forked(): assert os.getpgrp() == os.getpid()",
    )
    result = pytester.runpytest_subprocess("--fkit", workers, "--fkit-timeout=60", timeout=120)
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*said before*",
            "4 tests shared a process, because of import of test_pool.py: thread 'ThreadPool*",
            "ERROR test_pool.py::test_crash - SIGABRT at test_pool.py:11 in test_crash",
        ]
    )


POOL = """
    from concurrent.futures import ThreadPoolExecutor
    POOL = ThreadPoolExecutor(1)
    POOL.submit(int).result()
"""

USES_POOL = """
    def test_uses_it(request):
        conftest = next(
            plugin for _, plugin in request.config.pluginmanager.list_name_plugin()
            if hasattr(plugin, "POOL")
        )
        assert conftest.POOL.submit(int, "1").result(5) == 1
"""

IS_FORKED = "import os\nPID = os.getpid()\ndef test_is_forked(): assert PID != os.getpid()\n"


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_thread_that_a_conftest_left_has_all_tests_below_it_spawned(
    pytester: pytest.Pytester, workers: str
) -> None:
    pytester.makepyfile(
        **{
            "below/conftest": POOL,
            "below/test_a": USES_POOL,
            "below/deeper/test_b": USES_POOL,
            # Before pytest 8 all conftest files are imported before anything is collected.
            "test_c": IS_FORKED if pytest.version_tuple >= (8,) else "def test_it(): pass",
        }
    )
    result = pytester.runpytest_subprocess("--fkit", workers, timeout=100)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["* shared a process, because of import of *: thread 'Thread*"])


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_thread_that_the_initial_conftest_left_has_all_tests_spawned(
    pytester: pytest.Pytester, workers: str
) -> None:
    pytester.makeconftest(POOL)
    pytester.makepyfile(USES_POOL)
    result = pytester.runpytest_subprocess("--fkit", workers, timeout=100)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 test shared *, because of import of conftest.py: thread *"])


def test_what_pytest_itself_holds_does_not_count(pytester: pytest.Pytester) -> None:
    # Written to by pytest while tests are collected; so is standard output, pytester's file.
    pytester.makepyfile(**{"pkg/__init__": "", "pkg/test_a": IS_FORKED, "test_b": IS_FORKED})
    for arguments in (
        ["-n0", "--log-file=log.txt", "--junitxml=junit.xml"],
        ["-n1", "--log-file=log.txt", "-s"],
        ["-n0", "--capture=sys"],
    ):
        result = pytester.runpytest_subprocess("--fkit", *arguments, timeout=100)
        result.assert_outcomes(passed=2)
        result.stdout.no_fnmatch_line("*shared a process*")


def test_session_isolation_is_one_process_in_a_fresh_interpreter_too(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_a=POOL + "\n    import os\n    def test_1(request): request.config.seen = os.getpid()",
        test_b="import os\ndef test_2(request): assert request.config.seen == os.getpid()",
    )
    result = pytester.runpytest_subprocess("--fkit", "-n1", "--fkit-isolation=session", timeout=100)
    result.assert_outcomes(passed=2)


def test_a_second_thread_of_the_same_name_is_noticed(together: InnerRun) -> None:
    assert outcomes(together, "same_name") == ["PASSED"] * 2, together.out


def test_start_method_fork_forks_all_the_same(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, threading
        END = threading.Event()
        threading.Thread(target=END.wait, daemon=True).start()

        def test_has_one_thread():
            assert threading.active_count() == 1
        """
    )
    result = pytester.runpytest_subprocess("--fkit", "-n1", "--fkit-start-method=fork", timeout=60)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*pytest-fkit summary*")


ANOTHER_ROOT = """
import os
import pytest

@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory, before = os.getcwd(), os.open("/", os.O_RDONLY)
    os.chroot(tmp_path_factory.mktemp("root"))
    yield
    os.fchdir(before)
    os.chroot(".")
    os.chdir(directory)

def test_one(root): assert os.listdir("/") == []
def test_two(root): assert os.listdir("/") == []
def test_after(): pass
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may call chroot(2)")
def test_a_fixture_may_put_proc_out_of_reach(tmp_path: Path) -> None:
    run = run_pytest(write_files(tmp_path, {"test_it.py": ANOTHER_ROOT}), "--fkit", "-n0")
    assert set(run.outcomes.values()) == {"PASSED"}, run.out
    assert len(run.outcomes) == 3


_COPIES = """
import os

OUT, ERR = os.dup(1), os.dup(2)
PID = os.getpid()

def test_one():
    os.write(OUT, b"to a copy of stdout")
    os.write(ERR, b"to a copy of stderr")
    assert os.getpid() != PID

def test_two():
    os.close(ERR)
    with open("other.txt", "w") as other:
        assert other.fileno() == ERR

def test_three():
    print("three")
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_copies_of_the_standard_streams_that_an_import_left_are_captured(
    tmp_path: Path, workers: str
) -> None:
    outcome = run(tmp_path, {"test_copies.py": _COPIES}, "--fkit", workers)
    assert "shared a process" not in outcome.stdout
    sections = outcome.reports("test_one").reports[-1]["sections"]
    assert sections["Captured stdout call"] == "to a copy of stdout"
    assert sections["Captured stderr call"] == "to a copy of stderr"
    assert outcome.reports("test_two").outcome == "passed"
    assert outcome.reports("test_three").outcome == "passed"
