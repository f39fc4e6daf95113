"""Does a public test suite notice that it runs under fkit?

Runs suites plain, twice, with xdist alone and under fkit, and compares the outcome of each test and
the exit status. A test whose two plain outcomes differ is unstable by itself and left out. Where
xdist alone differs from plain pytest, either is right under fkit. Where tests run pytest, as those
of its plugins do, these runs get the same options, but have no workers.

    python -m benchmarks.parity click attrs --modes n2
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
from dataclasses import dataclass
from pathlib import Path

from .outcomes import Plain, Result, compare, differences

PROJECT = Path(__file__).resolve().parent.parent
RECORDER = "fkit_parity_recorder"

XDIST = "-n2"
MODES = {
    "n2": "--fkit -n2",
    "n0": "--fkit -n0",
    "n2-session": "--fkit -n2 --fkit-isolation=session",
    "n0-session": "--fkit -n0 --fkit-isolation=session",
}

SDIST = "sdist"
INSTALLED = "installed"


@dataclass(frozen=True)
class Suite:
    """The tests of a package.

    :param requirements: what to install, the package itself first.
    :param arguments: pytest's.
    :param source: where the tests are: in the source distribution of the installed version, in the
        installed package, or in a Git repository, with its address and a tag: ``URL@TAG``.
    :param part: of a source distribution, the one folder to take: without the package's own.
    :param runs_pytest: whether its tests run pytest.
    """

    requirements: str
    arguments: str = ""
    source: str = SDIST
    part: str = ""
    runs_pytest: bool = False


# Left out of what their own CI installs: pytest-randomly, which has no two runs alike, and what
# measures coverage.
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
        source=INSTALLED,
    ),
    "scipy": Suite(
        "scipy hypothesis threadpoolctl", "--pyargs scipy.linalg scipy.spatial", source=INSTALLED
    ),
    # Patches os and forks.
    "filelock": Suite(
        "filelock==4.1.2 coverage covdefaults pytest-asyncio pytest-mock pytest-timeout virtualenv"
    ),
    # Looks at its frames and at warnings.
    "structlog": Suite("structlog==26.1.0 pytest-asyncio simplejson time-machine rich twisted"),
    # Finds blocking calls by blockbuster; every warning is an error. Where localhost has no IPv6
    # address, these tests leave sockets behind, which are found in the tests after them.
    "anyio": Suite(
        "anyio[trio]==4.16.0 blockbuster coverage hypothesis psutil pytest-mock pytest-timeout "
        "trustme truststore uvloop",
        "-k 'not ipv6'",
    ),
    # Replace os, io and pathlib, and the clocks.
    "pyfakefs": Suite(
        "pyfakefs==6.3.2 pandas==2.3.3 xlrd==2.0.2 openpyxl==3.1.5",
        "--pyargs pyfakefs.tests pyfakefs.pytest_tests",
        source=INSTALLED,
    ),
    "freezegun": Suite("freezegun==1.5.5", "tests"),
    # Its source distribution has no tests. What hypothesis finds, and how long it takes, is chance.
    "time-machine": Suite(
        "time-machine[cli]==3.4.0 coverage freezegun hypothesis python-dateutil",
        "--ignore=tests/test_fuzz.py --ignore=tests/test_cli_fuzz.py",
        source="https://github.com/adamchainz/time-machine@3.4.0",
    ),
    # Looks at its processes, their descriptors, and all others of the machine. Not those tests that
    # measure the memory of their process.
    "psutil": Suite(
        "psutil==7.2.2 setuptools", "tests --ignore=tests/test_memleaks.py", part="tests"
    ),
    # Mock what a daemon asks of the kernel: forks, signals, wait(2), the clock.
    "supervisor": Suite("supervisor==4.3.0", "supervisor/tests"),
    "mock": Suite("mock==5.2.0", "mock/tests"),
    # Documents, whose examples xdist alone does not keep together. The one test left out needs what
    # an earlier one leaves in a class.
    "testfixtures": Suite("testfixtures==12.4.0 sybil==10.1.0", "-k 'not test_atexit'"),
    # Not those whose inner tests leave something to each other or to the test around them, in a
    # global or by an import, and in pytest-socket's in a list that is filled by a patched function.
    "pytest-check": Suite(
        "pytest-check==3.0.3 pytest-reportlog",
        "-o pytester_example_dir=. --deselect=tests/test_logging.py::test_log "
        "--deselect=tests/test_not_in_test.py::test_check_not_in_a_test",
        runs_pytest=True,
    ),
    # The one that is left out calls depends() in another module than that of the tests it names.
    "pytest-dependency": Suite(
        "pytest-dependency==0.6.1",
        "tests --deselect=test_03_scope.py::test_scope_dependsfunc",
        runs_pytest=True,
    ),
    "pytest-randomly": Suite(
        "pytest-randomly==4.1.0 factory-boy faker model-bakery numpy",
        "-p no:randomly",
        source="https://github.com/pytest-dev/pytest-randomly@4.1.0",
        runs_pytest=True,
    ),
    "pytest-socket": Suite(
        "pytest-socket==0.8.1 httpx starlette",
        "tests --ignore=tests/test_benchmarks.py "
        "--deselect=tests/test_restrict_hosts.py::test_name_resolution_cached",
        runs_pytest=True,
    ),
    # Those that look at the report need a browser, driven by a server on port 4444.
    "pytest-html": Suite(
        "pytest-html==4.2.0 assertpy beautifulsoup4 pytest-mock pytest-rerunfailures selenium",
        "testing",
        runs_pytest=True,
    ),
    "pytest-retry": Suite("pytest-retry==1.7.0", "tests", runs_pytest=True),
    "flaky": Suite("flaky==3.8.1", "test", runs_pytest=True),
    "nbval": Suite(
        "nbval==0.11.0 matplotlib nbdime pytest-cov pytest-mock sympy", "tests", runs_pytest=True
    ),
}


# A pytest plugin, copied into the environment. Only the process that owns the terminal records.
_RECORDER_SOURCE = """
import functools, json, os, shlex
import pytest

