"""Generated test suites of which the right verdict of every test is known."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

import psutil

TESTS_PER_FILE = 20
_VERDICTS = "verdicts.jsonl"


class Verdict(NamedTuple):
    """One report that counts for the user.

    :param when: the phase; "" fits any.
    :param category: as pytest_report_teststatus names it.
    :param headline: how the test process ended, "" where that was in order.
    """

    when: str
    category: str
    headline: str = ""


class Kind(NamedTuple):
    """One way for a test to go.

    :param source: of the test function, in which NAME and FILE stand for its names.
    :param verdicts: the right ones in order; of a headline the beginning is enough.
    """

    name: str
    source: str
    verdicts: tuple[Verdict, ...]


PASSED = Verdict("call", "passed")
FAILED = Verdict("call", "failed")


def _kind(name: str, source: str, *verdicts: Verdict) -> Kind:
    lines = source.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    return Kind(name, "\n".join(line[indent:] for line in lines) + "\n", verdicts)


def _dies(name: str, body: str, headline: str, when: str = "call") -> Kind:
    """A test that dies in its own function."""
    return _kind(name, f"def NAME():\n    {body}", Verdict(when, "error", headline))


def _signal(name: str) -> Kind:
    # faulthandler has no stack, and the headline no place, for a signal that it can't handle.
    where = "" if name == "SIGKILL" else " at FILE:"
    return _dies(name, f"os.kill(os.getpid(), signal.{name})", f"{name}{where}")


def _kills_above(name: str, level: int, when: str, headline: str) -> Kind:
    # The test's own end comes after the other one's, and must not come before it.
    body = f"psutil.Process().parents()[{level}].kill(); time.sleep(60)"
    return _dies(name, body, headline, when)


HEALTHY = (
    _kind("passes", "def NAME(): pass", PASSED),
    _kind("passes with a module's fixture", "def NAME(shared): assert shared", PASSED),
    _kind("passes with a directory", "def NAME(tmp_path): (tmp_path / 'x').touch()", PASSED),
    _kind("prints", "def NAME(capsys): print('x'); assert capsys.readouterr().out", PASSED),
    _kind("fails", "def NAME(): assert 0", FAILED),
    _kind("skips", "def NAME(): pytest.skip()", Verdict("call", "skipped")),
)

DEADLY = (
    *map(_signal, ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTERM", "SIGKILL")),
    _dies("null pointer", "ctypes.string_at(0)", "SIGSEGV at FILE:"),
    _dies("abort", "os.abort()", "SIGABRT at FILE:"),
    _dies("exit 0", "os._exit(0)", "exit status 0"),
    _dies("exit 3", "os._exit(3)", "exit status 3"),
    _dies("execv", "os.execv(sys.executable, [sys.executable, '-c', ''])", "exit status 0"),
    _dies("process group", "os.killpg(0, signal.SIGKILL)", "SIGKILL"),
    # The host, or the keeper where tests share a process.
    _kills_above("host", 0, "call", "lost: its "),
    # With the keeper goes what the test had reported to it: the phase is not known.
    _kills_above("keeper", 1, "", "lost: its keeper process was ended by SIGKILL"),
    _kills_above("worker", 2, "???", "lost: worker gw"),
    _dies("all descriptors", "os.closerange(0, 65536)", "lost: it closed the descriptor"),
    _kind("sys.exit", "def NAME(): sys.exit(3)", FAILED),
    # pytest's own capture files are among them.
    _kind(
        "many descriptors",
        "def NAME(): os.closerange(3, 256)",
        FAILED,
        Verdict("teardown", "error"),
    ),
    _kind(
        "second thread",
        """
        def NAME():
            thread = threading.Thread(target=ctypes.string_at, args=(0,))
            thread.start()
            thread.join()
        """,
        Verdict("call", "error", "SIGSEGV at FILE:"),
    ),
    _kind(
        "repr of an exception",
        """
        class _NAME(Exception):
            def __repr__(self): os.abort()
            __str__ = __repr__

        def NAME(): raise _NAME
        """,
        Verdict("call", "error", "SIGABRT at FILE:"),
    ),
    _kind(
        "much output",
        """
        def NAME():
            print("x" * 1_000_000)
            os.abort()
        """,
        Verdict("call", "error", "SIGABRT at FILE:"),
    ),
    _kind(
        "setup",
        """
        @pytest.fixture
        def fixture_NAME(): os.abort()

        def NAME(fixture_NAME): pass
        """,
        Verdict("setup", "error", "SIGABRT at FILE:"),
    ),
    _kind(
        "teardown",
        """
        @pytest.fixture
        def fixture_NAME():
            yield
            os.abort()

        def NAME(fixture_NAME): pass
        """,
        PASSED,
        Verdict("teardown", "error", "SIGABRT at FILE:"),
    ),
    _kind(
        "setup of a class",
        """
        class TestNAME:
            @pytest.fixture(scope="class")
            def fixture(self): os.abort()

            def NAME(self, fixture): pass
        """,
        Verdict("setup", "error", "SIGABRT while setting up class-scoped fixture 'fixture' at"),
    ),
    _kind(
        "teardown of a class",
        """
        class TestNAME:
            @pytest.fixture(scope="class")
            def fixture(self):
                yield
                os.abort()

            def NAME(self, fixture): pass
        """,
        PASSED,
        # "while tearing down wide fixtures", unless it is the test's process that does.
        Verdict("teardown", "error", "SIGABRT "),
    ),
    # Every worker tries this fixture once; whose error is the first is left to chance.
    _kind("setup of the session", "def NAME(doomed): pass", Verdict("setup", "error")),
    _kind(
        "exit handler",
        "def NAME(): atexit.register(os.abort)",
        PASSED,
        Verdict("teardown", "error", "SIGABRT in an exit handler"),
    ),
    _kind(
        "expected",
        """
        @pytest.mark.xfail
        def NAME(): os.abort()
        """,
        Verdict("call", "xfailed"),
    ),
    _kind(
        "skipped",
        """
        @pytest.mark.skip
        def NAME(doomed): pass
        """,
        Verdict("setup", "skipped"),
    ),
    _kind(
        "hangs",
        """
        @pytest.mark.fkit(timeout=0.5)
        def NAME(): time.sleep(60)
        """,
        Verdict("call", "error", "timed out after 0.5 s at FILE:"),
    ),
    _kind(
        "holds the GIL",
        """
        @pytest.mark.fkit(timeout=0.5)
        def NAME(): re.match("(a|a)*b", "a" * 60)
        """,
        Verdict("call", "error", "timed out after 0.5 s at FILE:"),
    ),
    _kind(
        "stops itself",
        """
        @pytest.mark.fkit(timeout=0.5)
        def NAME():
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)
        """,
        Verdict("call", "error", "timed out after 0.5 s at FILE:"),
    ),
    _kind(
        "ignores SIGTERM",
        """
        @pytest.mark.fkit(timeout=0.5)
        def NAME():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        """,
        Verdict("call", "error", "timed out after 0.5 s at FILE:"),
    ),
    _kind(
        "memory",
        """
        @pytest.mark.fkit(memory_limit="32M")
        def NAME():
            block = b"x" * (64 << 20)
            time.sleep(60)
            del block
        """,
        Verdict("call", "error", "memory limit 32 MiB exceeded"),
    ),
    _kind(
        "leaves a thread",
        "def NAME(): threading.Thread(target=time.sleep, args=(60,)).start()",
        PASSED,
    ),
    _kind("leaves a process", "def NAME(): subprocess.Popen(['sleep', '60'])", PASSED),
    _kind(
        "leaves a daemon",
        """
        def NAME():
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(60)
                os._exit(0)
            os.wait()
        """,
        PASSED,
    ),
    _kind("leaves a copy", "def NAME(): os.fork()", PASSED),
)

OWN_PROCESS = ("keeper", "worker", "exit handler")
"""Kinds for a process of the test's own: by the number of those above, or by its end."""

