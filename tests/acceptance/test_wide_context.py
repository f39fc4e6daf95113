"""Wide fixtures are set up and torn down within what plain pytest has around them."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import NamedTuple

import pytest
from inner import run_pytest, write_files

_CONFTEST = """\
import os
import random
import socket
import subprocess
import pytest

RUNNING = []

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")

def tell(name):
    number = os.open("notes", os.O_WRONLY | os.O_APPEND)
    os.write(number, f"{name}, by a descriptor, is over\\n".encode())
    os.close(number)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(name.encode(), ("127.0.0.1", int(os.environ["PORT"])))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", int(os.environ["PORT"])))
            sender.send(f"{name}, connected".encode())
    finally:
        echo = f"echo '{name}, by a program, is over' >> notes"
        subprocess.run(["sh", "-c", echo], check=True)

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    RUNNING.append(item.name)
    os.environ["RUNNING"] = item.name
    note(f"{item.name} begins, {RUNNING}")
    yield
    os.mkdir(f"over-{item.name}")  # not a second time
    RUNNING.remove(item.name)
    del os.environ["RUNNING"]
    note(f"{item.name} is over")
    tell(item.name)

@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    assert "SETTING_UP" not in os.environ
    os.environ["SETTING_UP"] = item.name
    try:
        return (yield)
    finally:
        note(f"{item.name} is set up")
        del os.environ["SETTING_UP"]

@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    note(f"{fixturedef.argname} in {os.environ['PYTEST_CURRENT_TEST']}")
    return (yield)

def pytest_exception_interact(call, report):
    note(f"{report.nodeid} {report.when}: {type(call.excinfo.value).__name__}")

class Paired:
    def pytest_runtest_setup(self, item):
        assert "PAIRED" not in os.environ
        os.environ["PAIRED"] = item.name
        random.seed(item.name)
        os.mkdir(f"made-for-{item.name}")

    def pytest_runtest_teardown(self, item):
        if "PAIRED" in os.environ:  # not after a test that was skipped
            os.rmdir(f"made-for-{item.name}")
            assert os.environ.pop("PAIRED") == item.name

def pytest_configure(config):
    config.pluginmanager.register(Paired())
"""

_SUITE = """\
import os
import random
import unittest
import pytest
from conftest import RUNNING, note

def state():
    names = ("RUNNING", "SETTING_UP", "PAIRED", "PYTEST_CURRENT_TEST")
    return [os.environ.get(name) for name in names]

@pytest.fixture(scope="session")
def of_session(request):
    note(f"session {state()}")
    print("said by the session's")
    yield
    note(f"session {os.environ['PYTEST_CURRENT_TEST']} {request.session.testsfailed}")

@pytest.fixture(scope="module")
def of_module(of_session, request):
    note(f"module {state()}")
    yield
    note(f"module {os.environ['PYTEST_CURRENT_TEST']} {request.session.testsfailed}")

@pytest.fixture
def narrow(of_module):
    note(f"narrow {state()}")
    yield
    note("narrow is over")

def test_first(narrow):
    assert random.random() == random.Random("test_first").random()
    assert RUNNING == ["test_first"]
    assert "SETTING_UP" not in os.environ
    assert not os.path.exists("over-test_first")
    assert 0, "fails"

def test_second(narrow):
    assert RUNNING == ["test_second"]
    assert random.random() == random.Random("test_second").random()
    assert state()[:3] == ["test_second", None, "test_second"]

@pytest.fixture(scope="module")
def raises():
    raise RuntimeError("raised in the setup")

@pytest.mark.parametrize("number", range(2))
def test_raises(raises, number):
    pass

@pytest.fixture(scope="module")
def skips():
    pytest.skip("skipped in the setup")

def test_skips(skips):
    pass

@pytest.mark.xfail
def test_expected(raises):
    pass

@pytest.fixture(scope="module")
def never():
    note("must not be set up")

@pytest.mark.skip
def test_skipped(never):
    pass

@pytest.mark.xfail(run=False)
def test_not_run(never):
    pass

@pytest.fixture(scope="module", params=[1, 2])
def parametrized(request):
    note(f"parametrized {request.param} {state()}")
    yield request.param
    note(f"parametrized {request.param} is over")
    assert request.param == 2, "raised in the teardown"

def test_parametrized(parametrized):
    pass

def test_parametrized_too(parametrized, narrow):
    pass

@pytest.fixture(scope="class")
def of_class():
    note(f"class {state()}")
    yield
    note(f"class {state()[3]}")
    raise ValueError("raised in the teardown")

class TestClass:
    def test_one(self, of_class):
        pass

    def test_two(self, of_class):
        pass

class Late:
    @pytest.fixture(scope="class")
    def raises_late(self):
        yield
        raise ValueError("raised in the teardown")

class TestSkipsLate:
    @pytest.fixture(scope="class")
    def skips_late(self):
        yield
        pytest.skip("skipped in the teardown")

    def test_passes_1(self, skips_late):
        pass

    @pytest.mark.parametrize("number", range(2))
    def test_fails_2(self, number, skips_late):
        assert not number

