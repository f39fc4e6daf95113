"""Single events of Chrome's Trace Event Format, as dicts."""

from __future__ import annotations

from typing import Any, Dict

from ..own import own_builtins

own_builtins(globals())

TraceEvent = Dict[str, Any]

LANES = {"worker": 1, "wide fixtures": 2, "tests": 3}
"""Threads of a worker's process, by name."""


def complete(
    pid: int, lane: str, name: str, category: str, span: tuple[int, int], arguments: dict[str, Any]
) -> TraceEvent:
    """A span of time, in microseconds, in a lane of a process."""
    begin, end = span
    return {
        "ph": "X", "name": name, "cat": category, "pid": pid, "tid": LANES[lane],
        "ts": begin, "dur": end - begin, "args": _given(arguments),
    }  # fmt: skip


def instant(
    pid: int, lane: str, name: str, category: str, at: int, arguments: dict[str, Any]
) -> TraceEvent:
    """A moment in a lane."""
    return {
        "ph": "i", "s": "t", "name": name, "cat": category, "pid": pid, "tid": LANES[lane],
        "ts": at, "args": _given(arguments),
    }  # fmt: skip


def flow(what: str, pid: int, number: int, at: int) -> TraceEvent:
    """One end of an arrow between attempts: "s" where it starts, "f" where it ends."""
    found = {
        "ph": what, "name": "another attempt", "cat": "attempts", "id": number, "pid": pid,
        "tid": LANES["tests"], "ts": at,
    }  # fmt: skip
    return {**found, "bp": "e"} if what == "f" else found


def named(what: str, pid: int, tid: int, name: str, place: int) -> TraceEvent:
    """A name for a "process" or a "thread"; `place` is where viewers sort it."""
    return {
        "ph": "M", "name": f"{what}_name", "pid": pid, "tid": tid, "ts": 0,
        "args": {"name": name, "sort_index": place},
    }  # fmt: skip


def counter(pid: int, name: str, unit: str, value: float, at: int) -> TraceEvent:
    """A number that holds from a moment on."""
    return {"ph": "C", "name": name, "pid": pid, "tid": 0, "ts": at, "args": {unit: value}}


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None and value != ""}
