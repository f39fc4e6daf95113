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
import venv
from pathlib import Path
from typing import NamedTuple, Sequence

from .suites import write_empty

_CHECKOUT = Path(__file__).resolve().parent.parent


class Contender(NamedTuple):
    """One way to run a suite.

    :param environment: name of the virtual environment.
    :param slow: by how much its suite is smaller than the others'.
    """

    name: str
    environment: str
    arguments: tuple[str, ...]
    slow: int = 1


ENVIRONMENTS = {
    "fkit": ("-e", str(_CHECKOUT), "pytest", "pytest-xdist"),
    "forked": ("pytest==8.4.*", "pytest-forked"),
    "isolate": ("pytest==8.4.*", "pytest-isolate"),
    # The project that has the name on PyPI, and our import name.
    "public-fkit": ("pytest-fkit==0.2.0", "pytest"),
}

_ALONE = ("-p", "no:fkit")
CONTENDERS = (
    Contender("plain", "fkit", (*_ALONE, "-p", "no:xdist")),
    Contender("xdist -n1", "fkit", (*_ALONE, "-n1")),
    Contender("xdist -n2", "fkit", (*_ALONE, "-n2")),
    Contender("fkit -n0", "fkit", ("--fkit", "-n0")),
    Contender("fkit -n1", "fkit", ("--fkit", "-n1")),
    Contender("fkit -n0, session", "fkit", ("--fkit", "-n0", "--fkit-isolation=session")),
    Contender("fkit -n1, session", "fkit", ("--fkit", "-n1", "--fkit-isolation=session")),
    Contender("fkit -n2, session", "fkit", ("--fkit", "-n2", "--fkit-isolation=session")),
    Contender("plain, pytest 8.4", "forked", ()),
    Contender("forked", "forked", ("--forked",)),
    Contender("isolate", "isolate", ("--isolate",)),
    Contender("public fkit 0.2.0", "public-fkit", ("--fkit",), slow=100),
)


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(prog="benchmarks.per_test", description=__doc__)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="contenders whose names contain one of these"
    )
    parser.add_argument(
        "--environments", type=Path, default=_CHECKOUT / "build" / "benchmark-environments"
    )
    options = parser.parse_args()
    contenders = [each for each in CONTENDERS if any(text in each.name for text in options.only)]
    for name in {each.environment for each in contenders}:
        _install(options.environments / name, ENVIRONMENTS[name])
    print(f"load before: {_load()}", flush=True)
    costs = _measure(contenders, options.environments, options.tests, options.rounds)
    print(f"load after: {_load()}")
    _show(contenders, costs)


def _install(environment: Path, requirements: Sequence[str]) -> None:
    if (environment / "installed").exists():
        return
    venv.create(environment, with_pip=True, clear=True)
    pip = (_python(environment), "-m", "pip", "install", "--quiet")
    subprocess.run([*pip, *requirements], check=True)
    (environment / "installed").touch()


def _python(environment: Path) -> str:
    return str(environment / "bin" / "python")


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
                python = _python(environments / each.environment)
                start_up = _seconds(python, each.arguments, Path(base, "1"), 1)
                seconds = _seconds(python, each.arguments, Path(base, str(size)), size)
                costs[each.name].append((seconds - start_up) * 1000 / (size - 1))
    return costs


def _size(contender: Contender, tests: int) -> int:
    return max(5, tests // contender.slow)


def _seconds(python: str, arguments: Sequence[str], directory: Path, tests: int) -> float:
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
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