class TestExpectedLate:
    @pytest.fixture(scope="class")
    def xfails_late(self):
        yield
        pytest.xfail("expected in the teardown")

    def test_passes_3(self, xfails_late):
        pass

class TestXfail(Late):
    def test_passes_4(self, raises_late):
        pass

    @pytest.mark.xfail(reason="known")
    def test_expected_5(self, raises_late):
        pass

class TestXfailFails(Late):
    @pytest.mark.xfail(raises=ValueError)
    def test_expected_6(self, raises_late):
        raise ValueError

class TestXfailOther(Late):
    def test_passes_7(self, raises_late):
        pass

    @pytest.mark.xfail(raises=KeyError)
    def test_expected_8(self, raises_late):
        pass

class TestMarksItself(Late):
    def test_passes_9(self, raises_late):
        pass

    def test_expected_10(self, raises_late, request):
        request.applymarker(pytest.mark.xfail(reason="marked"))

class TestSkippedAndXfail(Late):
    def test_passes_11(self, raises_late):
        pass

    @pytest.mark.skip
    @pytest.mark.xfail
    def test_skipped_12(self, raises_late):
        pass

class TestUnit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        note(f"unit {state()}")
        cls.value = 1

    @classmethod
    def tearDownClass(cls):
        note("unit is over")

    def setUp(self):
        self.other = 1

    def test_three(self):
        assert self.value == self.other

    def test_four(self):
        assert self.value == self.other
"""


class _Seen(NamedTuple):
    notes: list[str]
    reported: list[tuple[str, str, str]]
    out: str
    sent: list[bytes]


def _run(directory: Path, *arguments: str) -> _Seen:
    directory.mkdir()
    write_files(directory, {"conftest.py": _CONFTEST, "test_it.py": _SUITE})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        env = {"PORT": str(receiver.getsockname()[1])}
        ended = run_pytest(directory, "-p", "no:cacheprovider", *arguments, env=env)
        sent = []
        with contextlib.suppress(BlockingIOError):
            while True:
                sent.append(receiver.recv(1000))
    assert "INTERNALERROR" not in ended.out
    notes = (directory / "notes").read_text().splitlines()
    return _Seen(notes, ended.reported, ended.out, sent)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> _Seen:
    return _run(tmp_path_factory.mktemp("plain") / "suite", "-n0")


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_hooks_are_around_wide_fixtures_once(tmp_path: Path, plain: _Seen, workers: str) -> None:
    seen = _run(tmp_path / "suite", "--fkit", workers)
    assert sorted(seen.reported) == sorted(plain.reported), seen.out
    # The host that tears down for it does not know of a mark that the test adds to itself.
    heard = "test_it.py::TestMarksItself::test_expected_10 teardown: ValueError"
    seen = seen._replace(notes=[note for note in seen.notes if note != heard])
    assert sorted(seen.notes) == sorted(plain.notes)
    assert sorted(seen.sent) == sorted(plain.sent) != []

    def in_order(notes: list[str]) -> list[str]:
        # What ends with a test is torn down when its process is gone.
        return [note for note in notes if not note.endswith(" is over")]

    assert in_order(seen.notes) == in_order(plain.notes)


_PATCHES = """\
import os
import pytest

@pytest.fixture(scope="session")
def app():
    with open("set up", "a") as file:
        file.write("app\\n")
    return os.environ["APP_CONFIG"]

@pytest.fixture(scope="session")
def other():
    with open("set up", "a") as file:
        file.write("other\\n")

@pytest.fixture
def client(monkeypatch, request):
    monkeypatch.setenv("APP_CONFIG", "test.cfg")
    request.getfixturevalue("other")
    return request.getfixturevalue("app")

@pytest.mark.parametrize("number", range(2))
def test_it(client, number):
    assert client == "test.cfg"
"""


def test_what_needs_a_fixture_of_the_test_is_set_up_within_it(tmp_path: Path) -> None:
    ended = run_pytest(write_files(tmp_path, {"test_it.py": _PATCHES}), "--fkit", "-n0")
    assert set(ended.outcomes.values()) == {"PASSED"}, ended.out
    set_up = (tmp_path / "set up").read_text().split()
    assert set_up.count("other") == 1  # in the host


_ABSENT = """\
import os
import pytest

@pytest.fixture(scope="module")
def server(request):
    with open("set up", "a") as file:
        file.write(f"{request.module.__name__}\\n")
    if "SERVER" not in os.environ:
        raise ConnectionError("after a minute")

@pytest.fixture
def client(monkeypatch, request):
    if request.module.__name__ == "test_b":
        monkeypatch.setenv("SERVER", "there")
    return request.getfixturevalue("server")
