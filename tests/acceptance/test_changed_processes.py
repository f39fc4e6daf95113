"""Suites that freeze clocks, fake files, guard calls and replace modules, plain and under fkit.

By hand, in the ways of freezegun, pyfakefs, blockbuster and unittest.mock; tests/plugins has those.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import pytest
from inner import InnerRun, run_pytest, write_files

_CLOCKS = """
import os, sys, time
import pytest

NAMES = ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "clock_gettime", "sleep")

def everywhere(changes):
    # Whatever module has one of these under any name, as freezegun does.
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if type(value).__name__ == "builtin_function_or_method" and value in changes:
                setattr(module, name, changes[value])

@pytest.fixture(scope="module", autouse=True)
def frozen():
    changes = {getattr(time, name): lambda *args: 2_200_000_000 for name in NAMES}
    everywhere(changes)
    yield
    for was, now in changes.items():
        everywhere_back(was, now)

def everywhere_back(was, now):
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if value is now:
                setattr(module, name, was)

def test_passes():
    assert time.time() == 2_200_000_000

def test_fails():
    assert time.time() < 2_000_000_000

@pytest.mark.fkit(timeout=0.5)
def test_hangs():
    while True:
        pass

def test_crashes():
    os.kill(os.getpid(), 11)

def test_passes_afterwards():
    assert time.monotonic() == 2_200_000_000
"""

_FILES = """
import builtins, io, os, sys, types
import pytest

def fake(*args, **kwargs):
    raise FileNotFoundError(2, "not in the fake file system")

class FakeModule(types.ModuleType):
    def __init__(self, real):
        super().__init__(real.__name__)
        self._real = real

    def __getattr__(self, name):
        value = getattr(self._real, name)
        return fake if callable(value) and name not in ("fspath", "PathLike", "fork") else value

def replace(monkeypatch):
    # Modules and functions in the globals of all modules, as pyfakefs does.
    instead = {id(os): FakeModule(os), id(io): FakeModule(io), id(os.path): FakeModule(os.path)}
    functions = {id(builtins.open): fake, id(os.stat): fake, id(os.open): fake}
    for name, module in list(sys.modules.items()):
        if name.startswith(("_pytest", "pluggy", "pytest.", "importlib", "_frozen", "encodings")):
            continue
        for key, value in list(getattr(module, "__dict__", {}).items()):
            if id(value) in instead and name not in ("os", "io", "posixpath", "sys"):
                monkeypatch.setitem(module.__dict__, key, instead[id(value)])
            elif id(value) in functions and name.startswith("pytest_fkit"):
                monkeypatch.setitem(module.__dict__, key, fake)
    monkeypatch.setattr(builtins, "open", fake)
    monkeypatch.setattr(io, "open", fake)

@pytest.fixture
def files():
    with pytest.MonkeyPatch.context() as monkeypatch:
        replace(monkeypatch)
        yield

@pytest.fixture(scope="class")
def wide_files():
    with pytest.MonkeyPatch.context() as monkeypatch:
        replace(monkeypatch)
        yield

def test_passes(files):
    with pytest.raises(FileNotFoundError):
        open("/etc/passwd")

def test_fails(files):
    open("/etc/passwd")

def test_prints(files, capsys):
    print("out")
    assert capsys.readouterr().out == "out\\n"

@pytest.mark.fkit(timeout=0.5)
def test_hangs(files):
    while True:
        pass

class TestWide:
    def test_passes(self, wide_files):
        assert os.getpid is not None

    def test_fails(self, wide_files):
        assert 1 == 2

def test_passes_afterwards():
    assert os.path.exists("/")
"""

_GUARDS = """
import os, select, signal, socket, sys, time
from unittest import mock
import pytest

ALL = [
    os.read, os.write, os.ftruncate, os.getpid, select.poll, time.sleep, time.time, signal.signal,
]

@pytest.fixture(params=ALL, ids=lambda each: each.__name__)
def mocked(request):
    function = request.param
    with mock.patch.object(sys.modules[owner(function)], function.__name__) as patched:
        yield patched
    assert not patched.mock_calls

def owner(function):
    return {"posix": "os"}.get(function.__module__, function.__module__)

def test_mocks_are_not_called(mocked):
    pass

