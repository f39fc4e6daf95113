"""One pytest run inside a test: what its controller heard, said and wrote."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inner import command, environment, run_to_its_end

SUITES = Path(__file__).with_name("suites")

_CONFTEST = """
import json, os
import pytest

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(), "recorder")

class Recorder:
    def __init__(self):
        self.pid = os.getpid()
        self.file = open("reports.jsonl", "w")

    def pytest_runtest_logreport(self, report):
        record = {
            "nodeid": report.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "wasxfail": getattr(report, "wasxfail", None),
            "text": str(report.longrepr or "")[-20000:],
            "sections": [[name, text[:2000], len(text)] for name, text in report.sections],
            "duration": report.duration,
            "properties": report.user_properties,
            "pid": os.getpid(),
        }
        self.file.write(json.dumps(record, default=str) + "\\n")
        self.file.flush()
"""


@dataclass(frozen=True)
class Report:
    """One report as the controller heard it."""

    nodeid: str
    when: str
    outcome: str
    wasxfail: str | None
    text: str
    sections: list[tuple[str, str, int]]
    duration: float
    properties: list[list[object]]
    pid: int

    @property
    def captured(self) -> dict[str, str]:
        """Sections by name."""
        assert len({name for name, _, _ in self.sections}) == len(self.sections)
        return {name: text for name, text, _ in self.sections}


class Run:
    """A run of pytest in `directory`, to its end."""

    def __init__(self, directory: Path, *arguments: str, timeout: float = 60) -> None:
        self.directory = directory
        ended = run_to_its_end(
            command("-p", "no:cacheprovider", "--junitxml=junit.xml", *arguments),
            directory,
            environment({"COLUMNS": "200"}),
            timeout,
        )
        self.status = ended.status
        self.text = ended.out + ended.err
        self.lines = self.text.splitlines()
        self.reports = [
            Report(**json.loads(line))
            for line in (directory / "reports.jsonl").read_text().splitlines()
        ]

    def of(self, name: str) -> list[Report]:
        """The reports of one test, by the end of its node id."""
        return [report for report in self.reports if report.nodeid.endswith(f"::{name}")]

    def outcomes(self, name: str) -> list[str]:
        """What the reports of one test say, as in "setup passed"."""
        return [
            f"{report.when} {'x' if report.wasxfail is not None else ''}{report.outcome}"
            for report in self.of(name)
        ]

    def bad(self, name: str) -> Report:
        """The one failed report of a test."""
        (report,) = [report for report in self.of(name) if report.outcome == "failed"]
        return report

    def summary(self, name: str) -> list[str]:
        """The lines of the short summary on one test."""
        head = re.compile(rf"[A-Z]+ \S*::{re.escape(name)}( - .*)?$")
        start = max(
            (number for number, line in enumerate(self.lines) if "short test summary" in line),
            default=len(self.lines),
        )
        return [line for line in self.lines[start:] if head.match(line)]

    def junit(self, name: str) -> list[Any]:
        """The elements of one test in the JUnit file."""
        tree = ElementTree.parse(self.directory / "junit.xml")
        return [case for case in tree.iter("testcase") if case.get("name") == name]

    def ran(self, name: str) -> list[str]:
        """The lines that the inner suite appended to its file `name`."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


def new_suite(directory: Path, **files: str) -> Path:
    """Put a suite into `directory`: each file's name without ``.py``, and its text."""
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "conftest.py").write_text(_CONFTEST)
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".py").write_text(text)
    return directory