_path = os.environ.get("FKIT_PARITY_RECORD")
# pytester, which takes PYTEST_ADDOPTS out of the environment, gets them here.
_inner = shlex.split(os.environ.get("FKIT_PARITY_INNER", ""))

def _with_options(method):
    @functools.wraps(method)
    def run(self, *args, **kwargs):
        return method(self, *_inner, *args, **kwargs)
    return run

for _name in ("inline_run", "runpytest_subprocess") if _inner else ():
    setattr(pytest.Pytester, _name, _with_options(getattr(pytest.Pytester, _name)))

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


def run(python: Path, directory: Path, suite: Suite, options: str, limit: float) -> Result:
    """Run pytest once.

    :param options: pytest's beside those of the suite, for runs by its tests as well.
    :param limit: seconds after which the run is ended.
    """
    arguments = shlex.split(suite.arguments)
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    if suite.runs_pytest:
        inner = options.replace(XDIST, "-n0")
        environment["PYTEST_ADDOPTS"] = environment["FKIT_PARITY_INNER"] = inner
    arguments += shlex.split(options)
    with tempfile.TemporaryDirectory(prefix="fkit-parity-") as temporary:
        record = Path(temporary, "record")
        record.touch()
        command = [str(python), "-m", "pytest", "-q", "-p", RECORDER, "-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                [*command, *arguments],
                cwd=directory,
                env={**environment, "FKIT_PARITY_RECORD": str(record)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
            status, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as error:
            status, output = -1, (error.stdout or b"") + b"\ntimed out"
        name = "-".join(["parity", *arguments]).replace("/", "_")[-80:]
        Path(directory, f"{name}.log").write_bytes(output)
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
    if not (home / "ready").exists():
        home.mkdir(parents=True, exist_ok=True)
        venv.create(home / "venv", with_pip=True, clear=True)
        _pip(python, "install", "pytest-xdist", *suite.requirements.split())
        directory.mkdir(exist_ok=True)
        _get_tests(suite, python, home, directory)
        (home / "ready").touch()
    site = next((home / "venv" / "lib").glob("python*/site-packages"))
    (site / f"{RECORDER}.py").write_text(_RECORDER_SOURCE)
    return python, directory if suite.source == INSTALLED else next(directory.iterdir())


def _get_tests(suite: Suite, python: Path, home: Path, directory: Path) -> None:
    """Put the tests into a folder in `directory`, unless they are installed already."""
    if suite.source == INSTALLED:
        return
    if suite.source != SDIST:
        address, _, tag = suite.source.rpartition("@")
        clone = ["git", "clone", "--quiet", "--depth=1", f"--branch={tag}", address, "tests"]
        subprocess.run(clone, cwd=directory, check=True)
        return
    package = suite.requirements.split()[0].partition("=")[0].partition("[")[0]
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    version = subprocess.check_output([python, "-c", code], text=True).strip()
    _pip(
        python, "download", "--no-deps", "--no-binary", package, "--dest", str(home),
        f"{package}=={version}",
    )  # fmt: skip
    with tarfile.open(next(home.glob("*.tar.gz"))) as archive:
        for member in archive:
            if not suite.part or member.name.split("/")[1:2] == [suite.part]:
                archive.extract(member, directory)


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--quiet", *arguments], check=True)


def examine(name: str, suite: Suite, modes: list[str], root: Path, limit: float) -> int:
    """Run one suite in all modes and print what differs; how many things do."""
    python, where = prepare(name, suite, root)
    _pip(python, "install", "--upgrade", str(PROJECT))
    plain = Plain(run(python, where, suite, "", limit), run(python, where, suite, "", limit))
    unstable = plain.unstable()
    left_out = f"; left out as unstable: {len(unstable)}" if unstable else ""
    _row(name, "plain", plain.once, f"{plain.once.counts()}{left_out}")
    for nodeid in unstable:
        print(f"  {nodeid}")
    if plain.once.status not in (0, 1):
        print(f"  {name} does not run here: pytest ended with status {plain.once.status}")
        return 1
    xdist = run(python, where, suite, XDIST, limit)
    of_xdist = differences(plain, xdist)
    text = f"{len(of_xdist)} differ from plain" if of_xdist else "equal"
    _row(name, "xdist", xdist, f"{text}: {xdist.counts()}")
    for difference in of_xdist:
        print(f"  {difference}")
    total = 0
    for mode in modes:
        other = run(python, where, suite, MODES[mode], limit)
        found = compare(plain, xdist, other)
        total += len(found.own)
        _row(name, mode, other, f"{found}: {other.counts()}")
        for difference in found.own:
            print(f"  {difference}")
    return total


def _row(suite: str, mode: str, result: Result, text: str) -> None:
    print(f"{suite:12} {mode:10} {result.status:>6}  {text}", flush=True)


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
        print(f"{'suite':12} {'mode':10} {'status':>6}")
        differing = sum(
            examine(name, SUITES[name], options.modes, root, options.limit)
            for name in options.suites or SUITES
        )
    print(f"{differing} differences" if differing else "no differences")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
