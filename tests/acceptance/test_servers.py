"""Servers, connections and event loops in wide fixtures, by the packages that people use.

Each test is skipped where its package, or the PostgreSQL server, is absent: see `tox -e forks`.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files


def run(directory: Path, test: str, *arguments: str, plugins: str = "") -> InnerRun:
    """Run `test` with one worker and no plugins but xdist, fkit and `plugins`."""
    write_files(directory, {"test_it.py": test})
    named = [part for name in ("xdist", "fkit", *plugins.split()) for part in ("-p", name)]
    return run_pytest(
        directory,
        *named,
        *("--fkit", "-n1", "--fkit-timeout=60", "-p", "no:cacheprovider"),
        *arguments,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


def outcomes(ended: InnerRun) -> dict[str, str]:
    return {nodeid.rpartition("::")[2]: outcome for nodeid, outcome in ended.outcomes.items()}


def shared(ended: InnerRun) -> list[str]:
    return [line for line in ended.lines if "shared a process, because of" in line]


HTTPSERVER = """
import json, os
from urllib.request import urlopen
import pytest

def test_answers(httpserver):
    httpserver.expect_request("/first").respond_with_data("one")
    assert urlopen(httpserver.url_for("/first"), timeout=10).read() == b"one"
    httpserver.check()

def test_crash(httpserver):
    os.abort()

def test_has_its_own_handlers(httpserver):
    httpserver.expect_ordered_request("/second").respond_with_json({"two": 2})
    assert json.load(urlopen(httpserver.url_for("/second"), timeout=10)) == {"two": 2}
    assert len(httpserver.log) == 1
"""


def test_pytest_httpserver(tmp_path: Path) -> None:
    pytest.importorskip("pytest_httpserver")
    ended = run(tmp_path, HTTPSERVER, plugins="pytest_httpserver")
    assert outcomes(ended) == {
        "test_answers": "PASSED",
        "test_crash": "ERROR",
        "test_has_its_own_handlers": "PASSED",
    }, ended.out
    (line,) = shared(ended)
    assert line.startswith("3 tests ")
    assert "session-scoped fixture 'make_httpserver'" in line
    assert "listening socket" in line


ASYNCIO = """
import asyncio, os
import pytest, pytest_asyncio

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def queue():
    return asyncio.Queue(), asyncio.get_running_loop()

@pytest.mark.asyncio(loop_scope="session")
async def test_puts(queue):
    queue, loop = queue
    assert loop is asyncio.get_running_loop()
    await queue.put(1)
    assert await asyncio.wait_for(queue.get(), 10) == 1

@pytest.mark.asyncio(loop_scope="session")
async def test_crash(queue):
    os.abort()

@pytest.mark.asyncio(loop_scope="session")
async def test_goes_on(queue):
    await asyncio.sleep(0.01)

@pytest.mark.asyncio(loop_scope="session")
async def test_fails(queue):
    assert not "a failure"

@pytest.mark.asyncio
async def test_with_a_loop_of_its_own():
    reader, writer = await asyncio.open_connection(sock=__import__("socket").socketpair()[0])
    writer.close()
    assert os.getpgrp() == os.getpid()
"""


def test_pytest_asyncio(tmp_path: Path) -> None:
    pytest.importorskip("pytest_asyncio")
    default = ("-o", "asyncio_default_fixture_loop_scope=function")
    ended = run(tmp_path, ASYNCIO, *default, plugins="asyncio")
    assert outcomes(ended) == {
        "test_puts": "PASSED",
        "test_crash": "ERROR",
        "test_goes_on": "PASSED",
        "test_fails": "FAILED",
        "test_with_a_loop_of_its_own": "PASSED",
    }, ended.out
    assert any("event loop" in line for line in shared(ended))


ANYIO = """
import os
import anyio
import pytest

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="module")
async def stream(anyio_backend):
    send, receive = anyio.create_memory_object_stream(1)
    async with send, receive:
        yield send, receive

async def test_sends(stream):
    send, receive = stream
    await send.send(1)
    with anyio.fail_after(10):
        assert await receive.receive() == 1

async def test_crash(stream):
    os.abort()

async def test_goes_on(stream):
    await anyio.sleep(0.01)

async def test_without_it():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
"""


def test_anyio(tmp_path: Path) -> None:
    pytest.importorskip("anyio")
    ended = run(tmp_path, ANYIO, plugins="anyio")
    assert outcomes(ended) == {
        "test_sends": "PASSED",
        "test_crash": "ERROR",
        "test_goes_on": "PASSED",
        "test_without_it": "PASSED",
    }, ended.out
    assert any("event loop" in line for line in shared(ended))


FILELOCK = """
import os
import filelock
import pytest

IMPORTED = filelock.FileLock("imported.lock")

@pytest.fixture(scope="session")
def wide():
    return filelock.FileLock("wide.lock")

