"""The rules of Chrome's Trace Event Format, for what pytest-fkit writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIELDS = {
    "X": {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"},
    "i": {"ph", "name", "cat", "pid", "tid", "ts", "s", "args"},
    "C": {"ph", "name", "pid", "tid", "ts", "args"},
    "s": {"ph", "name", "cat", "id", "pid", "tid", "ts"},
    "f": {"ph", "name", "cat", "id", "pid", "tid", "ts", "bp"},
    "M": {"ph", "name", "pid", "tid", "ts", "args"},
}


def load(path: Path) -> list[dict[str, Any]]:
    """The events of a trace that keeps the rules."""
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    events: list[dict[str, Any]] = data["traceEvents"]
    for each in events:
        assert set(each) == FIELDS[each["ph"]], each
        assert isinstance(each["name"], str), each
        for field in ("pid", "tid", "ts", "dur"):
            assert isinstance(each.get(field, 0), int), each
            assert each.get(field, 0) >= 0, each
    _check_names(events)
    _check_nesting(events)
    _check_counters(events)
    _check_arrows(events)
    return events


def slices(events: list[dict[str, Any]], category: str) -> list[dict[str, Any]]:
    """Complete events of a category."""
    return [each for each in events if each["ph"] == "X" and each["cat"] == category]


def lane(event: dict[str, Any]) -> tuple[int, int]:
    """Process and thread."""
    return event["pid"], event["tid"]


def _no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def _check_names(events: list[dict[str, Any]]) -> None:
    """Every lane is named once, before it is used; no two processes have one id."""
    named: set[tuple[str, int, int]] = set()
    for each in events:
        if each["ph"] == "M":
            key = each["name"], each["pid"], each["tid"]
            assert key not in named, each
            named.add(key)
        else:
            assert ("process_name", each["pid"], 0) in named, each
            if each["ph"] != "C":
                assert ("thread_name", *lane(each)) in named, each


def _check_nesting(events: list[dict[str, Any]]) -> None:
    """In a lane a slice lies within another one, or beside it; outer ones come first."""
    open_slices: dict[tuple[int, int], list[dict[str, Any]]] = {}
    last: dict[tuple[int, int], int] = {}
    for each in events:
        if each["ph"] != "X":
            continue
        assert each["ts"] >= last.get(lane(each), 0), each
        last[lane(each)] = each["ts"]
        stack = open_slices.setdefault(lane(each), [])
        while stack and stack[-1]["ts"] + stack[-1]["dur"] <= each["ts"]:
            if stack[-1]["ts"] == each["ts"] and stack[-1]["cat"] == "test" != each["cat"]:
                break  # a test and its phase, both of no length
            stack.pop()
        if stack:
            end = stack[-1]["ts"] + stack[-1]["dur"]
            assert each["ts"] + each["dur"] <= end, (stack[-1], each)
        stack.append(each)


def _check_counters(events: list[dict[str, Any]]) -> None:
    last: dict[tuple[int, str], int] = {}
    for each in events:
        if each["ph"] == "C":
            assert each["ts"] >= last.get((each["pid"], each["name"]), 0), each
            last[each["pid"], each["name"]] = each["ts"]
            assert all(isinstance(value, (int, float)) for value in each["args"].values()), each


def _check_arrows(events: list[dict[str, Any]]) -> None:
    """An arrow leads from one slice to another one, which begins later."""
    begun = {each["id"]: each for each in events if each["ph"] == "s"}
    ended = {each["id"]: each for each in events if each["ph"] == "f"}
    assert len(begun) == len(ended) == sum(each["ph"] in "sf" for each in events) / 2
    assert begun.keys() == ended.keys()
    for number, start in begun.items():
        end = ended[number]
        assert start["ts"] <= end["ts"], (start, end)
        assert end["bp"] == "e"
        for each in (start, end):
            assert any(
                one["ts"] <= each["ts"] <= one["ts"] + max(0, one["dur"] - 1)
                for one in slices(events, "test")
                if lane(one) == lane(each)
            ), each
