"""One run of a suite: how long it took, what its tests recorded, how much memory it had."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Sequence

import psutil

from .suites import RECORD

_LOOK = 0.02
"""Seconds between two looks at the memory of the process tree."""


class WrongRunError(Exception):
    """A run was not what it is to be measured as."""


class Line(NamedTuple):
    """What a test recorded; `at` in seconds of the monotonic clock.

    The last line is the "controller"'s, `at` its CPU time.
    """

    what: str
    at: float
    pid: int
    fresh: bool


class Run(NamedTuple):
    """A run that has ended.

    :param seconds: of the clock, from start to end.
    :param memory: the most that the process tree had at a time, and the same without pytest itself,
        bytes of proportional set size; 0 where it was not looked at.
    """

    seconds: float
    lines: Sequence[Line]
    memory: tuple[int, int] = (0, 0)


def run(
    python: str, arguments: Sequence[str], directory: Path, looks: bool = False, limit: float = 900
) -> Run:
    """Run the suite in `directory`.

    :param looks: whether to look at the memory, which takes time.
    :param limit: seconds.
    :raises WrongRunError: if it does not end in time.
    """
    record = directory / "record.txt"
    record.write_text("")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    # For `-p raw_fork`; the rest is not to see what this process was started with.
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**kept, RECORD: str(record), "PYTHONPATH": str(directory)}
    memory = (0, 0)
    began = time.monotonic()
    with (directory / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output,
        )  # fmt: skip
        try:
            if looks:
                memory = _watch(process, began + limit)
            process.wait(max(0.0, began + limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise WrongRunError(f"{' '.join(command)}: not over after {limit:g} s") from None
    seconds = time.monotonic() - began
    return Run(seconds, [_line(text) for text in record.read_text().splitlines()], memory)


def _line(text: str) -> Line:
    what, at, pid, fresh = text.split()
    return Line(what, float(at), int(pid), fresh == "1")


def _watch(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, int]:
    whole = below = 0
    while process.poll() is None and time.monotonic() < deadline:
        own, others = _sizes(process.pid)
        whole, below = max(whole, own + others), max(below, others)
        time.sleep(_LOOK)
    return whole, below


def _sizes(pid: int) -> tuple[int, int]:
    """Proportional set sizes in bytes: of a process, and of all below it together."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return 0, 0
    return _size(pid), sum(_size(child.pid) for child in children)


def _size(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0
    sizes = [line.split()[1] for line in text.splitlines() if line.startswith("Pss:")]
    return 1024 * int(sizes[0]) if sizes else 0


def check(done: Run, tests: int, apart: bool) -> None:
    """See to it that every test ran, once, in a process of its own if it is to.

    :raises WrongRunError: if not.
    """
    begun = [line for line in done.lines if line.what in ("test", "crash")]
    if len(begun) != tests:
        raise WrongRunError(f"{len(begun)} of {tests} tests ran")
    if apart and len({line.pid for line in begun}) != tests:
        raise WrongRunError(f"{tests} tests ran in {len({line.pid for line in begun})} processes")
    if apart and not all(line.fresh for line in begun):
        raise WrongRunError("a test found its module touched by another one")
