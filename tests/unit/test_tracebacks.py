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
    return entries_of(call.excinfo.tb)


def entries_of(entry: TracebackType | None) -> Iterator[tuple[str, int | None]]:
    """The same of a traceback."""
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


class GroupError(Exception):
    """As an ``ExceptionGroup``, which Python has from 3.11 on."""

    def __init__(self, *exceptions: BaseException) -> None:
        super().__init__()
        self.exceptions = exceptions


def test_exceptions_that_hang_together_have_none_of_ours() -> None:
    def caught(function: Callable[[], None]) -> ValueError:
        with pytest.raises(ValueError) as info:  # noqa: PT011 (it has no message)
            ours(function)
        return info.value

    inner = caught(fails)

    def fails_with_others() -> None:
        try:
            ours(fails)
        except ValueError:
            group = GroupError(inner, caught(fails))
            inner.__context__ = group  # a ring
            raise group from caught(fails)

    call = pytest.CallInfo.from_call(lambda: ours(fails_with_others), "call")
    assert call.excinfo is not None
    group: Any = call.excinfo.value
    errors = [group, group.__cause__, group.__context__, *group.exceptions]
    assert all("call" in dict(entries_of(error.__traceback__)) for error in errors)
    Tracebacks().pytest_runtest_makereport(call)
    assert not any("call" in dict(entries_of(error.__traceback__)) for error in errors)
    assert all(error.__traceback__ is not None for error in errors)