_HEAD = """\
import atexit, ctypes, os, re, signal, subprocess, sys, threading, time
import psutil, pytest

@pytest.fixture(scope="module")
def shared():
    yield True

"""

_CONFTEST = f"""\
import json, os, pytest

@pytest.fixture(scope="session")
def doomed():
    os.abort()

class Recorder:
    def __init__(self, config):
        self.config = config

    def pytest_runtest_logreport(self, report):
        status = self.config.hook.pytest_report_teststatus(report=report, config=self.config)
        if status[0]:
            death = getattr(getattr(report, "fkit", None), "death", "")
            verdict = [report.nodeid, report.when, status[0], death]
            with open({_VERDICTS!r}, "a") as file:
                file.write(json.dumps(verdict) + "\\n")

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config))
"""


@dataclass(frozen=True)
class Suite:
    """A suite in a directory: the right verdicts by node id."""

    directory: Path
    kinds: Mapping[str, Kind]

    def wrong(self, result: Result) -> list[str]:
        """What is not right with the verdicts, one line for each test."""
        lines = []
        for nodeid, kind in self.kinds.items():
            given = result.verdicts.get(nodeid, [])
            file = nodeid.partition("::")[0]
            expected = [
                verdict._replace(headline=verdict.headline.replace("FILE", file))
                for verdict in kind.verdicts
            ]
            if len(given) != len(expected) or not all(map(_fits, given, expected)):
                lines.append(f"{nodeid} ({kind.name}): expected {expected}, got {given}")
        strangers = [nodeid for nodeid in result.verdicts if nodeid not in self.kinds]
        return lines + [f"{nodeid}: not a test of the suite" for nodeid in strangers]