"""


def test_what_is_absent_is_not_looked_for_in_each_test(tmp_path: Path) -> None:
    test = "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_it(client, n): pass\n"
    write_files(tmp_path, {"conftest.py": _ABSENT, "test_a.py": test, "test_b.py": test})
    ended = run_pytest(tmp_path, "--fkit", "-n0")
    outcomes = [outcome for _, outcome in sorted(ended.outcomes.items())]
    assert outcomes == ["ERROR"] * 6 + ["PASSED"] * 6, ended.out
    # In the host, in the first test, and in the host to stay.
    assert (tmp_path / "set up").read_text().split().count("test_a") == 3


_THREADS = {
    "conftest.py": """\
import threading

def pytest_runtest_setup(item):
    if item.name == "test_first":
        ends = threading.Event()
        threading.Thread(target=ends.wait, name="of a hook", daemon=True).start()
""",
    "test_it.py": """\
import os
import pytest

@pytest.fixture(scope="module")
def wide():
    return os.getpid()

def test_first(wide):
    assert os.getpid() == wide

def test_second(wide):
    assert os.getpid() != wide

def test_third(wide):
    assert os.getpid() != wide
""",
}


def test_what_a_hook_leaves_costs_one_test_its_own_process(tmp_path: Path) -> None:
    ended = run_pytest(write_files(tmp_path, _THREADS), "--fkit", "-n0")
    assert set(ended.outcomes.values()) == {"PASSED"}, ended.out
    cause = "because of hooks around test_it.py::test_first: thread 'of a hook'"
    assert any(line.startswith("1 test shared a process") and cause in line for line in ended.lines)


_UNDONE = {
    "conftest.py": """\
import itertools
import pytest

OPEN = {}

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")

class Plugin:
    def __init__(self, name):
        OPEN[name] = self.open = []

    def begin(self, item):
        note(f"{item.name} begins, {OPEN}")
        self.open.append(item.name)

    def end(self, item):
        self.open.remove(item.name)

def plain(does):
    return lambda self, item: does(self, item)

def first(does):
    def wrapper(self, item):
        does(self, item)
        return (yield)
    return pytest.hookimpl(wrapper=True)(wrapper)

def afterwards(does):
    def wrapper(self, item):
        result = yield
        does(self, item)
        return result
    return pytest.hookimpl(wrapper=True)(wrapper)

def old_style(does):
    def wrapper(self, item):
        outcome = yield
        outcome.get_result()
        does(self, item)
    return pytest.hookimpl(hookwrapper=True)(wrapper)

def late(does):
    return pytest.hookimpl(trylast=True)(plain(does))

def pytest_configure(config):
    setups = [plain, late, first, afterwards]
    teardowns = [plain, first, afterwards, old_style]
    for setup, teardown in itertools.product(setups, teardowns):
        name = f"{setup.__name__}-{teardown.__name__}"
        hooks = {
            "pytest_runtest_setup": setup(Plugin.begin),
            "pytest_runtest_teardown": teardown(Plugin.end),
        }
        config.pluginmanager.register(type(name, (Plugin,), hooks)(name))
""",
    "test_it.py": """\
import pytest
from conftest import OPEN, note

@pytest.fixture(scope="module")
def of_module():
    pass

@pytest.fixture(scope="class")
def of_class():
    yield
    before = {name: names for name, names in OPEN.items() if "late" not in name}
    note(f"the class is over, {before}")

class TestClass:
    def test_first(self, of_class):
        pass

    def test_second(self, of_class, of_module):
        pass

def test_third(of_module):
    note(f"test_third, {OPEN}")
""",
}


def test_what_hooks_did_before_a_test_is_undone_where_it_was_done(tmp_path: Path) -> None:
    write_files(tmp_path, _UNDONE)
    seen = []
    for arguments in (["-p", "no:fkit"], ["--fkit"]):
        (tmp_path / "notes").unlink(missing_ok=True)
        ended = run_pytest(tmp_path, *arguments, "-n0")
        assert set(ended.outcomes.values()) == {"PASSED"}, ended.out
        seen.append((tmp_path / "notes").read_text().splitlines())
    plain, isolated = seen
    assert len(plain) == 3 * 16 + 2
    assert sorted(isolated) == sorted(plain)


_TWICE = """
import pytest

class TestExpectedTwice:
    @pytest.fixture(scope="class")
    def xfails_last(self):
        yield
        pytest.xfail("expected in the teardown")

    def teardown_method(self):
        pytest.xfail("expected in the teardown, too")

    def test_passes_13(self, xfails_last):
        pass

class TestSkipsTwice:
    @pytest.fixture(scope="class")
    def skips_last(self):
        yield
        pytest.skip("skipped last")

    def teardown_method(self):
        pytest.skip("skipped before")

    def test_passes_14(self, skips_last):
        pass

"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_two_exceptions_of_one_teardown(tmp_path: Path, workers: str) -> None:
    write_files(tmp_path, {"test_it.py": _TWICE})
    plain = run_pytest(tmp_path, "-p", "no:cacheprovider")
    ours = run_pytest(tmp_path, "-p", "no:cacheprovider", "--fkit", workers)
    assert (ours.status, ours.reported) == (plain.status, plain.reported)
    assert len(ours.reported) >= 2
