"""How long a suite of very different tests takes on several workers, beside what is possible.

``python -m benchmarks.makespan`` runs tests that sleep, so that workers need no cores of their own:
with pytest-xdist's ``load`` and ``worksteal``, and with ``--fkit --fkit-isolation=session``, first
when nobody knows how long tests take, then again, when the first run told. What each takes from
the begin of the first test to the end of the last is compared with what these tests would take
if every worker that is free took the next one at once, in the same order ("first free"), and
with the longest first ("longest first"). No test takes longer than 0.15 of the sum divided by the
number of workers but one: else it alone decides.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple, Sequence

_SUITE = """\
import json, os, time
import pytest

SECONDS = {seconds}

@pytest.mark.parametrize("number", range(len(SECONDS)))
def test_it(number):
    begin = time.time()
    time.sleep(SECONDS[number])
    line = json.dumps([begin, time.time()]) + "\\n"
    descriptor = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)
"""

CONTENDERS = {
    "xdist load": ("-p", "no:fkit", "--dist=load"),
    "xdist worksteal": ("-p", "no:fkit", "--dist=worksteal"),
    "fkit, durations unknown": ("--fkit", "--fkit-isolation=session", "--cache-clear"),
    "fkit, durations known": ("--fkit", "--fkit-isolation=session"),
}
"""In an order in which the last one finds what the one before it remembered."""


class Run(NamedTuple):
    """Of one contender, in seconds.

    :param first_free: what the tests as they were would take in the order in which they began.
    :param longest_first: the same, the longest first.
    """

    makespan: float
    first_free: float
    longest_first: float


def skewed(number: int, workers: int, total: float, seed: int) -> list[float]:
    """Seconds of tests: most are quick, some are not, none decides alone."""
    chance = random.Random(seed)
    seconds = [chance.paretovariate(0.9) for _ in range(number)]
    for _ in range(50):
        limit = 0.14 * sum(seconds) / max(1, workers - 1)
        seconds = [min(each, limit) for each in seconds]
    return [round(each * total / sum(seconds), 4) for each in seconds]


def on_paper(seconds: Sequence[float], workers: int) -> float:
    """What tests take in this order if a worker that is free takes the next one at once."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def run(suite: Path, workers: int, arguments: Sequence[str]) -> Run:
    """Run the suite."""
    log = suite / "log"
    log.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"-n{workers}", *arguments],
        cwd=suite,
        env={**os.environ, "LOG": str(log)},
        stdout=subprocess.DEVNULL,
        timeout=600,
        check=True,
    )
    times = sorted(json.loads(line) for line in log.read_text().splitlines())
    took = [end - begin for begin, end in times]
    return Run(
        max(end for _, end in times) - times[0][0],
        on_paper(took, workers),
        on_paper(sorted(took, reverse=True), workers),
    )


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", type=int, default=120)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=40.0, help="of all tests together")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as directory:
        for each in range(options.rounds):
            suite = Path(directory) / str(each)
            suite.mkdir()
            seconds = skewed(options.tests, options.workers, options.seconds, each)
            (suite / "test_skewed.py").write_text(_SUITE.format(seconds=seconds))
            (suite / "pytest.ini").write_text("[pytest]\n")
            for name, arguments in CONTENDERS.items():
                runs[name].append(run(suite, options.workers, arguments))
    print("| | makespan, s | / first free | / longest first |\n|---|---|---|---|")
    for name, found in runs.items():
        columns = (
            median(each.makespan for each in found),
            median(each.makespan / each.first_free for each in found),
            median(each.makespan / each.longest_first for each in found),
        )
        print(f"| {name} | {' | '.join(f'{column:.2f}' for column in columns)} |")


if __name__ == "__main__":
    main()
