"""Kill the controller at random moments, go on with its journal: every test has one verdict."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

_SUITE = """\
import os, pytest, random, time

@pytest.mark.parametrize("number", range({tests}))
def test_it(number):
    with open(os.environ["RAN"], "a") as log:
        log.write(f"test_suite.py::test_it[{{number}}]\\n")
    time.sleep(random.Random(number).random() * 0.01)
    if number % 11 == 3:
        os.abort()
    assert number % 7
"""


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(prog="benchmarks.resume", description=__doc__)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2, help="at most, in one round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("pytest", nargs="*", help="arguments for pytest (default: -n2)")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    good = 0
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory(prefix="resume-") as directory:
            kills = chance.randint(1, options.kills)
            wrong, told = _round(
                Path(directory), options.tests, kills, options.pytest or ["-n2"], chance
            )
        print(f"round {number}: {told}; {', '.join(wrong) or 'all right'}", flush=True)
        good += not wrong
    print(f"{good} of {options.rounds} rounds all right")
    return 0 if good == options.rounds else 1


def _round(
    directory: Path, tests: int, kills: int, arguments: list[str], chance: random.Random
) -> tuple[list[str], str]:
    """What went wrong, and what was done."""
    (directory / "test_suite.py").write_text(_SUITE.format(tests=tests))
    journal = directory / "run.jsonl"
    moments = []
    wrong: list[str] = []
    known: set[str] = set()
    for number in range(kills + 1):
        option = "--fkit-resume" if journal.exists() else "--fkit-journal"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--fkit"]
        (directory / f"ran-{number}").touch()
        process = subprocess.Popen(
            [*command, *arguments, f"{option}=run.jsonl"], cwd=directory,
            env={**os.environ, "RAN": str(directory / f"ran-{number}")},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if number < kills:
            # In the first part of its tests, at a moment that has nothing to do with them.
            _await_verdicts(process, journal, len(known) + chance.randint(0, tests // (kills + 1)))
            time.sleep(chance.random() * 0.02)
            process.kill()
        status = process.wait(timeout=300)
        ran = set((directory / f"ran-{number}").read_text().split())
        if ran & known:
            wrong.append(f"{len(ran & known)} tests with a verdict ran again")
        found = _verdicts(journal)
        known = set(found)
        moments.append(len(found))
    twice = [nodeid for nodeid, times in Counter(found).items() if times > 1]
    if twice:
        wrong.append(f"{len(twice)} tests with two verdicts")
    if len(known) != tests:
        wrong.append(f"{tests - len(known)} tests without a verdict")
    if status != 1:
        wrong.append(f"exit status {status}")
    return wrong, f"killed after {', '.join(map(str, moments[:-1]))} of {moments[-1]} verdicts"


def _await_verdicts(process: subprocess.Popen[bytes], journal: Path, number: int) -> None:
    while process.poll() is None and (not journal.exists() or len(_verdicts(journal)) < number):
        time.sleep(0.005)


def _verdicts(journal: Path) -> list[str]:
    lines = journal.read_bytes().splitlines(keepends=True)
    found = (json.loads(line) for line in lines if line.endswith(b"\n") and b'"verdict"' in line)
    return [str(each["test"]) for each in found if each["event"] == "verdict"]


if __name__ == "__main__":
    sys.exit(main())
