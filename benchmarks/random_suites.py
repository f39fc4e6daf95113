"""Run random suites with plain pytest and with fkit; whatever either shows has to be the same."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Sequence

_SCOPES = ("function", "class", "module", "package", "session")
"""From the narrowest to the widest."""

_RECORDER = """\
import json, os, pytest

def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(text + "\\n")

REPORTS = []

@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    errors = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
    about = report.nodeid, report.when, report.outcome, getattr(report, "wasxfail", None), errors
    REPORTS.append([str(each) for each in about])

def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        REPORTS.append(["failures that count for --maxfail", str(session.testsfailed)])
        with open(os.environ["REPORTS"], "w") as file:
            json.dump(REPORTS, file)
"""

_HEAD = """\
import sys, unittest, warnings
import pytest
from recorder import note
"""

_INI = "[pytest]\n"

_HOOKS = (
    """\
@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    note(f"{item.name} begins")
    result = yield
    note(f"{item.name} is over")
    return result
""",
    """\
def pytest_runtest_setup(item):
    note(f"hook before {item.name}")
    if item.name.endswith("7"):
        pytest.skip("by a hook")
""",
    """\
@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" and report.failed and item.name.endswith("3"):
        report.outcome = "passed"
    return report
""",
    """\
def pytest_collection_modifyitems(items):
    items.reverse()
""",
    """\
@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    note(f"hook before fixture {fixturedef.argname}")
    return (yield)
""",
)

_MARKS = (
    "skip(reason='by a mark')", "xfail", "xfail(strict=True)", "xfail(run=False)",
    "xfail(raises=ValueError)", "skipif(True, reason='by a condition')",
)  # fmt: skip

_IN_TESTS = (
    "assert 1 == 2", "raise ValueError('raised')", "pytest.skip('in the test')",
    "pytest.xfail('in the test')", "warnings.warn('in the test')", "raise SystemExit(3)",
    "request.applymarker(pytest.mark.xfail(reason='late')); assert 0",
    "for number in range(3):\n    with subtests.test(number=number):\n        assert number != 1",
)  # fmt: skip

_IN_UNITTESTS = (
    "pass", "self.assertEqual(1, 2)", "self.skipTest('in the test')",
    "for n in range(3):\n    with self.subTest(n=n):\n        self.assertNotEqual(n, 1)",
)  # fmt: skip

_IN_SETUPS = ("assert 0, 'in the setup'", "pytest.skip('in a setup')", "print('in a setup')")
_IN_TEARDOWNS = (
    "assert 0, 'in the teardown'", "pytest.skip('in a teardown')",
    "pytest.xfail('in a teardown')", "print('in a teardown')",
)  # fmt: skip

_OPTIONS = ((), (), (), ("-x",), ("--maxfail=2",), ("--runxfail",), ("-s",), ("-Werror",))


class _Fixture(NamedTuple):
    name: str
    scope: str


class _Writer:
    """Writes the files of one suite."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._tests = 0

    def _likely(self, share: float) -> bool:
        return self._random.random() < share

    def _some(self, statements: Sequence[str], share: float) -> Iterator[str]:
        if self._likely(share):
            yield self._random.choice(statements)

    def _fixture(self, name: str, known: list[_Fixture], first: str = "") -> str:
        """A fixture, which is added to those that are known.

        :param first: "self" in a class.
        """
        scope = self._random.choice(_SCOPES)
        wider = _SCOPES[_SCOPES.index(scope) :]
        needs = [each.name for each in known if each.scope in wider and self._likely(0.25)][:2]
        given = [f"scope={scope!r}"] if scope != "function" else []
        given += ["autouse=True"] if self._likely(0.1) else []
        params = self._likely(0.2)
        given += [f"params={list(range(self._random.randint(1, 3)))}"] if params else []
        arguments = ", ".join(filter(None, (first, "request" if params else "", *needs)))
        shown = f"{name} {{request.param}}" if params else name
        body = [f'note(f"set up {shown}")', *self._some(_IN_SETUPS, 0.12)]
        if self._likely(0.7):
            body += ["yield", f'note("tear down {name}")', *self._some(_IN_TEARDOWNS, 0.15)]
        known.append(_Fixture(name, scope))
        return _block(f"@pytest.fixture({', '.join(given)})\ndef {name}({arguments}):", body)

    def _test(self, known: Sequence[_Fixture], first: str = "") -> str:
        self._tests += 1
        head = [f"@pytest.mark.{mark}" for mark in self._some(_MARKS, 0.2)]
        needs = [each.name for each in known if self._likely(0.3)][:3]
        if self._likely(0.15):
            head.append(f"@pytest.mark.parametrize('p', {list(range(self._random.randint(1, 3)))})")
            needs.append("p")
        does = [*self._some(_IN_TESTS, 0.4)]
        needs += [name for name in ("request", "subtests") if any(name in each for each in does)]
        arguments = ", ".join(filter(None, (first, *needs)))
        name = f"test_{self._tests}"
        return _block("\n".join([*head, f"def {name}({arguments}):"]), [f'note("{name}")', *does])

    def _unittest(self, name: str) -> str:
        body = []
        if self._likely(0.4):
            does = ["note('set up a class')", *self._some(("assert 0",), 0.15)]
            body += [_block("@classmethod\ndef setUpClass(cls):", does)]
            does = ["note('tear down a class')", *self._some(("assert 0",), 0.15)]
            body += [_block("@classmethod\ndef tearDownClass(cls):", does)]
        for _ in range(self._random.randint(1, 3)):
            self._tests += 1
            marks = ("@unittest.expectedFailure\n", "@unittest.skip('by a mark')\n")
            mark = "".join(self._some(marks, 0.2))
            does = [self._random.choice(_IN_UNITTESTS)]
            body.append(_block(f"{mark}def test_{self._tests}(self):", does))
        return _block(f"class {name}(unittest.TestCase):", body)

    def _class(self, name: str, known: Sequence[_Fixture]) -> str:
        seen, body = list(known), []
        if self._likely(0.3):
            body.append(self._fixture(f"of_{name.lower()}", seen, "self"))
        body += [self._test(seen, "self") for _ in range(self._random.randint(1, 3))]
        return _block(f"class {name}:", body)

    def _module(self, number: int, known: Sequence[_Fixture]) -> str:
        seen, parts = list(known), [_HEAD]
        if self._likely(0.15):
            does = ["note('tear down a module')", *self._some(("assert 0",), 0.2)]
            parts.append(_block("def teardown_module():", does))
        for each in range(self._random.randint(0, 3)):
            parts.append(self._fixture(f"of_module_{number}_{each}", seen))
        for each in range(self._random.randint(1, 5)):
            kind = self._random.random()
            if kind < 0.6:
                parts.append(self._test(seen))
            elif kind < 0.85:
                parts.append(self._class(f"Test{number}x{each}", seen))
            else:
                parts.append(self._unittest(f"Unit{number}x{each}"))
        return "\n".join(parts)

    def files(self) -> dict[str, str]:
        """The files' contents by their paths."""
        known: list[_Fixture] = []
        number = self._random.randint(0, 5)
        parts = [_HEAD, *(self._fixture(f"of_suite_{each}", known) for each in range(number))]
        parts += [hook for hook in _HOOKS if self._likely(0.15)]
        found = {"conftest.py": "\n".join(parts), "recorder.py": _RECORDER, "pytest.ini": _INI}
        for number in range(self._random.randint(1, 4)):
            package = "package/" if self._likely(0.3) else ""
            if package:
                found["package/__init__.py"] = ""
            found[f"{package}test_{number}.py"] = self._module(number, known)
        return found

    def options(self) -> tuple[str, ...]:
        return self._random.choice(_OPTIONS)


