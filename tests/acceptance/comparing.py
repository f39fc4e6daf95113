"""A small suite run plain and under fkit, and what differs."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import pytest

MODES = {
    "n0": ["--fkit", "-n0"],
    "n2": ["--fkit", "-n2"],
    "session": ["--fkit", "-n1", "--fkit-isolation=session"],
}

CRASH = "test_zz_crash.py::test_crash"

# Records what plugins in the process that owns the terminal hear.
RECORDER = """
import json, os
import pytest

PATH = os.path.abspath("record.jsonl")

class Recorder:
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
        self._write(report.nodeid, f"{report.when} {outcome}")

    def pytest_collectreport(self, report):
        if not report.passed:
            self._write(report.nodeid, f"collect {report.outcome}")

    def _write(self, *record):
        with open(PATH, "a") as file:
            file.write(json.dumps(record) + "\\n")

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())
"""

Outcomes = Dict[str, List[str]]


@dataclass(frozen=True)
class Run:
    """One run of the suite.

    :param outcomes: by node id, what was reported, in order.
    :param artefact: what the plugin left behind.
    """

    status: int
    outcomes: Outcomes
    artefact: Any
    text: str

    def counts(self) -> dict[str, int]:
        """How often each thing was reported."""
        found: dict[str, int] = {}
        for phases in self.outcomes.values():
            for phase in phases:
                found[phase] = found.get(phase, 0) + 1
        return found


class Suite:
    """A suite in a directory of its own.

    :param plugins: names of the entry points of the plugins to load, and no others.
    """

    def __init__(self, pytester: pytest.Pytester, plugins: Sequence[str]) -> None:
        self._pytester = pytester
        self._plugins = ["xdist", "fkit", *plugins, "recorder"]
        self.path = pytester.path

    def run(self, *arguments: str, artefact: Callable[[Path], Any] = lambda directory: None) -> Run:
        """Run it once."""
        record = self.path / "record.jsonl"
        record.write_text("")
        plugins = [part for name in self._plugins for part in ("-p", name)]
        result = self._pytester.runpytest_subprocess(*plugins, *arguments, timeout=120)
        outcomes: Outcomes = {}
        for line in record.read_text().splitlines():
            nodeid, what = json.loads(line)
            outcomes.setdefault(nodeid, []).append(what)
        text = f"{result.stdout.str()}\n{result.stderr.str()}"
        return Run(int(result.ret), outcomes, artefact(self.path), text)

    def compare(
        self,
        *arguments: str,
        artefact: Callable[[Path], Any] = lambda directory: None,
        modes: Sequence[str] | None = None,
        crash: bool = True,
    ) -> Run:
        """Run it plain and under fkit; what plain pytest gave, if nothing differs.

        :param modes: one in turn if none are named, all with ``FKIT_EVERY_MODE=1`` in the
            environment.
        :param crash: run a test that crashes beside the others, under fkit; the suite has to have
            a failure, so that the exit status is the same.
        """
        plain = self.run(*arguments, artefact=artefact)
        assert plain.outcomes, plain.text
        assert plain.status in (0, 1, 2), plain.text  # not an error in plugins or usage
        if crash:
            self._pytester.makepyfile(
                test_zz_crash="import os\ndef test_crash():\n    os._exit(3)\n"
            )
        for mode in self._modes() if modes is None else modes:
            run = self.run(*MODES[mode], *arguments, artefact=artefact)
            if crash:
                crashed = [name for name in run.outcomes if name.startswith(CRASH)]
                assert crashed, f"{mode}:\n{run.text}"
                for name in crashed:
                    assert "call failed" in run.outcomes.pop(name), (mode, name)
                assert "exit status 3" in run.text or "no:terminal" in arguments, mode
            assert run.outcomes == plain.outcomes, f"{mode}:\n{run.text}"
            assert run.status == plain.status, f"{mode}:\n{run.text}"
            assert run.artefact == plain.artefact, mode
        return plain

    def _modes(self) -> Sequence[str]:
        if os.environ.get("FKIT_EVERY_MODE") == "1":
            return tuple(MODES)
        number = zlib.crc32(self.path.name.encode())
        return (tuple(MODES)[number % len(MODES)],)


class MakeSuite:
    """Makes a suite of some files.

    :param without_plugins: whether to load none of those that a test names.
    """

    def __init__(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, without_plugins: bool
    ) -> None:
        self._pytester = pytester
        self._without_plugins = without_plugins
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID", "CI"):
            monkeypatch.delenv(name, raising=False)
        pytester.makepyfile(recorder=RECORDER)
        pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")

    def __call__(self, *plugins: str, **files: str) -> Suite:
        """A suite of these files, by their names without ``.py``."""
        self._pytester.makepyfile(**files)
        return Suite(self._pytester, () if self._without_plugins else plugins)


@pytest.fixture
def suite(
    request: pytest.FixtureRequest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> MakeSuite:
    """Makes a suite of some files; the arguments are the plugins to load."""
    without = request.config.getoption("--without-plugins", False)
    return MakeSuite(pytester, monkeypatch, bool(without))
