"""Compares pytest-fkit with plain pytest, pytest-xdist and its peers, and prints Markdown tables.

All contenders run in turn, several rounds; the tables have medians. Every contender has a virtual
environment of its own, kept in a directory for the next time.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Sequence

from .contenders import CONTENDERS, Contender
from .environments import CHECKOUT, install, python
from .measures import Course, Measured, measure
from .runs import WrongRunError
from .suites import SUITES, Suite
from .table import ratios, table


def main() -> int:
    """The script; its exit status is 1 if somebody did not run every test as it is to."""
    parser = argparse.ArgumentParser(prog="benchmarks.compare", description=__doc__)
    names = [suite.name for suite in SUITES]
    parser.add_argument("--suites", nargs="+", choices=names, default=names, metavar="SUITE",
                        help=f"of {', '.join(names)} (default: all)")  # fmt: skip
    parser.add_argument("--only", nargs="+", default=[], metavar="CONTENDER", help="exact names")
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", default="torch", help="pip's requirement for PyTorch")
    parser.add_argument(
        "--environments", type=Path, default=CHECKOUT / "build" / "benchmark-environments"
    )
    options = parser.parse_args()
    unknown = set(options.only) - {each.name for each in CONTENDERS}
    if unknown:
        parser.error(f"no contender {', '.join(sorted(unknown))}")
    contenders = [each for each in CONTENDERS if not options.only or each.name in options.only]
    chosen = [suite for suite in SUITES if suite.name in options.suites]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {_load()}")
    failures = 0
    with tempfile.TemporaryDirectory(prefix="compare-") as base:
        for suite in chosen:
            course = Course(suite, Path(base), options.tests)
            failures += _compare(course, contenders, options)
    return 1 if failures else 0


def _load() -> str:
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


def _compare(course: Course, contenders: Sequence[Contender], options: argparse.Namespace) -> int:
    """Measure a suite and print its table; how often somebody failed."""
    suite = course.suite
    entered = [each for each in contenders if course.takes(each)]
    for name in {each.environment: None for each in entered}:
        install(options.environments, name, _requirements(suite, options.torch))
    rounds: dict[str, list[Measured]] = {each.name: [] for each in entered}
    failures: list[str] = []
    for _ in range(options.rounds):
        for each in entered:
            try:
                interpreter = python(options.environments / each.environment)
                measured = measure(course, each, interpreter)
                rounds[each.name].append(measured)
                said = ", ".join(f"{name} {value:.2f}" for name, value in measured.items())
                print(f"{suite.name}, {each.name}: {said}", file=sys.stderr, flush=True)
            except WrongRunError as error:
                failures.append(f"{suite.name}, {each.name}: {error}")
                print(f"! {failures[-1]}", file=sys.stderr, flush=True)
    size = max(course.size(each) for each in entered)
    lines = (*table(suite, size, {name: of for name, of in rounds.items() if of}), *ratios(rounds))
    print("\n" + "\n".join(lines) + f"\n\nload {_load()}", flush=True)
    return len(failures)


def _requirements(suite: Suite, torch: str) -> list[str]:
    return [torch if each == "torch" else each for each in suite.requirements]


if __name__ == "__main__":
    sys.exit(main())
