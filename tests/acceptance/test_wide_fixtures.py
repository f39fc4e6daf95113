"""Wide fixtures are set up and torn down, and reported, as in plain pytest."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from inner import InnerRun, run_pytest, write_files
from suites.wide_parity import CONFTEST, SUITES

# Older versions call pytest_fixture_post_finalizer, and show TEARDOWN, for fixtures that were torn
# down before, as often as they were asked for in that process; and of the fixtures of one scope,
# those end first that were asked for last, not those that were set up last.
FINALIZES_ONCE = pytest.version_tuple >= (8, 1)

MODES = {"n0": ["--fkit", "-n0"], "n1": ["--fkit", "-n1"]}


class Observed(NamedTuple):
    """What a run of all suites showed.

    :param events: what fixtures and tests wrote down, in order.
    :param reports: by node id: phase, outcome, reason of an xfail, text and sections.
    """

    run: InnerRun
    events: list[str]
    reports: dict[str, list[Any]]


def observe(directory: Path, *arguments: str) -> Observed:
    files = {
        f"{suite}/{name}": textwrap.dedent(text)
        for suite, parts in SUITES.items()
        for name, text in parts.items()
    }
    # Directories are packages of no name: modules in them may have the same names.
    write_files(directory, {**files, "conftest.py": CONFTEST, "pytest.ini": "[pytest]\n"})
    log = directory / "events"
    run = run_pytest(
        directory,
        "--import-mode=importlib",
        *("-p", "no:cacheprovider"),
        *arguments,
        env={"FKIT_EVENTS": str(log)},
    )
    events: list[str] = []
    reports: dict[str, list[Any]] = {}
    for line in log.read_text().splitlines():
        if not line.startswith('["report"'):
            if FINALIZES_ONCE or not line.startswith("finalized "):
                events.append(line)
            continue
        _, nodeid, *said, text, sections = json.loads(line)
        sections = [(name, _normal(content)) for name, content in sections]
        reports.setdefault(nodeid, []).append((*said, _normal(text), sections))
    return Observed(run, events, reports)


def _normal(text: str) -> str:
    text = re.sub(r"/\S+/(?:plain|n0|n1)\d*/", "", text)
    text = re.sub(r"^\[gw0\] .*\n?\n?", "", text)  # what a worker puts before a failure
    return re.sub(r"0x[0-9a-f]+|'worker_id'|gw0|master", "…", text).strip()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    return observe(tmp_path_factory.mktemp("plain"), "-n0")


@pytest.fixture(scope="module", params=list(MODES))
def isolated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    return observe(tmp_path_factory.mktemp(request.param), *MODES[request.param])


def test_everything_happens_in_plain_pytests_order(plain: Observed, isolated: Observed) -> None:
    if FINALIZES_ONCE:
        assert isolated.events == plain.events
    else:
        assert sorted(isolated.events) == sorted(plain.events)
    assert isolated.run.status == plain.run.status == 1
    assert "never" not in plain.events


@pytest.mark.parametrize("suite", list(SUITES))
def test_reports_are_plain_pytests(plain: Observed, isolated: Observed, suite: str) -> None:
    def of_suite(observed: Observed) -> dict[str, Any]:
        return {k: v for k, v in observed.reports.items() if k.startswith(f"{suite}/")}

    assert of_suite(isolated) == of_suite(plain) != {}


@pytest.mark.skipif(not FINALIZES_ONCE, reason="this pytest repeats itself")
@pytest.mark.parametrize("option", ["--setup-show", "--setup-only", "--setup-plan"])
def test_options_that_show_setup_show_the_same(tmp_path: Path, option: str) -> None:
    shown = []
    for name, arguments in (("plain", ["-n0"]), ("n0", MODES["n0"])):
        directory = tmp_path / name
        directory.mkdir()
        run = observe(directory, option, "parametrized", "xunit", "scopes", *arguments).run
        # The longer the time, the shorter the line around it.
        lines = [re.sub(r"\d+\.\d+s|=+", "", line) for line in run.lines]
        shown.append([line for line in lines if not line.startswith(("fkit: ", "rootdir: "))])
    assert [_normal(line) for line in shown[1]] == [_normal(line) for line in shown[0]]
    assert any(line.strip().startswith("SETUP ") for line in shown[0])


_PARAMETERS = """\
import pytest

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")

