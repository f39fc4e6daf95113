"""What the journal and the trace cost: empty tests with both on and with both off, in turns."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Sequence

from .suites import write_empty

LIMIT = 3.0
"""Per cent that both together may cost at function isolation."""


class Cost(NamedTuple):
    """What one run took, in seconds: of the clock, and of all its processes' CPU time."""

    wall: float
    cpu: float


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(prog="benchmarks.journal", description=__doc__)
    parser.add_argument("--tests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("pytest", nargs="*", help="arguments for pytest (default: -n1)")
    options = parser.parse_args()
    arguments = ["--fkit", *(options.pytest or ["-n1"])]
    off: list[Cost] = []
    on: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="journal-") as base:
        suite = Path(base, "suite")
        write_empty(suite, options.tests)
        recorded = [*arguments, f"--fkit-journal={base}/run.jsonl", f"--fkit-trace={base}/run.json"]
        for number in range(options.rounds):
            turns = [(off, arguments), (on, recorded)]
            for costs, given in turns if number % 2 == 0 else reversed(turns):
                costs.append(_run(suite, given, options.tests))
            print(_line(f"round {number + 1}", off[-1:], on[-1:]), flush=True)
        size = Path(base, "run.jsonl").stat().st_size / options.tests
    print(_line("medians", off, on))
    print(f"journal: {size:.0f} bytes per test")
    return 0 if _more(off, on, 0) <= LIMIT else 1


def _run(suite: Path, arguments: Sequence[str], tests: int) -> Cost:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    output = suite.parent / "output.txt"
    began = time.monotonic()
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=suite, stdout=file, stderr=file)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = status  # waited for above
    if f"{tests} passed" not in output.read_text():
        sys.exit(f"{' '.join(command)} did not pass {tests} tests:\n{output.read_text()}")
    return Cost(wall, used.ru_utime + used.ru_stime)


def _more(off: Sequence[Cost], on: Sequence[Cost], field: int) -> float:
    """By how many per cent the second are above the first: the median of the rounds.

    Round by round, since the speed of a machine drifts.
    """
    ratios = [after[field] / before[field] for before, after in zip(off, on)]
    return 100 * (statistics.median(ratios) - 1)


def _line(title: str, off: Sequence[Cost], on: Sequence[Cost]) -> str:
    parts = [
        f"{name} {statistics.median(each[field] for each in off):.2f} s off, "
        f"{statistics.median(each[field] for each in on):.2f} s on ({_more(off, on, field):+.1f} %)"
        for field, name in enumerate(("clock", "CPU"))
    ]
    return f"{title}: {'; '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
