"""Whether a run of very many empty tests keeps its pace, and its processes their size.

``python -m benchmarks.long_run`` runs them at session isolation and beside that with pytest-xdist
alone, and prints how long the first and the last tenth of the tests took, and the memory of its own
(RssAnon + RssShmem of proc(5)) that each kind of process had after a tenth and after nine tenths.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

import psutil

_MODULE = 1000
_LOOK = 0.1  # seconds
_ROLES = ("controller", "worker", "keeper", "host")
"""By their depth in the process tree."""

_TESTS = """\
import os
import pytest

@pytest.mark.parametrize("number", range({number}))
def test_it(number):
    file.write(b".")

file = open(os.environ["LOG"], "ab", buffering=0)  # with a buffer it would keep tests from forks
"""


class Look(NamedTuple):
    """At a run.

    :param at: seconds of the monotonic clock.
    :param tests: that have run.
    :param memory: KiB, by role the largest process's.
    """

    at: float
    tests: int
    memory: Mapping[str, int]


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(prog="benchmarks.long_run", description=__doc__)
    parser.add_argument("--tests", type=int, default=100_000)
    parser.add_argument("-n", type=int, default=2, help="workers")
    options = parser.parse_args()
    for name, arguments in (
        ("xdist", ("-p", "no:fkit")),
        ("fkit, session", ("--fkit", "--fkit-isolation=session")),
    ):
        with tempfile.TemporaryDirectory(prefix="long-run-") as directory:
            looks = _run(Path(directory), options.tests, (f"-n{options.n}", *arguments))
        print("\n".join(_said(name, options.tests, looks)), flush=True)


def _run(directory: Path, tests: int, arguments: Sequence[str]) -> list[Look]:
    (directory / "pytest.ini").write_text("[pytest]\n")
    for first in range(0, tests, _MODULE):
        text = _TESTS.format(number=min(_MODULE, tests - first))
        (directory / f"test_{first:07}.py").write_text(text)
    log = directory / "log"
    log.touch()
    environment = {**os.environ, "LOG": str(log)}
    looks: list[Look] = []
    with (directory / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            cwd=directory, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
        while process.poll() is None:
            looks.append(Look(time.monotonic(), log.stat().st_size, _memory(process.pid)))
            time.sleep(_LOOK)
    if process.returncode or log.stat().st_size != tests:
        sys.exit(f"{log.stat().st_size} of {tests} tests ran, status {process.returncode}")
    return [*looks, Look(time.monotonic(), tests, {})]


def _memory(controller: int) -> dict[str, int]:
    found: dict[str, int] = {}
    level = [controller]
    for role in _ROLES:
        sizes = [_own(pid) for pid in level]
        if sizes:
            found[role] = max(sizes)
        level = [child for pid in level for child in _children(pid)]
    return found


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _own(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))


def _said(name: str, tests: int, looks: Sequence[Look]) -> list[str]:
    def when(share: float) -> Look:
        return next(look for look in looks if look.tests >= tests * share)

    began, first, later, ended = when(1e-9), when(0.1), when(0.9), when(1)
    tenths = first.at - began.at, ended.at - later.at
    whole = ended.at - began.at
    pace = f"{1000 * whole / tests:.2f} ms each"
    ratio = f"first tenth {tenths[0]:.2f} s, last {tenths[1]:.2f} s: {tenths[1] / tenths[0]:.2f}"
    lines = [f"{name}: {tests} tests in {whole:.1f} s, {pace}; {ratio}"]
    for role in first.memory:
        sizes = first.memory[role], later.memory.get(role, 0)
        each = (sizes[1] - sizes[0]) / (0.8 * tests)
        lines.append(f"  {role}: {sizes[0]:,} and {sizes[1]:,} KiB, {each:.3f} KiB a test")
    return lines


if __name__ == "__main__":
    main()
