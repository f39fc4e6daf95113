"""Tracebacks without our own functions: what the others have is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FunctionType, TracebackType
from typing import Any, Callable, Iterator

import pytest

import pytest_fkit
from pytest_fkit.sandbox.process.hidden_frames import Tracebacks


def ours(function: Callable[[], None]) -> None:
    """As one of our functions that calls a test's."""
    names: dict[str, Any] = {}
    file = Path(pytest_fkit.__file__).with_name("some_module.py")
    exec(compile("def call(function):\n    function()\n", str(file), "exec"), names)
    names["call"](function)


def fails() -> None:
    raise ValueError


def without_lines() -> Callable[[], None]:
    """A function that fails at an instruction that has no line."""
    table = "co_linetable" if sys.version_info >= (3, 10) else "co_lnotab"
    changes: dict[str, Any] = {table: b""}
    return FunctionType(fails.__code__.replace(**changes), globals())


def entries(call: pytest.CallInfo[None]) -> Iterator[tuple[str, int | None]]:
    """Name and line of what is in the traceback of a call."""
    assert call.excinfo is not None
    entry: TracebackType | None = call.excinfo.tb
    while entry is not None:
        yield entry.tb_frame.f_code.co_name, entry.tb_lineno
        entry = entry.tb_next


@pytest.mark.parametrize("function", [fails, without_lines()])
def test_the_lines_of_others_are_kept_even_none(function: Callable[[], None]) -> None:
    call = pytest.CallInfo.from_call(lambda: ours(function), "call")
    before = list(entries(call))
    assert "call" in dict(before)
    Tracebacks().pytest_runtest_makereport(call)
    assert list(entries(call)) == [entry for entry in before if entry[0] != "call"]
