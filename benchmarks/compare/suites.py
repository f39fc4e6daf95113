"""The generated suites. Each test records when it began, its pid, and that its module was fresh."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Callable, NamedTuple

RECORD = "COMPARE_RECORD"
"""Environment variable: the file to which tests append."""

# A line is: what, seconds of the monotonic clock, pid, whether no test ran in this copy of the
# module before. The file is opened where it is needed: one that is open at collection would be
# another thing that a fork copies.
_RECORDING = f'''\
import os, time

def record(what, module, seconds=None):
    fresh = not module.get("touched")
    module["touched"] = True
    seconds = time.monotonic() if seconds is None else seconds
    line = f"{{what}} {{seconds:.6f}} {{os.getpid()}} {{fresh:d}}\\n"
    file = os.open(os.environ["{RECORD}"], os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)
'''

# The CPU time of pytest itself, which is the controller where there are workers; the last line.
_CONFTEST = """\
import time
from recording import record

def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        record("controller", {}, time.process_time())
"""

# A plugin for `-p`: what the operating system alone asks for a process per test.
_RAW_FORK = """\
import os
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    for item in session.items:
        pid = os.fork()
        if pid == 0:
            item.obj()
            os._exit(0)
        os.waitpid(pid, 0)
    return True
"""

_EMPTY = "def test_{number}(): record('test', globals())\n"
_HEAD = "import os, time\nfrom recording import record\n"


def _whole(head: str, test: str, directory: Path, tests: int) -> None:
    body = "".join(test.format(number=number) for number in range(tests))
    (directory / "test_it.py").write_text(f"{_HEAD}{head}\n{body}")


def _empty(directory: Path, tests: int) -> None:
    _whole("", _EMPTY, directory, tests)


def _numpy(directory: Path, tests: int) -> None:
    _whole("import numpy, scipy.linalg, scipy.sparse", _EMPTY, directory, tests)


def _torch(directory: Path, tests: int) -> None:
    _whole("import torch", _EMPTY, directory, tests)


def _heap(directory: Path, tests: int) -> None:
    _whole('HEAP = [b"x" * (1 << 20) for _ in range(1024)]', _EMPTY, directory, tests)


def _modules(directory: Path, tests: int) -> None:
    head = "import pytest\n@pytest.fixture(scope='module')\ndef shared(): yield 1\n"
    each = max(1, tests // 200)
    for first in range(0, tests, each):
        body = "".join(
            f"def test_{number}(shared): record('test', globals())\n"
            for number in range(first, min(first + each, tests))
        )
        (directory / f"test_{first:05}.py").write_text(f"{_HEAD}{head}{body}")


def _session_fixture(directory: Path, tests: int) -> None:
    head = (
        "import pytest\n@pytest.fixture(scope='session', autouse=True)\n"
        "def slow():\n    time.sleep(1)\n    yield"
    )
    _whole(head, _EMPTY, directory, tests)


def _crashes(directory: Path, tests: int) -> None:
    body = "".join(
        f"def test_{number}():\n    record('crash', globals())\n    os.abort()\n"
        if number % 100 == 50
        else _EMPTY.format(number=number)
        for number in range(tests)
    )
    (directory / "test_it.py").write_text(f"{_HEAD}{body}")


def durations(tests: int) -> list[float]:
    """Of the skewed suite, in seconds: many short ones and few long ones, the same every time."""
    chance = random.Random(5)
    return [round(min(1.0, 0.01 * chance.paretovariate(1.1)), 4) for _ in range(tests)]


def _skewed(directory: Path, tests: int) -> None:
    body = "".join(
        f"def test_{number}():\n    record('test', globals())\n    time.sleep({seconds})\n"
        "    record('end', {})\n"
        for number, seconds in enumerate(durations(tests))
    )
    (directory / "test_it.py").write_text(f"{_HEAD}{body}")


class Suite(NamedTuple):
    """A suite.

    :param write: puts it into a directory, with so many tests.
    :param figures: names of what is measured with it, see measures.py.
    :param share: of the number of tests asked for, how many this one has.
    :param requirements: what has to be installed for it.
    :param anew: whether peers that set wide fixtures up anew for every test would take for ever.
    """

    name: str
    text: str
    write: Callable[[Path, int], None]
    figures: tuple[str, ...] = ("per test", "memory")
    share: float = 1.0
    requirements: tuple[str, ...] = ()
    anew: bool = False


SUITES = (
    Suite("empty", "empty tests", _empty, ("per test", "controller", "start-up", "memory")),
    Suite("numpy", "after `import numpy, scipy`", _numpy, requirements=("numpy", "scipy")),
    Suite("torch", "after `import torch`", _torch, requirements=("torch",)),
    Suite("heap", "with a heap of 1 GiB", _heap, share=0.2),
    Suite("modules", "in 200 modules, each with a fixture", _modules, ("per test",)),
    Suite(
        "session", "under a session fixture of 1 s", _session_fixture, ("per test",), 0.2, (), True
    ),
    Suite("crashes", "of which 1 % crash", _crashes, ("crash",)),
    Suite("skewed", "of skewed durations", _skewed, ("makespan",), 0.2),
)


def write(suite: Suite, directory: Path, tests: int) -> None:
    """Write the suite, with what all need."""
    directory.mkdir(parents=True)
    (directory / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (directory / "recording.py").write_text(_RECORDING)
    (directory / "raw_fork.py").write_text(_RAW_FORK)
    (directory / "conftest.py").write_text(_CONFTEST)
    suite.write(directory, tests)
