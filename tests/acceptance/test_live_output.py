"""What tests write to the terminal while they run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

SUITE = {
    "test_talks.py": """\
import logging, os, subprocess, sys, pytest
log = logging.getLogger()

@pytest.fixture(scope="module")
def wide():
    print("wide says hello")
    log.info("wide logs hello")
    yield
    print("wide says goodbye")
    log.info("wide logs goodbye")

@pytest.fixture
def narrow(): log.info("narrow logs")

def test_lines(wide, narrow):
    print("line 1\\nline 2")
    log.info("test logs")

def test_partial():
    sys.stdout.write("no end of line")
    sys.stderr.write("error without end")

def test_subprocess():
    subprocess.run([sys.executable, "-c", "print('from a subprocess')"])
    subprocess.run(["sh", "-c", "echo error of a shell >&2; printf 'shell without end'"])

def test_unusual(): os.write(1, "caf\\u00e9 \\xff\\n".encode() + b"\\xff\\n")

def test_dies():
    sys.stdout.write("last words")
    sys.stdout.flush()
    log.info("last log")
    os.abort()
"""
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("live"), SUITE)


@pytest.fixture(scope="module")
def uncaptured(suite: Path) -> InnerRun:
    return run_pytest(suite, "--fkit", "-n2", "-s")


@pytest.mark.parametrize(
    "text",
    [
        "wide says hello",
        "line 1",
        "line 2",
        "wide says goodbye",
        "no end of line",
        "error without end",
        "from a subprocess",
        "error of a shell",
        "shell without end",
        "caf\u00e9 \u00ff",
        "last words",
    ],
)
def test_uncaptured_output_of_workers_comes_in_whole_lines_with_the_name(
    uncaptured: InnerRun, text: str
) -> None:
    found = [line for line in uncaptured.lines if re.fullmatch(rf"\[gw[01]\] .*{text}.*", line)]
    assert len(found) == 1


def test_no_line_mixes_workers_or_letters(uncaptured: InnerRun) -> None:
    assert not [line for line in uncaptured.lines if "[gw" in line[1:]]
    assert len(uncaptured.outcomes) == 5


@pytest.mark.parametrize("options", [("--log-cli-level=INFO",), ("-o", "log_cli=true")])
def test_live_logs_of_workers_come_in_whole_lines_with_the_name(
    suite: Path, options: tuple[str, ...]
) -> None:
    ended = run_pytest(suite, "--fkit", *options, "-o", "log_level=INFO", "--setup-show")
    texts = [line[6:].split() for line in ended.lines if line.startswith("[gw0] ")]
    # After the name of a fixture that was set up plain pytest does not begin a line either.
    logged = [
        " ".join(words[-2:]) for words in texts if any(word.endswith("INFO") for word in words)
    ]
    assert logged == [
        "logs hello",
        "narrow logs",
        "test logs",
        "last log",
        "logs goodbye",
    ]
    assert [words for words in texts if words[:3] == ["SETUP", "M", "wideINFO"]]
    assert [words for words in texts if words[:3] == ["TEARDOWN", "M", "wide"]]
    assert [words for words in texts if words[:1] == ["test_talks.py::test_partial"]]
    assert not [line for line in ended.lines if "[gw" in line[1:]]
    assert len(ended.outcomes) == 5


@pytest.mark.parametrize("options", [("--log-cli-level=INFO",), ("--setup-show",)])
def test_without_workers_the_terminal_shows_what_plain_pytest_shows(
    suite: Path, options: tuple[str, ...]
) -> None:
    args = ("-p", "no:cacheprovider", "--deselect=test_talks.py::test_dies", *options)
    plain, ours = run_pytest(suite, *args), run_pytest(suite, "--fkit", "-n0", *args)
    assert _comparable(ours) == _comparable(plain)


def _comparable(run: InnerRun) -> list[str]:
    # The host of a wide fixture and the test's process have a section of the live log each.
    lines = [re.sub(r"\d+\.\d+s", "", line) for line in run.lines]
    ours = ("fkit: ", "-------")
    return [line.strip("= ") for line in lines if line and not line.startswith(ours)]


def test_without_workers_uncaptured_output_is_shown_directly(suite: Path) -> None:
    ended = run_pytest(suite, "--fkit", "-n0", "-s", "-k", "lines or subprocess")
    # After the name of the file, as in plain pytest.
    start = ended.lines.index("test_talks.py wide says hello")
    assert ended.lines[start + 1 : start + 3] == ["line 1", "line 2"]
    assert "from a subprocess" in ended.out
    assert "[gw" not in ended.out
