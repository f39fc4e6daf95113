"""From where options come, which tests are chosen, and what runs no test at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import run_pytest, write_files

TESTS = {
    "tests/conftest.py": """\
import pytest
@pytest.fixture
def ours(): "It is ours."
def pytest_addoption(parser):
    parser.addoption("--colour", default="none")
""",
    "tests/test_a.py": """\
import os, pytest

def test_option(request): print("colour", request.config.getoption("--colour"))
@pytest.mark.slow
def test_slow(): pass
def test_other(ours): pass
class TestGroup:
    def test_dies(self): os.abort()
    def test_in_group(self): pass
""",
    "tests/deep/test_b.py": "def test_deep(): pass\n",
    "helper.py": "def pytest_report_header(): return 'helper is here'\n",
}
FILES = {
    "pytest.ini": "[pytest]\naddopts = --fkit -n1\nfkit_isolation = {}\nmarkers = slow\n",
    "tox.ini": "[pytest]\naddopts = --fkit -n1\nfkit_isolation = {}\nmarkers = slow\n",
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--fkit -n1'\n"
    "fkit_isolation = '{}'\nmarkers = ['slow']\n",
}
DEAD = "tests/test_a.py::TestGroup::test_dies"


@pytest.mark.parametrize("name", list(FILES))
def test_options_come_from_a_configuration_file(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, {**TESTS, name: FILES[name].format("module")})
    below = tmp_path / "tests" / "deep"
    ended = run_pytest(below, "..", "--strict-markers")
    assert "fkit: 1 worker, isolation: module, timeout: 600 s" in ended.lines
    outcomes = ended.outcomes
    assert len(outcomes) == 6
    # Node ids of a short summary are relative to the current directory.
    assert [nodeid for nodeid, outcome in outcomes.items() if outcome == "ERROR"] == [
        "../test_a.py::TestGroup::test_dies"
    ]


def test_a_command_line_from_another_directory(tmp_path: Path) -> None:
    project = write_files(tmp_path / "project", {**TESTS, "other.cfg": "[tool:pytest]\n"})
    write_files(tmp_path, {"other.ini": FILES["pytest.ini"].format("class")})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ended = run_pytest(
        elsewhere,
        f"--rootdir={project}",
        f"-c{tmp_path / 'other.ini'}",
        "-phelper",
        "-ofkit_timeout=77",
        str(project / "tests"),
        "--colour=blue",
        "-knot other",
        "-mnot slow",
        f"--deselect={DEAD}",
        env={"PYTHONPATH": str(project)},
    )
    assert "fkit: 1 worker, isolation: class, timeout: 77 s" in ended.lines
    assert "helper is here" in ended.lines
    names = {nodeid.rpartition("::")[2] for nodeid in ended.outcomes}
    assert names == {"test_option", "test_in_group", "test_deep"}
    assert "colour blue" in ended.lines
    assert ended.status == 0


def test_node_ids(tmp_path: Path) -> None:
    write_files(tmp_path, TESTS)
    ended = run_pytest(tmp_path, "--fkit", "tests/deep/test_b.py::test_deep", DEAD)
    assert ended.outcomes == {"tests/deep/test_b.py::test_deep": "PASSED", DEAD: "ERROR"}


def test_the_last_failed_tests_include_a_crash(tmp_path: Path) -> None:
    write_files(tmp_path, {**TESTS, "pytest.ini": FILES["pytest.ini"].format("function")})
    assert len(run_pytest(tmp_path).outcomes) == 6
    assert run_pytest(tmp_path, "--lf").outcomes == {DEAD: "ERROR"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("project"), TESTS)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--collect-only", "<Function test_dies>"),
        ("--fixtures", "It is ours."),
        ("--fixtures-per-test", "It is ours.") ,
        ("--markers", "@pytest.mark.fkit_skip: "),
        ("--help", "--fkit-isolation=function|class|module|session"),
        ("--version", "pytest "),
        ("--cache-show", "cachedir: "),
    ],
)  # fmt: skip
def test_what_only_shows_something_runs_no_test(project: Path, option: str, text: str) -> None:
    ended = run_pytest(project, "--fkit", option)
    assert text in ended.out + ended.err
    assert ended.status == 0
    assert not ended.outcomes
    assert "created: " not in ended.out