def test_mocks_are_not_called_for_a_failure(mocked):
    assert [1, 2] == [1, 3]

def test_no_os():
    with mock.patch.dict(sys.modules, {"os": None, "time": mock.MagicMock(), "zlib": None}):
        pass
    sys.modules["select"] = sys.modules["socket"] = mock.MagicMock()

def test_no_os_fails():
    sys.modules["select"] = sys.modules["marshal"] = sys.modules["zlib"] = None
    assert 1 == 2

def test_no_sockets(monkeypatch):
    monkeypatch.setattr(socket, "socket", None)

def test_no_sockets_fails(monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    assert 1 == 2

@pytest.fixture(scope="class")
def no_network():
    def guard(*args, **kwargs):
        raise RuntimeError("no network in tests")
    with mock.patch.object(socket, "socket", guard), mock.patch.object(socket, "socketpair", guard):
        yield

class TestGuarded:
    def test_passes(self, no_network):
        with pytest.raises(RuntimeError):
            socket.socket()

    def test_fails(self, no_network):
        socket.socketpair()

def test_profile():
    sys.setprofile(lambda *args: None)

def test_trace_fails():
    sys.settrace(lambda *args: None)
    assert 1 == 2

class Captcha:
    def __getattr__(self, name):
        raise AssertionError(name)

@pytest.fixture
def captcha():
    return Captcha()

@pytest.fixture
def capacity():
    return mock.MagicMock()

def test_fixtures_of_the_suite_are_left_alone(captcha, capacity):
    os.system("echo from the shell")
    assert not capacity.mock_calls
    assert not vars(captcha)

def test_fixtures_of_the_suite_are_left_alone_where_a_test_fails(capacity):
    os.system("echo from the shell")
    assert capacity.mock_calls
"""

# Last: a hook can't be taken away.
_HOOKS = """
import sys
import pytest

EVENTS = ("os.truncate", "os.listdir", "marshal.dumps", "open", "ctypes.dlsym", "socket.__new__")

def test_passes():
    def hook(event, args):
        if event in EVENTS:
            raise PermissionError(event)
    sys.addaudithook(hook)

def test_fails():
    test_passes()
    assert 1 == 2
"""

_SUITE = {
    "test_clocks.py": _CLOCKS,
    "test_files.py": _FILES,
    "test_guards.py": _GUARDS,
    "test_hooks.py": _HOOKS,
    "pytest.ini": "[pytest]\nfkit_start_method = fork\n",
}

_DEATHS = "not hangs and not crashes"


class _Plain(NamedTuple):
    directory: Path
    run: InnerRun


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> _Plain:
    directory = write_files(tmp_path_factory.mktemp("plain"), _SUITE)
    run = run_pytest(directory, "-p", "no:cacheprovider", "-k", _DEATHS)
    assert run.status == 1, run.out
    assert len(run.outcomes) > 30
    return _Plain(directory, run)


@pytest.mark.parametrize(
    "arguments",
    # One worker where they share a process: some leave it without modules that others look for.
    [("-n0",), ("-n2",), ("-n1", "--fkit-isolation=session"), ("-n0", "--fkit-isolation=module")],
    ids=" ".join,
)
def test_verdicts_are_plain_pytests(plain: _Plain, arguments: tuple[str, ...]) -> None:
    run = run_pytest(
        plain.directory, "-p", "no:cacheprovider", "--fkit", *arguments, "--junitxml=junit.xml",
        timeout=300,
    )  # fmt: skip
    found = run.outcomes
    deaths = {nodeid: found.pop(nodeid) for nodeid in list(found) if _dies(nodeid)}
    assert found == plain.run.outcomes, run.out
    assert set(deaths.values()) == {"ERROR"}, run.out
    for nodeid in deaths:
        wanted = "timed out after 0.5 s" if "hangs" in nodeid else "SIGSEGV"
        assert wanted in run.message(nodeid)
    assert run.status == 1
    cases = ET.parse(plain.directory / "junit.xml").iter("testcase")
    assert all(0 <= float(case.attrib["time"]) < 60 for case in cases)


def _dies(nodeid: str) -> bool:
    return "hangs" in nodeid or "crashes" in nodeid
