"""Suites that patch one public name of the standard library in each test, run plain and by us.

Plain pytest runs every test, or every class whose fixture patches, in a fork of its own: a patch
that is never undone breaks it for the tests that follow.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Counter as CounterOf
from typing import Dict, Iterator, NamedTuple, Sequence

from inner import InnerRun, run_pytest, write_files

MODULES = (
    "os", "time", "_socket", "select", "signal", "marshal", "zlib", "threading", "builtins", "io",
    "socket",
)  # fmt: skip
HOWS = ("raises", "none", "mock")

# Kept by all modules of the suite before anything is patched.
_KEEP = """
import builtins
__builtins__ = dict(vars(builtins))
"""

_PATCHES = f"""{_KEEP}
import importlib, os, sys
from unittest.mock import DEFAULT, MagicMock

class Broken(Exception):
    pass

def raises(*args, **kwargs):
    raise Broken("patched")

def returns_none(*args, **kwargs):
    return None

calls = []
open_, write, close, frame_at = os.open, os.write, os.close, sys._getframe
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT
PATH = os.environ["CALLS"]

def note(*args, **kwargs):
    found, frame = [], frame_at(1)
    while frame is not None and len(found) < 4:
        code = frame.f_code
        if not code.co_filename.endswith("unittest/mock.py"):
            found.append(code.co_filename.rpartition("/")[2] + ":" + code.co_name)
        frame = frame.f_back
    calls.append(" < ".join(found))
    return DEFAULT

def tell(nodeid):
    if calls:
        line = repr((nodeid, calls)) + "\\n"
        descriptor = open_(PATH, FLAGS, 0o644)
        write(descriptor, line.encode("ascii", "replace"))
        close(descriptor)
        calls.clear()

class Patch:
    def __init__(self, module, name, how):
        self.module, self.name = importlib.import_module(module), name
        self.before = getattr(self.module, name)
        ways = {{"raises": raises, "none": returns_none}}
        self.after = ways.get(how) or MagicMock(side_effect=note)

    def apply(self, set_attribute=setattr):
        set_attribute(self.module, self.name, self.after)

    def undo(self, set_attribute=setattr):
        set_attribute(self.module, self.name, self.before)
"""

_PLAIN_FORKS = f"""{_KEEP}
import os, pytest, signal
fork, read, write, leave, pipe = os.fork, os.read, os.write, os._exit, os.pipe
close, wait, alarm = os.close, os.waitpid, signal.alarm

class Forks:
    out = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        groups = {{}}
        for item in session.items:
            groups.setdefault(item.cls or item, []).append(item)
        found = {{}}
        for items in groups.values():
            self.run(items, found)
        with open("plain.txt", "w") as file:
            file.write(repr(found))
        return True

    def run(self, items, found):
        reader, writer = pipe()
        pid = fork()
        if pid == 0:
            alarm(30)
            self.out = writer
            try:
                for item, following in zip(items, items[1:] + [None]):
                    self.tell("begin", item.nodeid)
                    hook = item.config.hook.pytest_runtest_protocol
                    hook(item=item, nextitem=following)
                    self.tell("end", "")
            finally:
                leave(1)
        close(writer)
        data = b""
        while True:
            chunk = read(reader, 65536)
            if not chunk:
                break
            data += chunk
        close(reader)
        wait(pid, 0)
        found.update((item.nodeid, ([], [])) for item in items)
        for line in data.decode().splitlines():
            kind, text = eval(line)
            if kind == "begin":
                phases, ends = found[text]
            elif kind == "end":
                ends.append(kind)
            else:
                phases.append(text)

    def tell(self, *what):
        write(self.out, (repr(what) + "\\n").encode())

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        if self.out is not None:
            self.tell("report", report.when + " " + report.outcome)

def pytest_configure(config):
    config.pluginmanager.register(Forks())
"""

_RECORDER = """
import json, pytest

