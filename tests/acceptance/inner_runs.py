"""Runs of pytest that acceptance tests start, watch and interrupt."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import textwrap
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import psutil
from inner import command, environment

MARK = "FKIT_INNER_RUN"
"""Environment variable that every process of a run inherits, daemonised ones included."""

# Writes what the controller hears of, one line of JSON per report.
_REPORT_LOG = """
import json, os, pathlib, pytest

class ReportLog:
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        facts = getattr(report, "fkit", None)
        entry = {
            "nodeid": report.nodeid.rpartition("/")[2],
            "when": report.when,
            "outcome": report.outcome,
            "text": report.longreprtext,
            "sections": dict(report.sections),
            "death": getattr(facts, "death", None) or None,
            "leftovers": list(getattr(facts, "leftovers", ())) or None,
            "duration": report.duration,
        }
        with open(os.environ["FKIT_INNER_LOG"], "a") as log:
            log.write(json.dumps(entry) + "\\n")

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ReportLog())
"""


@dataclass
class Verdict:
    """The reports on one test."""

    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """Failed if any of its reports is."""
        outcomes = [report["outcome"] for report in self.reports]
        return "failed" if "failed" in outcomes else outcomes[-1]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The reports that say failed."""
        return [report for report in self.reports if report["outcome"] == "failed"]

    @property
    def death(self) -> dict[str, Any]:
        """The one report on the death of the test."""
        (report,) = [report for report in self.reports if report["death"]]
        return report


@dataclass
class Outcome:
    """What a run left: status, terminal output, and the reports by test name."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    verdicts: dict[str, Verdict]

    def reports(self, name: str) -> Verdict:
        """Of the test with this name; an assertion names all there are."""
        found = [v for nodeid, v in self.verdicts.items() if nodeid.endswith(f"::{name}")]
        assert len(found) == 1, f"{name} not in {sorted(self.verdicts)}\n{self.stdout}"
        return found[0]


class Run:
    """A run of pytest in a process group of its own.

    :param files: path and text of what the suite consists of.
    :ivar slowness: seconds from the start to the first file that was awaited; by as much may the
        end be late on a machine that is as slow, or as busy.
    """

    def __init__(
        self,
        directory: Path,
        files: Mapping[str, str],
        *arguments: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.mark = uuid.uuid4().hex
        self._gone = False
        self._log = directory / "reports.jsonl"
        for path, text in files.items():
            (directory / path).write_text(textwrap.dedent(text))
        plugins = directory / "plugins"
        plugins.mkdir()
        (plugins / "inner_report_log.py").write_text(_REPORT_LOG)
        (directory / "tmp").mkdir()
        if not (directory / "pytest.ini").exists():
            # What fixtures leave here is meant to be there while tests are forked.
            (directory / "pytest.ini").write_text("[pytest]\nfkit_start_method = fork\n")
        ours = {
            MARK: self.mark,
            "FKIT_INNER_LOG": str(self._log),
            "FKIT_INNER_DIR": str(directory),
            "PYTHONPATH": str(plugins),
            "TMPDIR": str(directory / "tmp"),
            **(env or {}),
        }
        self._out = (directory / "stdout.txt").open("wb")
        self._err = (directory / "stderr.txt").open("wb")
        self._began = time.monotonic()
        self.slowness = 0.0
        self.process = subprocess.Popen(
            command("-p", "inner_report_log", "-p", "no:cacheprovider", "-rA", *arguments),
            cwd=directory,
            env=environment(ours),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    def alive(self) -> list[psutil.Process]:
        """The processes of the run that are not gone, whatever became of their parents."""
        if self._gone:
            return []
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                # A title by setproctitle is written over the environment.
                ours = process.environ().get(MARK) == self.mark or process.cwd() == str(
                    self.directory
                )
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def await_gone(self, seconds: float) -> list[str]:
        """What of the run is left, after `seconds` at most."""
        left: list[psutil.Process] = []

        def gone() -> bool:
            left[:] = self.alive()
            return not left

        # Of no process no other can come.
        self._gone = wait_until(gone, seconds)
        return [f"{p.pid} {describe(p)}" for p in left]

    def await_file(self, name: str, seconds: float = 30.0) -> str:
        """Text of a file that a test of the run writes, once it is there and not empty."""
        path = self.directory / name
        there = wait_until(lambda: path.exists() and path.stat().st_size > 0, seconds)
        assert there, f"no {name}\n{self.output()}"
        self.slowness = self.slowness or time.monotonic() - self._began
        return path.read_text()

    def output(self) -> str:
        """All that reached the terminal so far."""
        return "".join(
            (self.directory / name).read_text(errors="replace")
            for name in ("stdout.txt", "stderr.txt")
        )

    def wait(self, timeout: float = 60.0) -> Outcome:
        """The outcome, once the run is over."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run hangs\n{self.output()}") from None
        finally:
            self.close()
        verdicts: dict[str, Verdict] = {}
        if self._log.exists():
            for line in self._log.read_text().splitlines():
                report = json.loads(line)
                verdicts.setdefault(report["nodeid"], Verdict()).reports.append(report)
        return Outcome(
            status,
            (self.directory / "stdout.txt").read_text(errors="replace"),
            (self.directory / "stderr.txt").read_text(errors="replace"),
            time.monotonic() - self._began,
            verdicts,
        )

    def close(self) -> None:
        """Close files, and end the pytest process if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()


@contextlib.contextmanager
def started(
    directory: Path, files: Mapping[str, str], *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Run]:
    """A run, of which nothing is left after the block."""
    run = Run(directory, files, *arguments, env=env)
    try:
        yield run
    finally:
        run.close()
        for process in run.alive():
            with contextlib.suppress(psutil.Error):
                process.kill()


def run(
    directory: Path,
    files: Mapping[str, str],
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Outcome:
    """The outcome of a run, which has to leave no process."""
    with started(directory, files, *arguments, env=env) as inner:
        outcome = inner.wait(timeout)
        left = inner.await_gone(0.5)
        assert not left, f"left running: {left}\n{outcome.stdout}"
        return outcome


def wait_until(true: Callable[[], Any], seconds: float) -> bool:
    """Look until something is true, `seconds` at most; whether it is."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.02)
    return True


def describe(process: psutil.Process) -> str:
    """State and command line."""
    try:
        return f"{process.status()} {' '.join(process.cmdline())[:100]}"
    except psutil.Error:
        return "gone"


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)
