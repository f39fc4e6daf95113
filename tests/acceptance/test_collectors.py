"""Items that are no functions, below collectors that have a setup of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import run_pytest, write_files

CONFTEST = """
import os, pytest

class TextFile(pytest.File):
    def collect(self):
        self.add_marker(pytest.mark.fkit(isolation="module"))
        for number, line in enumerate(self.path.read_text().splitlines()):
            item = Line.from_parent(self, name=f"line{number}", text=line)
            if "own" in line:
                item.add_marker(pytest.mark.fkit(isolation="function"))
            yield item

    def setup(self):
        self.note("up")
        if self.name == "crash.txt":
            os._exit(7)
        if self.name == "raise.txt":
            raise OSError("no server")

    def teardown(self):
        self.note("down")

    def note(self, text):
        with open("notes", "a") as file:
            file.write(f"{self.name} {text}\\n")

class Line(pytest.Item):
    def __init__(self, *, text, **kwargs):
        super().__init__(**kwargs)
        self.text = text

    def runtest(self):
        if self.text.startswith("die"):
            os._exit(3)
        assert not self.text.startswith("wrong")
        with open("pids", "a") as file:
            file.write(f"{self.path.stem} {os.getpid()}\\n")

    # As those of plugins, which answer for what they need themselves.
    def getparent(self, cls):
        return None

    def iter_markers_with_node(self, name=None):
        return iter(())

    get_closest_marker = getparent

def pytest_collect_file(parent, file_path):
    if file_path.suffix == ".txt":
        return TextFile.from_parent(parent, path=file_path)
"""


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_a_collector_is_set_up_once(tmp_path: Path, mode: str) -> None:
    files = {
        "conftest.py": CONFTEST,
        "a.txt": "x own\ny own\nwrong own\n",
        "crash.txt": "x own\ny own",
        "dying.txt": "x own\ndie own\nz own",
        "raise.txt": "x own\ny own",
        "shared.txt": "x\ny\n",
    }
    run = run_pytest(write_files(tmp_path, files), "--fkit", mode, "-W", "error")
    assert run.outcomes == {
        "a.txt::line0": "PASSED",
        "a.txt::line1": "PASSED",
        "a.txt::line2": "FAILED",
        "crash.txt::line0": "ERROR",
        "crash.txt::line1": "ERROR",
        "dying.txt::line0": "PASSED",
        "dying.txt::line1": "ERROR",
        "dying.txt::line2": "PASSED",
        "raise.txt::line0": "ERROR",
        "raise.txt::line1": "ERROR",
        "shared.txt::line0": "PASSED",
        "shared.txt::line1": "PASSED",
    }, run.out
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes == [
        "a.txt up", "a.txt down", "crash.txt up", "dying.txt up", "dying.txt down",
        "raise.txt up", "raise.txt down", "shared.txt up", "shared.txt down",
    ]  # fmt: skip
    assert "exit status 7 while setting up collector crash.txt" in run.message("crash.txt::line0")
    assert "collector crash.txt was not set up again" in run.message("crash.txt::line1")
    pids = [line.split() for line in (tmp_path / "pids").read_text().splitlines()]
    of = {name: {pid for stem, pid in pids if stem == name} for name in ("a", "dying", "shared")}
    assert [len(found) for found in of.values()] == [2, 2, 1]


RETRYING = {
    "conftest.py": """
import os, pytest
from _pytest import runner

def note(text):
    with open(os.path.join(os.path.dirname(__file__), "notes"), "a") as file:
        file.write(f"{text} {os.getpid()}\\n")

def pytest_runtest_protocol(item, nextitem):
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in (1, 2):
        item.attempt = attempt
        item._initrequest()
        reports = runner.runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True

@pytest.fixture(scope="package")
def wide():
    note("wide up")
    yield
    note("wide down")

@pytest.fixture
def fails_first(request):
    note(f"{request.node.name}{request.node.attempt}")
    assert request.node.attempt == 2
    request.getfixturevalue("wide")
""",
    "package/__init__.py": """
from conftest import note
def setup_module(): note("package up")
def teardown_module(): note("package down")
""",
    "package/test_it.py": """
import pytest
@pytest.mark.parametrize("number", [1, 2])
def test_it(fails_first, number): pass
""",
}


def test_a_test_that_a_plugin_retries_stays_in_its_process(tmp_path: Path) -> None:
    run = run_pytest(write_files(tmp_path, RETRYING), "--fkit", "-n0", "-W", "error")
    assert list(run.outcomes.values()) == ["PASSED", "PASSED"], run.out
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert [" ".join(words) for *words, _ in notes] == [
        "package up",
        *("test_it[1]1", "test_it[1]2", "wide up", "wide down"),
        *("test_it[2]1", "test_it[2]2", "wide up", "wide down"),
        "package down",
    ]
    pids = [pid for *_, pid in notes]
    assert [len({*part}) for part in (pids[1:5], pids[5:9], {pids[0], pids[-1]})] == [1, 1, 1]
