"""What the controller of an inner run hears of GPU errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

from inner import InnerRun, run_pytest, write_files

_LISTENER = """
import json, os
from pytest_fkit.controller.workers.inbox import Inbox
from pytest_fkit.controller.workers.links import Links

add_told, doubt = Inbox.add_told, Links._doubt

def write(*messages):
    with open(os.environ["HEARD_IN"], "a") as log:
        for each in messages:
            fields = [part._asdict() if hasattr(part, "_asdict") else part for part in each]
            log.write(json.dumps([type(each).__name__, *fields], default=str) + "\\n")

def heard(self, node, told):
    write(*told)
    with open(os.environ["HEARD_IN"], "a") as log:
        log.write("null\\n")  # the end of a message
    add_told(self, node, told)

def doubted(self, node, message):
    write(message)
    doubt(self, node, message)

Inbox.add_told = heard
Links._doubt = doubted
"""


class Heard:
    """An inner run, and the events that its controller heard, in their order."""

    def __init__(self, ended: InnerRun, log: Path) -> None:
        self.ended = ended
        text = log.read_text() if log.exists() else ""
        self._events = [json.loads(line) for line in text.splitlines()]

    @property
    def events(self) -> list[list[Any]]:
        """What was said."""
        return [event for event in self._events if event is not None]

    @property
    def errors(self) -> dict[str, dict[str, Any]]:
        """The GPU errors, by the name of the test."""
        found = {each[1].rpartition("::")[2]: each[2] for each in self.events if _is_error(each)}
        assert len(found) == sum(map(_is_error, self.events))
        return found

    def kinds_after(self, name: str) -> list[str]:
        """The kinds of the events that came in one message with a test's GPU error, after it."""
        events = iter(self._events)
        for event in events:
            if event is not None and _is_error(event) and event[1].endswith(f"::{name}"):
                break
        kinds = []
        for event in events:
            if event is None:
                break
            kinds.append(event[0])
            if event[0] == "ItemComplete":
                break
        return kinds


def _is_error(event: list[Any]) -> bool:
    return bool(event[0] == "ItemGpuError")


def hear(
    machine: Mapping[str, str], directory: Path, files: Mapping[str, str], *arguments: str,
    env: Mapping[str, str] | None = None,
) -> Heard:  # fmt: skip
    """Run a suite with ``--fkit`` on a machine, and listen."""
    write_files(directory, {**files, "gpu_events_listener.py": _LISTENER})
    log = directory / "heard.jsonl"
    environ = {**machine, "PYTHONPATH": ".", "HEARD_IN": str(log), **(env or {})}
    ended = run_pytest(directory, "--fkit", *arguments, "-p", "gpu_events_listener", env=environ)
    return Heard(ended, log)