class Recorder:
    def __init__(self):
        self.file = open("ours.jsonl", "w")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        said = report.nodeid, report.when + " " + report.outcome, report.longreprtext[:2000]
        self.file.write(json.dumps(said) + "\\n")
        self.file.flush()

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())
"""

_IN_TESTS = """
import json, pytest, patches

CASES = [tuple(each) for each in json.load(open("cases.json"))]

@pytest.fixture
def told(request):
    yield
    patches.tell(request.node.nodeid)

@pytest.mark.parametrize("module,name,how,restored,passes", CASES, ids=str)
def test_it(told, monkeypatch, module, name, how, restored, passes):
    patch = patches.Patch(module, name, how)
    if restored:
        patch.apply(monkeypatch.setattr)
    else:
        patch.apply()
    if not passes:
        assert 1 == 2
"""

# What is not restored stays in its process, so that each class needs one of its own.
_IN_FIXTURES = """
import json, pytest, patches

def make(module, name, how, restored, _):
    class Tests:
        @pytest.fixture(scope="class", autouse=True)
        def wide(self, request):
            patch = patches.Patch(module, name, how)
            patch.apply()
            yield
            if restored:
                patch.undo()
            patches.tell(request.node.nodeid)

        def test_passes(self):
            pass

        def test_fails(self):
            assert 1 == 2

    return Tests if restored else pytest.mark.fkit(isolation="class")(Tests)

for case in json.load(open("cases.json")):
    globals()["Test_" + "_".join(map(str, case[:4]))] = make(*case)
