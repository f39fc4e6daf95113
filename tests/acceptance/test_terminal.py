"""What the user reads: the header, the summary, and nothing where nothing happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

QUIET = {"test_quiet.py": "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no')\n"}
EVENTS = {
    "test_events.py": """\
import os, subprocess, pytest
@pytest.mark.parametrize("text", ["caf\\u00e9 \\u2713"])
def test_dies(text):
    os.write(1, "output \\u2713\\n".encode())
    os.abort()
def test_exits(): os._exit(3)
def test_leaves_processes():
    for _ in range(52): subprocess.Popen(["sleep", "600"])
def test_fails(): assert "\\u2713" == "x"
"""
}
TITLE = " pytest-fkit summary "


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ("-n0", "fkit: no workers, isolation: function, timeout: 600 s"),
        (
            "-n0 --fkit-timeout=0 --fkit-isolation=class --fkit-memory-limit=2G",
            "fkit: no workers, isolation: class, timeout: none, memory limit: 2 GiB",
        ),
    ],
)
def test_one_header_line_and_nothing_else_where_nothing_happened(
    tmp_path: Path, options: str, header: str
) -> None:
    ended = run_pytest(write_files(tmp_path, QUIET), "--fkit", *options.split())
    said = [line for line in ended.lines if "fkit" in line and not line.startswith("plugins: ")]
    assert [line for line in said if not line.startswith("rootdir: ")] == [header]
    assert ended.status == 0


def test_quiet_pytest_has_no_header(tmp_path: Path) -> None:
    ended = run_pytest(write_files(tmp_path, QUIET), "--fkit", "-n0", "-q")
    assert "fkit" not in ended.out


@pytest.fixture(scope="module")
def ascii_run(tmp_path_factory: pytest.TempPathFactory) -> InnerRun:
    directory = write_files(tmp_path_factory.mktemp("events"), EVENTS)
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    return run_pytest(directory, "--fkit", "-n1", "-s", env=env)


def test_the_summary_lists_deaths_and_processes_left(ascii_run: InnerRun) -> None:
    lines = ascii_run.lines
    [start] = [number for number, line in enumerate(lines) if TITLE in line]
    assert lines[start + 1] == "2 tests crashed and were reported as errors:"
    name = "test_events.py::test_dies[caf\\xe9 \\u2713]"
    assert lines[start + 2].split("  ") == ["", name, "SIGABRT", "test_events.py:5", "gw0"]
    exits = [column.strip() for column in lines[start + 3].split("  ") if column.strip()]
    assert exits == ["test_events.py::test_exits", "exit status 3", "gw0"]
    assert lines[start + 4] == "1 test left processes running, which were ended:"
    left = lines[start + 5 : start + 55]
    assert all(line.startswith("  test_events.py::test_leaves_processes  pid ") for line in left)
    assert all("sleep" in line for line in left)
    assert lines[start + 55] == "  \\u2026 2 more"


def test_a_stream_that_shows_ascii_only_gets_ascii(ascii_run: InnerRun) -> None:
    assert ascii_run.out.isascii()
    assert "[gw0] output \\u2713" in ascii_run.lines
    assert "INTERNALERROR" not in ascii_run.out
    assert "UnicodeEncodeError" not in ascii_run.out + ascii_run.err
    assert "2 errors" in ascii_run.lines[-1]