def _fits(given: Verdict, expected: Verdict) -> bool:
    return (
        expected.when in ("", given.when)
        and given.category == expected.category
        and given.headline.startswith(expected.headline)
    )


@dataclass(frozen=True)
class Result:
    """What a run gave.

    :param left: the processes that were alive after it, as text.
    """

    verdicts: Mapping[str, Sequence[Verdict]]
    left: Sequence[str]
    status: int
    output: str
    seconds: float


def write_empty(directory: Path, tests: int) -> None:
    """A suite of tests that do nothing, in one file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pytest.ini").write_text("[pytest]\n")
    body = "".join(f"def test_{number}(): pass\n" for number in range(tests))
    (directory / "test_empty.py").write_text(body)


def write_deadly(
    directory: Path, tests: int, deaths: int, seed: int, shared: bool = False
) -> Suite:
    """A suite of healthy tests, with `deaths` deadly ones at random places, kinds in turn.

    :param shared: whether tests will share processes.
    """
    generator = random.Random(seed)
    deadly_kinds = [kind for kind in DEADLY if not shared or kind.name not in OWN_PROCESS]
    chosen = generator.sample(range(tests), deaths)
    # In turn from a random one on, so that a suite with few deaths is not always of the same.
    first = generator.randrange(len(deadly_kinds))
    deadly = {
        place: deadly_kinds[(first + number) % len(deadly_kinds)]
        for number, place in enumerate(chosen)
    }
    kinds: dict[str, Kind] = {}
    sources: dict[str, list[str]] = {}
    for number in range(tests):
        kind = deadly.get(number) or generator.choice(HEALTHY)
        file, name = f"test_{number // TESTS_PER_FILE:03}.py", f"test_{number:05}"
        source = kind.source.replace("NAME", name)
        sources.setdefault(file, [_HEAD]).append(source)
        owner = f"Test{name}::" if source.startswith("class Test") else ""
        kinds[f"{file}::{owner}{name}"] = kind
    directory.mkdir(parents=True)
    (directory / "pytest.ini").write_text(
        "[pytest]\naddopts = -p no:cacheprovider --strict-markers\n"
    )
    (directory / "conftest.py").write_text(_CONFTEST)
    for file, parts in sources.items():
        (directory / file).write_text("\n".join(parts))
    return Suite(directory, kinds)


def run(directory: Path, *arguments: str, limit: float = 600) -> Result:
    """Run a suite in a pytest process; a run that exceeds `limit` seconds is ended."""
    recorded = directory / _VERDICTS
    if recorded.exists():
        recorded.unlink()
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "pytest", *arguments]
    began = time.monotonic()
    try:
        # Not captured through a pipe, which a process left behind would hold open.
        with (directory / "output.txt").open("w", encoding="utf-8") as output:
            status = subprocess.run(
                command,
                cwd=directory,
                env=_environment(SUITE_RUN=mark),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            ).returncode
    except subprocess.TimeoutExpired:
        status = -1
    seconds = time.monotonic() - began
    verdicts: dict[str, list[Verdict]] = {}
    for line in recorded.read_text().splitlines() if recorded.exists() else ():
        nodeid, *rest = json.loads(line)
        verdicts.setdefault(nodeid, []).append(Verdict(*rest))
    text = (directory / "output.txt").read_text(encoding="utf-8", errors="replace")
    return Result(verdicts, _end_left(mark), status, text, seconds)


def _environment(**more: str) -> dict[str, str]:
    """That of this process without what is for a pytest run around it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, **more}


def _end_left(mark: str) -> list[str]:
    """End what a run left behind; processes are known by a variable of their environment."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SUITE_RUN") == mark:
                left.append(f"{process.pid} {process.status()} {process.cmdline()}")
                process.kill()
        except psutil.Error:  # gone, or not ours
            continue
    return left


def summary(result: Result) -> str:
    """How many verdicts of which category."""
    counts = Counter(given[-1].category for given in result.verdicts.values())
    return ", ".join(f"{number} {category}" for category, number in sorted(counts.items()))
