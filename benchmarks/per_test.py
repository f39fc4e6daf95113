"""What an empty test costs: plain pytest, pytest-xdist, the peers and pytest-fkit, in one run.

Every contender has a virtual environment of its own, kept in a directory for the next time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Sequence

from .compare.contenders import CONTENDERS as ALL
from .compare.contenders import RAW, Contender
from .compare.environments import CHECKOUT, install, python
from .suites import write_empty

# It reports no tests, which is how runs are known here.
CONTENDERS = tuple(each for each in ALL if each.name != RAW)


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(prog="benchmarks.per_test", description=__doc__)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="contenders whose names contain one of these"
    )
    parser.add_argument(
        "--environments", type=Path, default=CHECKOUT / "build" / "benchmark-environments"
    )
    options = parser.parse_args()
    contenders = [each for each in CONTENDERS if any(text in each.name for text in options.only)]
    for name in {each.environment for each in contenders}:
        install(options.environments, name)
    print(f"load before: {_load()}", flush=True)
    costs = _measure(contenders, options.environments, options.tests, options.rounds)
    print(f"load after: {_load()}")
    _show(contenders, costs)


def _load() -> str:
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


def _measure(
    contenders: Sequence[Contender], environments: Path, tests: int, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds for an empty test, by contender, one number for each round."""
    costs: dict[str, list[float]] = {each.name: [] for each in contenders}
    with tempfile.TemporaryDirectory(prefix="per-test-") as base:
        for size in {1, *(_size(each, tests) for each in contenders)}:
            write_empty(Path(base, str(size)), size)
        for _ in range(rounds):
            for each in contenders:
                size = _size(each, tests)
                interpreter = python(environments / each.environment)
                start_up = _seconds(interpreter, each.arguments, Path(base, "1"), 1)
                seconds = _seconds(interpreter, each.arguments, Path(base, str(size)), size)
                costs[each.name].append((seconds - start_up) * 1000 / (size - 1))
    return costs


def _size(contender: Contender, tests: int) -> int:
    return max(5, tests // contender.slow)


def _seconds(interpreter: str, arguments: Sequence[str], directory: Path, tests: int) -> float:
    command = [interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    began = time.monotonic()
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if f"{tests} passed" not in done.stdout:
        sys.exit(f"{' '.join(command)} did not pass {tests} tests:\n{done.stdout}{done.stderr}")
    return seconds


def _show(contenders: Sequence[Contender], costs: dict[str, list[float]]) -> None:
    median = {name: statistics.median(values) for name, values in costs.items()}
    print(f"\n{'ms per empty test':22}{'median':>9}{'least':>9}{'most':>9}")
    for each in contenders:
        values = costs[each.name]
        print(f"{each.name:22}{median[each.name]:9.2f}{min(values):9.2f}{max(values):9.2f}")
    print()
    for number, base in ((0, "plain"), (1, "xdist -n1"), (2, "xdist -n2")):
        name = f"fkit -n{number}, session"
        if {name, base} <= set(median):
            print(f"{name} / {base}: {_ratio(costs[name], costs[base]):.2f}")
    if {"forked", "plain, pytest 8.4"} <= set(median):
        forked = median["forked"] - median["plain, pytest 8.4"]
        print("what isolation adds to a test, in units of what pytest-forked adds to it")
        for name, base in (("fkit -n1", "xdist -n1"), ("fkit -n0", "plain")):
            if {name, base} <= set(median):
                adds = (median[name] - median[base]) / forked
                print(f"  ({name} - {base}) / (forked - plain): {adds:.2f}")


def _ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios round by round: the machine's speed drifts."""
    return statistics.median(one / other for one, other in zip(ones, others))


if __name__ == "__main__":
    main()
