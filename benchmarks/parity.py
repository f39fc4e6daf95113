"""Does a public test suite notice that it runs under fkit?

Runs suites from PyPI plain, twice, and under fkit, and compares the outcome of each test and the
exit status. A test whose two plain outcomes differ is unstable by itself and left out.

    python benchmarks/parity.py click attrs --modes n2
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
RECORDER = "fkit_parity_recorder"

MODES = {
    "n2": "--fkit -n2",
    "n2-session": "--fkit -n2 --fkit-isolation=session",
    "n0": "--fkit -n0",
}


@dataclass(frozen=True)
class Suite:
    """A package that ships its tests."""

    requirements: str  # the package itself first
    arguments: str = ""
    sdist: bool = True  # whether the tests are in the source distribution only


SUITES = {
    "click": Suite("click"),
    "attrs": Suite("attrs hypothesis cloudpickle", "tests"),
    "pluggy": Suite("pluggy", "testing"),
    "flask": Suite("flask python-dotenv asgiref pytest<9", "tests"),
    "dateutil": Suite("python-dateutil attrs hypothesis freezegun pytest-cov"),
    "alembic": Suite("alembic tzdata", "tests"),
    "networkx": Suite(
        "networkx numpy scipy",
        "--pyargs networkx.classes networkx.generators networkx.utils",
        sdist=False,
    ),
    "scipy": Suite(
        "scipy hypothesis threadpoolctl", "--pyargs scipy.linalg scipy.spatial", sdist=False
    ),
}


@dataclass
class Result:
    """What one run of a suite gave: by node id the outcome of each phase, and first error lines."""

    status: int
    outcomes: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def counts(self) -> str:
        """A line for the table."""
        counts: Counter[str] = Counter(
            max(
                (phase.partition(":")[2] for phase in phases),
                key=["passed", "skipped", "xpassed", "xfailed", "failed"].index,
            )
            for phases in self.outcomes.values()
        )
        return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


# A pytest plugin, copied into the environment. Only the process that owns the terminal records.
_RECORDER_SOURCE = """
import json, os
import pytest

_path = os.environ.get("FKIT_PARITY_RECORD")

def _first_error_line(report):
    lines = [line for line in str(report.longrepr).splitlines() if line[:2] == "E "]
    return lines[0][1:].strip() if lines else str(report.longrepr).strip().split("\\n")[-1]

def _write(nodeid, phase, report):
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xfailed" if report.skipped else "xpassed"
    error = _first_error_line(report) if report.failed else ""
    with open(_path, "a") as file:
        file.write(json.dumps([nodeid, f"{phase}:{outcome}", error]) + "\\n")

class Recorder:
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        _write(report.nodeid, report.when, report)

    def pytest_collectreport(self, report):
        if not report.passed:
            _write(report.nodeid, "collect", report)

def pytest_configure(config):
    if _path and not hasattr(config, "workerinput"):
        del os.environ["FKIT_PARITY_RECORD"]  # tests that run pytest are not recorded
        config.pluginmanager.register(Recorder())
