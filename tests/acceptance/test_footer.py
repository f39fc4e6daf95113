"""The footer on a screen, as a terminal shows it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from pathlib import Path
from typing import Callable

import pytest
from inner import command, environment, write_files

pyte = pytest.importorskip("pyte")

_LIMIT = 60.0

_FILE = """
import os, time
import pytest

@pytest.mark.parametrize("number", range(10))
def test_quick(number): pass

def test_long():
    while not os.path.exists("go"):
        time.sleep(0.05)
    assert __name__ != "test_b"
"""

# With loadfile each of three workers comes to a long test after ten quick ones. Otherwise a worker
# may have a test behind a long one, and nobody knows how many are done when all wait.
_SUITE = {f"test_{name}.py": _FILE for name in "abc"}


class Terminal:
    """A run of pytest on a screen."""

    def __init__(self, directory: Path, *arguments: str, rows: int, columns: int) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=5000)
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:  # pragma: no cover
            os.chdir(directory)
            started = command("-p", "no:cacheprovider", *arguments)
            env = environment({"TERM": "xterm-256color", "NO_COLOR": ""})
            env.pop("COLUMNS", None)
            os.execve(started[0], started, env)
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """As a window manager does."""
        self.screen.resize(rows, columns)
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, size)

    def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """What is on the screen once that holds; or when the run is over, or too late."""
        end = time.monotonic() + _LIMIT
        while not holds(self.shown) and time.monotonic() < end:
            if select.select([self._descriptor], [], [], 1.0)[0]:
                try:
                    data = os.read(self._descriptor, 65536)
                except OSError:  # everybody has closed the other side
                    break
                self._stream.feed(data)
        return self.shown

    @property
    def shown(self) -> list[str]:
        """The rows of the screen."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def scrolled(self) -> list[str]:
        """The rows above it, and it."""
        above = [
            "".join(cell.data for _, cell in sorted(row.items())).rstrip()
            for row in self.screen.history.top
        ]
        return above + self.shown

    def status(self) -> int:
        """The exit status, when all was read."""
        self.until(lambda _: False)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _has_footer(shown: list[str], workers: int = 3) -> bool:
    """Whether it shows that all workers wait in long tests: until then pytest goes on writing."""
    waiting = [line for line in shown if " s  gw" in line and "::test_long" in line]
    done = any(f"] {10 * workers} of 33" in line for line in shown)
    return done and len(waiting) == workers


@pytest.fixture
def terminal(tmp_path: Path) -> Callable[..., Terminal]:
    write_files(tmp_path, _SUITE)
    return lambda *arguments, rows=24, columns=80: Terminal(
        tmp_path, "--fkit", *arguments, rows=rows, columns=columns
    )


def test_it_stays_below_what_pytest_writes(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    run = terminal("-n3", "--dist=loadfile", "-v")
    shown = run.until(_has_footer)
    assert _has_footer(shown[20:]), shown
    assert [line for line in shown[:20] if " s  gw" in line or "[####" in line] == []
    seen = {*run.scrolled}
    run.resize(12, 60)  # which cuts off the upper rows
    shown = run.until(lambda shown: _has_footer(shown[-4:]))
    assert _has_footer(shown[-4:]), shown
    run.resize(30, 70)  # the footer is in the middle now
    shown = run.until(lambda shown: _has_footer(shown[-4:]))
    assert [number for number, line in enumerate(shown) if " of 33" in line] == [26], shown
    (tmp_path / "go").touch()
    assert run.status() == 1
    # No line of pytest's is lost, or written over, and nothing of the footer is left.
    passed = {line for line in seen.union(run.scrolled) if "PASSED" in line and "quick" in line}
    assert len(passed) == 30, run.scrolled
    assert [line for line in run.scrolled if "####" in line or " s  gw" in line] == []
    assert "1 failed, 32 passed" in [line for line in run.shown if line][-1]


@pytest.mark.parametrize("arguments", [("-q",), ("-s",), ("--fkit-footer=never",)])
def test_who_does_not_want_it_has_none(
    terminal: Callable[..., Terminal], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "go").touch()
    run = terminal("-n1", *arguments)
    assert run.status() == 1
    assert "\33[1;" not in "".join(run.shown)
    assert [line for line in run.scrolled if " of 33" in line] == []


def test_a_run_that_is_interrupted_gives_the_screen_back(
    terminal: Callable[..., Terminal],
) -> None:
    run = terminal("-n1")
    assert _has_footer(run.until(lambda shown: _has_footer(shown, 1)), 1)
    os.kill(run.pid, signal.SIGINT)
    assert run.status() == 2
    assert run.screen.margins in (None, pyte.screens.Margins(0, 23))
    assert [line for line in run.shown if "####" in line] == []
