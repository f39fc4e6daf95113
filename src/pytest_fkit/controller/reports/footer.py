"""On a terminal: at the bottom of the screen, how far the run is and which tests take longest.

The terminal scrolls what pytest writes in a region above the footer (DECSTBM, as in
https://vt100.net/docs/vt510-rm/DECSTBM.html), so pytest's own lines are neither intercepted nor
redrawn, and the cursor is put back to where pytest has left it.
"""

from __future__ import annotations

import unicodedata
from typing import Iterable, Mapping, Sequence, TextIO

import pytest

from ...compat.pytest_output import terminal_file
from ...config.settings import SETTINGS
from ...named_tuple import NamedTuple
from ...own import atexit, os, own_builtins, time
from ...protocol.border import ItemFinished, ItemStarted, Told
from ...system.source_lines import showable

own_builtins(globals())

_FEWEST_ROWS = 9
"""Rows of the smallest screen with a footer, which may take a third of it."""

_MOST_TESTS = 8

_LONG = 1.0
"""Seconds after which a running test is shown."""

_BAR = 20
"""Characters of the progress bar."""


class ShownTest(NamedTuple):
    """A test that runs.

    :param place: the worker with its GPUs.
    :param since: seconds of the monotonic clock.
    """

    place: str
    nodeid: str
    since: float


class RunProgress(NamedTuple):
    """How far the run is.

    :param left: seconds until its end by the durations of earlier runs, None if unknown.
    """

    done: int
    total: int
    failed: int
    left: float | None


def rows_for(workers: int, screen: int) -> int:
    """Rows of the footer on a screen of so many; 0 where it has no place."""
    return 0 if screen < _FEWEST_ROWS else min(1 + min(workers, _MOST_TESTS), screen // 3)


def lines(
    progress: RunProgress, running: Iterable[ShownTest], now: float, rows: int, columns: int
) -> list[str]:
    """The footer's rows, the tests that run longest first; all fit into the columns."""
    share = progress.done / progress.total if progress.total else 0.0
    bar = "#" * min(int(share * _BAR), _BAR)
    said = [f"[{bar:-<{_BAR}}] {progress.done} of {progress.total}"]
    if progress.failed:
        said.append(f"{progress.failed} failed")
    if progress.left is not None and progress.done < progress.total:
        said.append(f"about {_duration(progress.left)} left")
    longest = [each for each in running if now - each.since >= _LONG]
    longest.sort(key=lambda each: each.since)
    tests = [
        f"{_duration(now - each.since):>7}  {each.place}  {' '.join(showable(each.nodeid).split())}"
        for each in longest[: rows - 1]
    ]
    found = [", ".join(said), *tests]
    return [_cut(line, columns - 1) for line in [*found, *[""] * (rows - len(found))]]


def seconds_left(
    expected: Mapping[str, float | None], done: set[str], workers: int
) -> float | None:
    """Seconds until the end, by durations of earlier runs.

    :return: None if most of the tests that are left were never timed.
    """
    left = [seconds for nodeid, seconds in expected.items() if nodeid not in done]
    known = [seconds for seconds in left if seconds is not None]
    if not known or 2 * len(known) < len(left):
        return None
    return sum(known) / len(known) * len(left) / max(workers, 1)


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _cut(line: str, columns: int) -> str:
    width = 0
    for position, character in enumerate(line):
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > columns:
            return line[:position]
    return line


class Footer:
    """Plugin of a controller with workers, for a person who looks at pytest's own reporter."""

    def __init__(self, config: pytest.Config, workers: int) -> None:
        self._config = config
        self._wanted = config.stash[SETTINGS].footer == "auto"
        self._workers = workers
        self._session: pytest.Session | None = None
        self._file: TextIO | None = None
        self._running: dict[str, ShownTest] = {}
        self._done: set[str] = set()
        self._screen = (0, 0)
        self._rows = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        option = self._config.getoption  # of plugins that may be blocked
        quiet = option("verbose", -1) < 0 or option("capture", "no") == "no"
        if self._wanted and not quiet and os.environ.get("TERM", "dumb") != "dumb":
            self._file = terminal_file(self._config)
            atexit.register(self.close)

    @property
    def is_shown(self) -> bool:
        """Whether there is a screen; without one it need not hear of anything."""
        return self._file is not None

    def hear(self, worker: str, place: str, told: Sequence[Told]) -> None:
        """A worker tells of its tests.

        :param place: the worker, its machine and its GPUs, as they are shown.
        """
        for each in told:
            if isinstance(each, ItemStarted):
                self._running[worker] = ShownTest(place, each.nodeid, time.monotonic())
            elif isinstance(each, ItemFinished):
                self._done.add(each.nodeid)
                shown = self._running.get(worker)
                if shown is not None and shown.nodeid == each.nodeid:  # else the next has begun
                    del self._running[worker]

    def lost(self, worker: str) -> None:
        self._running.pop(worker, None)

    def draw(self, expected: Mapping[str, float | None]) -> None:
        """Bring it up to date; on the main thread, as pytest writes.

        :param expected: seconds of each test, by node id, None where unknown.
        """
        session, file = self._session, self._file
        if file is None or session is None or not session.testscollected:
            return
        try:
            columns, rows = os.get_terminal_size(file.fileno())
        except (OSError, ValueError):  # the terminal is gone
            self._file = None
            return
        moves = self._open(columns, rows)
        if not self._rows:
            self._write(moves)
            return
        left = seconds_left(expected, self._done, self._workers)
        progress = RunProgress(len(self._done), session.testscollected, session.testsfailed, left)
        found = lines(progress, self._running.values(), time.monotonic(), self._rows, columns)
        first = rows - self._rows + 1
        drawn = "".join(f"\33[{row};1H\33[2K{line}" for row, line in enumerate(found, first))
        self._write(f"{moves}\0337{drawn}\0338")

    def _open(self, columns: int, rows: int) -> str:
        """What gives the footer its place, if the screen has changed."""
        if self._screen == (columns, rows):
            return ""
        self._screen = (columns, rows)
        before, self._rows = self._rows, rows_for(self._workers, rows)
        moves = "\0337\33[r\0338\33[J" if before else ""  # the old one is below the cursor
        if not self._rows:
            return moves
        # Scroll, so that the cursor is above; setting the region moves it to the first row.
        return (
            moves + "\33D" * self._rows + f"\33[{self._rows}A\0337\33[1;{rows - self._rows}r\0338"
        )

    def close(self) -> None:
        if self._rows:
            first = self._screen[1] - self._rows + 1
            self._write(f"\0337\33[r\33[{first};1H\33[J\0338")
        self._file, self._rows = None, 0
        atexit.unregister(self.close)

    def _write(self, sequence: str) -> None:
        try:
            if self._file is not None:
                self._file.write(sequence)
                self._file.flush()
        except (OSError, ValueError):  # the terminal is gone, or closed at exit
            self._file = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        self.close()