"""


def run(python: Path, directory: Path, arguments: list[str], limit: float) -> Result:
    """Run pytest once."""
    with tempfile.TemporaryDirectory(prefix="fkit-parity-") as temporary:
        record = Path(temporary, "record")
        record.touch()
        command = [str(python), "-m", "pytest", "-q", "-p", RECORDER, "-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                [*command, *arguments],
                cwd=directory,
                env={**os.environ, "FKIT_PARITY_RECORD": str(record)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
            status, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as error:
            status, output = -1, (error.stdout or b"") + b"\ntimed out"
        Path(
            directory, f"parity{'-'.join(['', *arguments]).replace('/', '_')[:80]}.log"
        ).write_bytes(output)
        result = Result(status)
        for line in record.read_text().splitlines():
            nodeid, phase, error_line = json.loads(line)
            result.outcomes.setdefault(nodeid, []).append(phase)
            if error_line:
                result.errors.setdefault(nodeid, error_line)
        return result


def prepare(name: str, suite: Suite, root: Path) -> tuple[Path, Path]:
    """Install a suite; the environment's Python and the directory to run in."""
    home = root / name
    python = home / "venv" / "bin" / "python"
    directory = home / "suite"
    if (home / "ready").exists():
        return python, directory
    home.mkdir(parents=True, exist_ok=True)
    venv.create(home / "venv", with_pip=True, clear=True)
    _pip(python, "install", "pytest-xdist", *suite.requirements.split())
    directory.mkdir(exist_ok=True)
    if suite.sdist:
        package = suite.requirements.split()[0]
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        version = subprocess.check_output([python, "-c", code], text=True).strip()
        _pip(
            python, "download", "--no-deps", "--no-binary", package, "--dest", str(home),
            f"{package}=={version}",
        )  # fmt: skip
        with tarfile.open(next(home.glob("*.tar.gz"))) as archive:
            archive.extractall(directory)
    site = next((home / "venv" / "lib").glob("python*/site-packages"))
    (site / f"{RECORDER}.py").write_text(_RECORDER_SOURCE)
    (home / "ready").touch()
    return python, directory


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--quiet", *arguments], check=True)


def differences(plain: Result, again: Result, other: Result) -> list[str]:
    """What `other` has that neither of two plain runs has; unstable tests are left out."""
    found = []
    if other.status != plain.status == again.status:
        found.append(f"exit status {plain.status}, under fkit {other.status}")
    for nodeid in sorted({*plain.outcomes, *other.outcomes}):
        before = plain.outcomes.get(nodeid)
        if before != again.outcomes.get(nodeid):
            continue
        after = other.outcomes.get(nodeid)
        if before != after:
            error = other.errors.get(nodeid) or plain.errors.get(nodeid, "")
            found.append(f"{nodeid}\n    {_show(before)} -> {_show(after)}   {error}")
    return found


def _show(phases: list[str] | None) -> str:
    return "missing" if phases is None else " ".join(phases)


def compare(name: str, suite: Suite, modes: list[str], root: Path, limit: float) -> int:
    """Run one suite in all modes and print what differs; how many things do."""
    python, directory = prepare(name, suite, root)
    _pip(python, "install", "--upgrade", str(PROJECT))
    where = next(directory.iterdir()) if suite.sdist else directory
    arguments = shlex.split(suite.arguments)
    plain = run(python, where, arguments, limit)
    again = run(python, where, arguments, limit)
    unstable = [key for key in plain.outcomes if plain.outcomes[key] != again.outcomes.get(key)]
    print(f"{name:10} {'plain':10} {plain.status:>6}  {plain.counts()}", flush=True)
    for nodeid in unstable:
        print(f"  unstable by itself: {nodeid}")
    if plain.status not in (0, 1):
        print(f"  {name} does not run here: pytest ended with status {plain.status}")
        return 1
    total = 0
    for mode in modes:
        other = run(python, where, [*arguments, *MODES[mode].split()], limit)
        found = differences(plain, again, other)
        total += len(found)
        text = f"{len(found)} differ" if found else "equal"
        print(f"{name:10} {mode:10} {other.status:>6}  {text}: {other.counts()}", flush=True)
        for line in found:
            print(f"  {line}")
    return total


def main() -> int:
    """The exit status: 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; default: all")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument(
        "--directory", type=Path, help="keep environments and logs here (default: temporary)"
    )
    parser.add_argument("--limit", type=float, default=3600, help="seconds for one run")
    options = parser.parse_args()
    for name in options.suites:
        if name not in SUITES:
            parser.error(f"no suite {name!r}, only {', '.join(SUITES)}")
    with tempfile.TemporaryDirectory(prefix="fkit-parity-") as temporary:
        root = (options.directory or Path(temporary)).resolve()
        print(f"{'suite':10} {'mode':10} {'status':>6}")
        differing = sum(
            compare(name, SUITES[name], options.modes, root, options.limit)
            for name in options.suites or SUITES
        )
    print(f"{differing} differences" if differing else "no differences")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
