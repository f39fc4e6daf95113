"""What tests ask of journals, and the console script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pytest_fkit.journal.shapes import Shapes, schema

SCHEMA = schema()
SHAPES = Shapes(SCHEMA)


def events(path: Path, name: str = "") -> list[dict[str, Any]]:
    """The events of a journal, those of one name, up to the last whole line.

    They are as the schema says, and it knows all of their fields.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith(b"\n")]
    for each in found:
        assert SHAPES.misfit(each) == "", each
        assert list(_undescribed(each)) == [], each
    return [each for each in found if name in ("", each["event"])]


def _undescribed(event: dict[str, Any]) -> list[str]:
    """Fields that the schema does not have."""
    report = SCHEMA["$defs"]["report"]["properties"].keys()
    shape = SCHEMA["$defs"][f"event-{event['event']}"]
    while "$ref" in shape:
        shape = SCHEMA["$defs"][shape["$ref"].rpartition("/")[2]]
    known = {*SCHEMA["properties"], *shape["properties"]}
    if event["event"] == "report":
        known |= report
    reports = [name for each in event.get("reports", ()) for name in each.keys() - report]
    return sorted({*(event.keys() - known), *reports})


def verdicts(path: Path) -> dict[str, str]:
    """Outcome by node id; every test has one verdict."""
    found = events(path, "verdict")
    by_test = {each["test"]: each["outcome"] for each in found}
    assert len(by_test) == len(found)
    return by_test


def attempt(path: Path, name: str) -> dict[str, Any]:
    """The one attempt at the test with this name."""
    (found,) = (each for each in events(path, "attempt") if each["test"].endswith(f"::{name}"))
    return found


def fkit(directory: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """The console script, run in `directory`."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "TZ": "UTC"}
    return subprocess.run(
        [str(Path(sys.executable).with_name("fkit")), *arguments],
        cwd=directory, env=environment, capture_output=True, encoding="utf-8", timeout=timeout,
        check=False,
    )  # fmt: skip