@pytest.fixture(scope="module", params=[1, 2])
def wide(request):
    note(f"set up {request.param}")
    yield request.param
    note(f"torn down {request.param}")
    assert request.param != 1, "torn down wrongly"

@pytest.mark.parametrize("number", range(2))
def test_it(wide, number):
    note(f"test {wide} {number}")
"""


@pytest.mark.parametrize("mode", MODES)
def test_who_makes_a_parameter_change_is_told_that_the_teardown_failed(
    tmp_path: Path, mode: str
) -> None:
    write_files(tmp_path, {"test_it.py": _PARAMETERS})
    notes = tmp_path / "notes"
    plain = run_pytest(tmp_path, "-p", "no:fkit", "-n0")
    expected = notes.read_text()
    notes.unlink()
    ended = run_pytest(tmp_path, *MODES[mode])
    assert "torn down wrongly" in ended.message("test_it.py::test_it[2-0]")
    assert sorted(ended.reported) == sorted(plain.reported), ended.out
    assert notes.read_text() == expected


_FOLLOWED = """\
import time
import pytest

# The first ones are sent together; from then on they take too long to be sent ahead.
@pytest.mark.parametrize("number", range(8))
def test_it(shared, number):
    time.sleep(0.3)
"""


def test_what_was_forked_for_another_test_does_not_run_the_one_that_follows(
    tmp_path: Path,
) -> None:
    conftest = "import pytest\n@pytest.fixture(scope='session')\ndef shared(): pass\n"
    files = {"conftest.py": conftest, "test_a.py": _FOLLOWED, "test_b.py": _FOLLOWED}
    ended = run_pytest(write_files(tmp_path, files), "--fkit", "-n1")
    assert set(ended.outcomes.values()) == {"PASSED"}, ended.out
    assert len(ended.outcomes) == 16


_FORKS = """\
import os
import pytest

def note():
    with open("forks", "a") as file:
        file.write("fork\\n")

os.register_at_fork(after_in_child=note)

@pytest.fixture(scope="module")
def wide():
    with open("set up", "a"):
        pass

MARK
def test_it(wide):
    pass
"""

_HOOK = "def pytest_runtest_setup(): pass"


@pytest.mark.parametrize(
    ("mark", "conftest", "forks", "outcome"),
    [
        ("", "", 3, "1 passed"),
        ("@pytest.mark.skipif(False, reason='')", "", 3, "1 passed"),
        ("@pytest.mark.skipif(True, reason='no')", "", 2, "1 skipped"),
        ("", _HOOK, 3, "1 passed"),
    ],
)
def test_no_child_is_forked_to_ask_for_what_its_host_can_begin(
    tmp_path: Path, mark: str, conftest: str, forks: int, outcome: str
) -> None:
    # Of the forks two are the keeper and the host.
    write_files(tmp_path, {"conftest.py": conftest, "test_it.py": _FORKS.replace("MARK", mark)})
    ended = run_pytest(tmp_path, "--fkit", "--fkit-start-method=fork", "-n0")
    assert f" {outcome} in " in ended.lines[-1], ended.out
    assert (tmp_path / "forks").read_text().count("fork") == forks
    assert (tmp_path / "set up").exists() is (outcome == "1 passed")


_OVERLAPS = """\
import os
import pytest

READER, WRITER = os.pipe()
os.register_at_fork(after_in_child=lambda: os.write(WRITER, b"."))

@pytest.fixture(scope="module")
def wide():
    os.read(READER, 1000)

@pytest.mark.parametrize("number", range(6))
def test_before(number):  # of the first ones the host learns which pages tests write to
    pass

def test_first(wide):
    for _ in ("this process", "that of the next test"):
        os.read(READER, 1)

def test_second(wide):
    pass
"""


def test_the_next_child_is_forked_while_the_test_that_its_host_began_runs(tmp_path: Path) -> None:
    write_files(tmp_path, {"test_it.py": _OVERLAPS})
    fork = "--fkit-start-method=fork"
    ended = run_pytest(tmp_path, "--fkit", fork, "-n0", "--fkit-timeout=20")
    assert set(ended.outcomes.values()) == {"PASSED"}, ended.out


_REQUESTS_LATE = """\
import time
import pytest

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")