def _block(head: str, body: Iterable[str]) -> str:
    lines = textwrap.indent("\n".join(body), "    ")
    return f"{head}\n{lines}\n"


class _Seen(NamedTuple):
    """What a run showed.

    :param notes: what fixtures, tests and hooks did, sorted: wide fixtures are torn down when the
        process of their last test has ended.
    """

    status: str
    reports: list[list[str]]
    notes: list[str]


def _run(suite: Path, *arguments: str) -> _Seen:
    reports, notes = suite / "reports.json", suite / "notes.txt"
    reports.write_text("[]")
    notes.write_text("")
    always = ("-q", "-p", "recorder", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *always, *arguments]
    env = {
        **os.environ, "REPORTS": str(reports), "NOTES": str(notes), "PYTHONPATH": str(suite),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    try:
        done = subprocess.run(command, cwd=suite, env=env, capture_output=True, timeout=300)
        status = f"exit status {done.returncode}"
    except subprocess.TimeoutExpired:
        status = "no end within 300 s"
    return _Seen(status, json.loads(reports.read_text()), sorted(notes.read_text().splitlines()))


def _differences(plain: _Seen, other: _Seen) -> Iterator[str]:
    if plain.status != other.status:
        yield f"plain: {plain.status}; fkit: {other.status}"
    for one, another in zip(plain.reports, other.reports):
        # Several errors of one teardown are a group in plain pytest, and ours say so in sections.
        if one != another and not (one[-1] == "[]" and one[:-1] == another[:-1]):
            yield f"plain: {' '.join(one)}; fkit: {' '.join(another)}"
            break
    else:
        if len(plain.reports) != len(other.reports):
            yield f"plain: {len(plain.reports)} reports; fkit: {len(other.reports)}"
    if plain.notes != other.notes:
        yield f"only plain: {_without(plain.notes, other.notes)}"
        yield f"only fkit: {_without(other.notes, plain.notes)}"


def _without(some: Sequence[str], others: Sequence[str]) -> list[str]:
    left = list(some)
    for each in others:
        if each in left:
            left.remove(each)
    return left


def compare(seed: int, suite: Path, arguments: Sequence[str]) -> list[str]:
    """Write the suite of a seed, and run it twice; lines on what differs.

    :param suite: its directory.
    :param arguments: for pytest, with ``--fkit``.
    """
    writer = _Writer(seed)
    for name, text in writer.files().items():
        path = suite / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    given = writer.options()
    plain = _run(suite, "-p", "no:fkit", *given)
    found = list(_differences(plain, _run(suite, "--fkit", *arguments, *given)))
    return [f"seed {seed}, {' '.join(given) or 'no options'}, in {suite}", *found] if found else []


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(prog="benchmarks.random_suites", description=__doc__)
    parser.add_argument("--suites", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the first suite")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest (default: -n0)")
    options = parser.parse_args()
    same = 0
    for seed in range(options.seed, options.seed + options.suites):
        suite = Path(tempfile.mkdtemp(prefix=f"random-suite-{seed}-"))
        found = compare(seed, suite, options.pytest or ["-n0"])
        if found:
            print("".join(f"{line}\n" for line in found), end="", flush=True)
        else:
            same += 1
            shutil.rmtree(suite)
    print(f"{same} of {options.suites} suites are the same")
    return 0 if same == options.suites else 1


if __name__ == "__main__":
    sys.exit(main())