"""

_FILES = {
    "patches.py": _PATCHES,
    "plain_forks.py": _PLAIN_FORKS,
    "recorder.py": _RECORDER,
    "pytest.ini": "[pytest]\nfkit_start_method = fork\n",
}

Calls = Dict[str, "CounterOf[str]"]


class Case(NamedTuple):
    """A patch.

    :param how: what takes the place of the name.
    :param restored: whether that is undone.
    :param passes: whether the test does that patches.
    """

    module: str
    name: str
    how: str
    restored: bool
    passes: bool


def names() -> Iterator[tuple[str, str]]:
    """Modules and names of their public callables."""
    for module in MODULES:
        found = vars(importlib.import_module(module))
        yield from (
            (module, name)
            for name in sorted(found)
            if not name.startswith("_") and callable(found[name])
        )


def cases(every: bool, offset: int, restored: Sequence[bool] = (True, False)) -> list[Case]:
    """Patches of every name.

    :param every: all there are, else one for every eighth name.
    :param offset: says which of the kinds of patches the first name gets, and which names.
    """
    kinds = list(itertools.product(HOWS, restored, (True, False)))
    return [
        Case(module, name, *kind)
        for number, (module, name) in enumerate(names())
        if every or (number + offset) % 8 == 0
        for kind in (kinds if every else [kinds[(number // 8 + offset) % len(kinds)]])
    ]


@dataclass(frozen=True)
class Said:
    """What was reported on one test.

    :param phases: as in "call failed".
    :param survived: whether plain pytest came to its end, with a report on each phase.
    """

    phases: list[str]
    survived: bool = True
    text: str = ""


class Suite:
    """In a directory of its own.

    :param wide: whether a class's fixture patches, or else the test itself.
    """

    def __init__(self, directory: Path, wide: bool) -> None:
        self._directory = directory
        self._wide = wide
        write_files(directory, {**_FILES, "test_it.py": _IN_FIXTURES if wide else _IN_TESTS})

    def nodeids(self, case: Case) -> list[str]:
        """Of the tests that a case is about."""
        words = list(map(str, case))
        if self._wide:
            name = "_".join(words[:4])
            return [f"test_it.py::Test_{name}::{test}" for test in ("test_passes", "test_fails")]
        return [f"test_it.py::test_it[{'-'.join(words)}]"]

    def plain(self, chosen: Sequence[Case]) -> tuple[dict[str, Said], Calls]:
        """What plain pytest reports, and who calls what is a mock."""
        run, calls = self._run(chosen, "-p", "plain_forks")
        path = self._directory / "plain.txt"
        assert path.exists(), run.out + run.err
        found = ast.literal_eval(path.read_text())
        return {
            nodeid: Said(phases, ends == ["end"] and len(phases) == 3)
            for nodeid, (phases, ends) in found.items()
        }, calls

    def ours(
        self, chosen: Sequence[Case], *arguments: str
    ) -> tuple[dict[str, Said], Calls, InnerRun]:
        """What we report, and who calls what is a mock."""
        run, calls = self._run(chosen, "-p", "recorder", "--fkit", "--fkit-timeout=30", *arguments)
        found: dict[str, Said] = {}
        for line in (self._directory / "ours.jsonl").read_text().splitlines():
            nodeid, phase, text = json.loads(line)
            before = found.get(nodeid, Said([]))
            found[nodeid] = Said([*before.phases, phase], text=before.text + text)
        return found, calls, run

    def _run(self, chosen: Sequence[Case], *arguments: str) -> tuple[InnerRun, Calls]:
        log = self._directory / "calls.txt"
        if log.exists():
            log.unlink()
        (self._directory / "cases.json").write_text(json.dumps(chosen))
        path = f"{self._directory}:{os.environ.get('PYTHONPATH', '')}"
        run = run_pytest(
            self._directory, "-q", "--tb=no", "-p", "no:cacheprovider", *arguments,
            env={"PYTHONPATH": path, "CALLS": str(log)}, timeout=3000,
        )  # fmt: skip
        calls: Calls = {}
        for line in log.read_text().splitlines() if log.exists() else ():
            nodeid, callers = ast.literal_eval(line)
            calls.setdefault(nodeid, Counter()).update(callers)
        return run, calls


def differences(
    suite: Suite,
    chosen: Sequence[Case],
    plain: tuple[dict[str, Said], Calls],
    ours: tuple[dict[str, Said], Calls, InnerRun],
) -> list[str]:
    """What we report otherwise than plain pytest, and what we call and plain pytest does not."""
    found = []
    for case in chosen:
        for nodeid in suite.nodeids(case):
            said = ours[0].get(nodeid, Said([]))
            if said.phases != plain[0][nodeid].phases:
                found.append(f"{nodeid}: {plain[0][nodeid].phases}, ours {said.phases} {said.text}")
    for nodeid, calls in ours[1].items():
        before = plain[1].get(nodeid, Counter())
        found += [
            f"{nodeid}: {number} calls by {who}"
            for who, number in (calls - before).items()
            if not _by_pytest(who) and not _by_recursion(before[who], number)
        ]
    return found


def _by_recursion(before: int, more: int) -> bool:
    """Whether a mock of what mocks themselves call was called up to the recursion limit.

    How often that is depends on the frames below, of which we have up to three more or less.
    """
    return before > 50 and more <= 3


def _by_pytest(who: str) -> bool:
    """Whether it is pytest's or pluggy's function that calls, for one of these reasons."""
    # What pytest has only as text, for want of super(), is written at once, not at the end.
    if who.startswith("code.py:toterminal"):
        return True
    # The host tears wide fixtures down in a phase of its own.
    return (
        "wide_fixtures.py:_phase < wide_fixtures.py:tear_down" in who
        or " < pytest_fixtures.py:" in who
    )


def survivors(suite: Suite, chosen: Sequence[Case], plain: dict[str, Said]) -> list[Case]:
    """Those after which plain pytest could still report, and clean up."""
    return [
        case for case in chosen if all(plain[nodeid].survived for nodeid in suite.nodeids(case))
    ]


def clean(suite: Suite, chosen: Sequence[Case], plain: dict[str, Said]) -> list[Case]:
    """Those that plain pytest cleans up after, so that other tests can follow in its process."""

    def is_clean(said: Said) -> bool:
        ends = said.phases[::2]
        return said.survived and ends == ["setup passed", "teardown passed"]

    return [
        case
        for case in chosen
        if case.restored and all(is_clean(plain[nodeid]) for nodeid in suite.nodeids(case))
    ]