@pytest.fixture(scope="module")
def slow():
    note("slow")
    time.sleep(0.3)

@pytest.fixture(scope="module")
def late():
    note("late")
    yield
    note("late is over")

@pytest.fixture(scope="module")
def fails():
    raise ValueError("late")

@pytest.fixture
def dynamic(request, slow):
    request.getfixturevalue(request.param)

@pytest.mark.parametrize("dynamic", ["late", "fails", "late"], indirect=True)
def test_it(slow, dynamic):
    note("test")
"""

_NOTES_SETUPS = """\
def pytest_runtest_logreport(report):
    if report.when == "setup":
        with open("setups", "a") as file:
            file.write(f"{report.outcome} slow={report.duration >= 0.3}\\n")
"""


def test_a_child_asks_for_a_wide_fixture_when_its_host_has_left_the_test(tmp_path: Path) -> None:
    write_files(tmp_path, {"test_it.py": _REQUESTS_LATE, "conftest.py": _NOTES_SETUPS})
    written = []
    for arguments in (["-p", "no:fkit"], ["--fkit"]):
        ended = run_pytest(tmp_path, *arguments, "-n0")
        assert sorted(ended.outcomes.values()) == ["ERROR", "PASSED", "PASSED"], ended.out
        notes = [tmp_path / "notes", tmp_path / "setups"]
        written.append([note.read_text() for note in notes])
        for note in notes:
            note.unlink()
    plain, isolated = written
    assert isolated == plain


_NARROWED = """\
import pytest

def note(text):
    with open("notes", "a") as file:
        file.write(f"{__name__} {text}\\n")

@pytest.fixture(scope="session")
def number(request):
    note(f"number {request.param}")
    yield request.param
    note("number is over")

@pytest.fixture(scope="module")
def wide(number):
    note(f"wide {number}")
    yield [number]
    note("wide is over")

@pytest.fixture(scope="module")
def dynamic(request):
    return request.getfixturevalue("wide")

@pytest.mark.parametrize("number", [1, 1, 2], indirect=True, scope="function")
def test_it(WIDE, number):
    WIDE.append(3)
    assert WIDE == [number, 3]
"""

# As pytest-asyncio does; and so late that wide fixtures are requested before, which a parametrized
# one precedes otherwise.
_REQUESTS_ONE_FIRST = """\
import pytest

class Item(pytest.Function):
    def setup(self):
        if "early" in self.path.name:
            self._request.getfixturevalue("number")
        super().setup()

@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector, name, obj):
    if name == "test_it":
        items = list(collector._genfunctions(name, obj))
        for item in items:
            item.__class__ = Item
            item.fixturenames.sort(key="number".__eq__)
        return items
"""


def test_a_wide_fixture_lives_no_longer_than_what_it_needs(tmp_path: Path) -> None:
    suites = {"test_early.py": "wide", "test_late.py": "wide", "test_dynamic.py": "dynamic"}
    sources = {path: _NARROWED.replace("WIDE", name) for path, name in suites.items()}
    write_files(tmp_path, {**sources, "conftest.py": _REQUESTS_ONE_FIRST})
    seen = []
    for arguments in (["-p", "no:fkit"], ["--fkit"]):
        (tmp_path / "notes").write_text("")
        ended = run_pytest(tmp_path, *arguments, "-n0")
        seen.append((ended, (tmp_path / "notes").read_text()))
    (plain, in_order), (isolated, notes) = seen
    if "ERROR" in plain.outcomes.values():
        pytest.skip("this pytest lets no wide fixture need one that a test has narrowed")
    # Plain pytest hands the dynamic one of the first test to those after it.
    assert set(isolated.outcomes.values()) == {"PASSED"}, isolated.out
    assert notes.count("test_dynamic wide is over") == 3
    expected = [line for line in in_order.splitlines() if "dynamic" not in line]
    assert len(expected) == 2 * 12
    assert [line for line in notes.splitlines() if "dynamic" not in line] == expected
