"""What the controller of an inner run hears of GPU errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

from inner import InnerRun, run_pytest, write_files

_LISTENER = """
import functools, json, marshal, os
from pytest_fkit.controller.arrivals import Arrivals
from pytest_fkit.controller.nodes import Nodes

add_reports = Arrivals.add_reports

def heard(self, node, data):
    with open(os.environ["HEARD_IN"], "a") as log:
        for event in marshal.loads(data):
            log.write(json.dumps(event, default=str) + "\\n")
        log.write("null\\n")  # the end of a message
    add_reports(self, node, data)

Arrivals.add_reports = heard

configure_node = Nodes.pytest_configure_node

@functools.wraps(configure_node)
def configured(self, node):
    newchannel = node.gateway.newchannel

    def listening():
        channel = newchannel()
        setcallback = channel.setcallback

        def listen(callback, **others):
            def told(message):
                if message is not None and message[0] == "collection_gpu_errors":
                    with open(os.environ["HEARD_IN"], "a") as log:
                        log.write(json.dumps(message) + "\\n")
                callback(message)

            setcallback(told, **others)

        channel.setcallback = listen
        return channel

    node.gateway.newchannel = listening
    configure_node(self, node)
    node.gateway.newchannel = newchannel

Nodes.pytest_configure_node = configured
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
            if event[0] == "runtest_protocol_complete":
                break
        return kinds


def _is_error(event: list[Any]) -> bool:
    return bool(event[0] == "gpu_error")


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
