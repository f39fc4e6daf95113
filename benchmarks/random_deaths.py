"""Run suites with random deaths of all kinds; every test has to get its one right verdict."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from .suites import run, summary, write_deadly


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(prog="benchmarks.random_deaths", description=__doc__)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--deaths", type=float, default=5.0, help="per cent of the tests")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one round")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest (default: -n2)")
    options = parser.parse_args()
    good = sum(
        _round(
            seed,
            options.tests,
            int(options.tests * options.deaths / 100),
            options.limit,
            options.pytest,
        )
        for seed in range(options.seed, options.seed + options.rounds)
    )
    print(f"{good} of {options.rounds} rounds all right")
    return 0 if good == options.rounds else 1


def _round(seed: int, tests: int, deaths: int, limit: float, arguments: list[str]) -> bool:
    directory = Path(tempfile.mkdtemp(prefix="random-deaths-"))
    shared = any(argument.startswith("--fkit-isolation") for argument in arguments)
    suite = write_deadly(directory / "suite", tests, deaths, seed, shared)
    result = run(suite.directory, "--fkit", *(arguments or ["-n2"]), limit=limit)
    wrong = suite.wrong(result)
    right = not wrong and not result.left and result.status == 1
    print(
        f"seed {seed}: {len(result.verdicts)} tests with verdicts ({summary(result)}), "
        f"{len(wrong)} wrong, {len(result.left)} processes left, exit status {result.status}, "
        f"{result.seconds:.1f} s",
        flush=True,
    )
    for line in [*wrong, *result.left]:
        print(f"  {line}")
    if right:
        shutil.rmtree(directory)
    else:
        print(f"  kept: {directory}", flush=True)
    return right


if __name__ == "__main__":
    sys.exit(main())