@pytest.fixture(scope="module")
def held():
    with filelock.FileLock("held.lock") as lock:
        yield lock

def test_locks(wide):
    for lock in (IMPORTED, wide):
        with lock:
            assert lock.is_locked
            with pytest.raises(filelock.Timeout):
                filelock.FileLock(lock.lock_file, timeout=0).acquire()

def test_crash(wide):
    wide.acquire()
    os._exit(1)

def test_locks_again(wide):
    with wide, IMPORTED:
        pass

def test_holds(held):
    assert held.is_locked
    with held:
        pass
"""


def test_filelock(tmp_path: Path) -> None:
    """Its locks refuse processes forked from the one that made them."""
    pytest.importorskip("filelock")
    ended = run(tmp_path, FILELOCK)
    assert outcomes(ended) == {
        "test_locks": "PASSED",
        "test_crash": "ERROR",
        "test_locks_again": "PASSED",
        "test_holds": "PASSED",
    }, ended.out
    (line,) = shared(ended)
    assert line.startswith("1 test ")
    assert "module-scoped fixture 'held'" in line


POSTGRESQL = """
import os, pathlib, shutil, subprocess, tempfile
import psycopg
import pytest

AS = os.environ["POSTGRES_AS"].split()
BIN = pathlib.Path(os.environ["POSTGRES_BIN"])

@pytest.fixture(scope="session")
def server():
    # Not in pytest's directory, which nobody else may enter; the path of a socket has to be short.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="fkit-pg"))
    if AS:
        shutil.chown(directory, os.environ["POSTGRES_USER"])
    data = directory / "data"

    def command(name, *arguments):
        subprocess.run(
            [*AS, BIN / name, "-D", data, *arguments],
            cwd="/", check=True, timeout=60, stdout=subprocess.DEVNULL,
        )

    command("initdb", "--no-sync", "--auth=trust", "--username=postgres")
    options = f"-c listen_addresses= -c unix_socket_directories={directory} -c fsync=off"
    command("pg_ctl", "-w", "-l", directory / "log", "-o", options, "start")
    yield str(directory)
    command("pg_ctl", "-w", "-m", "fast", "stop")
    shutil.rmtree(directory)

def connect(server):
    return psycopg.connect(host=server, user="postgres", dbname="postgres", connect_timeout=10)

@pytest.fixture(scope="session")
def connection(server):
    with connect(server) as connection:
        connection.execute("create table kept (number integer)")
        yield connection

class TestOwnConnection:
    @pytest.mark.parametrize("number", [1, 2])
    def test_connects(self, server, number):
        with connect(server) as connection:
            assert connection.execute("select 1 + %s", [number]).fetchone() == (1 + number,)
        assert os.getpgrp() == os.getpid() != os.getppid()

class TestSharedConnection:
    def test_writes(self, connection):
        connection.execute("insert into kept values (7)")

    def test_reads(self, connection):
        assert connection.execute("select number from kept").fetchall() == [(7,)]

    def test_fails(self, connection):
        with pytest.raises(psycopg.errors.UndefinedTable), connection.transaction():
            connection.execute("select * from nowhere")

def test_crash(connection):
    os.abort()

def test_has_a_new_server(connection):
    assert connection.execute("select number from kept").fetchall() == []
"""


@pytest.fixture
def postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's programs are, and as whom they can be run: root they refuse."""
    pytest.importorskip("psycopg")
    found = [*map(os.path.dirname, filter(None, [shutil.which("initdb")]))]
    found += sorted(glob.glob("/usr/lib/postgresql/*/bin"))  # where Debian's package puts them
    if not found:
        pytest.skip("no PostgreSQL server")
    command = ""
    if os.geteuid() == 0:
        users = {user.pw_name for user in pwd.getpwall()}
        if "postgres" not in users or not shutil.which("runuser"):
            pytest.skip("no user to run a PostgreSQL server")
        command = "runuser -u postgres --"
    monkeypatch.setenv("POSTGRES_BIN", found[0])
    monkeypatch.setenv("POSTGRES_AS", command)
    monkeypatch.setenv("POSTGRES_USER", "postgres")


@pytest.mark.usefixtures("postgresql")
def test_postgresql(tmp_path: Path) -> None:
    ended = run(tmp_path, POSTGRESQL)
    assert outcomes(ended) == {
        "test_connects[1]": "PASSED",
        "test_connects[2]": "PASSED",
        "test_writes": "PASSED",
        "test_reads": "PASSED",
        "test_fails": "PASSED",
        "test_crash": "ERROR",
        "test_has_a_new_server": "PASSED",
    }, ended.out
    for line in shared(ended):
        assert "session-scoped fixture 'connection'" in line
        assert "connected socket" in line
    assert sum(int(line.split()[0]) for line in shared(ended)) == 5
