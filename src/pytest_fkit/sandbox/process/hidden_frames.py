"""Removes the frames of this package from tracebacks in reports."""

from __future__ import annotations

from types import TracebackType
from typing import Iterator

import pytest

from ...own import own_builtins, suppress
from ...system.stack_texts import entries

own_builtins(globals())

_PACKAGE = __file__[: -len("sandbox/process/hidden_frames.py")]


class Tracebacks:
    """Plugin of test processes: cuts tracebacks before reports are made."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """Cut the traceback; pytest hides its own frames, but does not know ours."""
        if call.excinfo is None:
            return
        error = call.excinfo.value
        cut = _without_ours(call.excinfo.tb)
        if cut is not None and cut is not call.excinfo.tb:
            call.excinfo = type(call.excinfo).from_exc_info((type(error), error, cut))
        # pytest shows a group and causes by their own tracebacks, and hooks may do so, too.
        for each in _linked(error):
            cut = _without_ours(each.__traceback__)
            if cut is not None and cut is not each.__traceback__:
                BaseException.with_traceback(each, cut)


def _linked(error: BaseException) -> Iterator[BaseException]:
    """An exception, its causes and contexts, and what is in groups."""
    found: dict[int, BaseException] = {}
    rest: list[object] = [error]
    while rest:
        each = rest.pop()
        if not isinstance(each, BaseException) or id(each) in found:
            continue
        found[id(each)] = each
        yield each
        rest += [each.__cause__, each.__context__]
        members: object = ()
        with suppress(Exception):  # of a property in a user's class
            members = getattr(each, "exceptions", ())
        if isinstance(members, (list, tuple)):
            rest += members


def _without_ours(first: TracebackType | None) -> TracebackType | None:
    """The traceback without frames of ours, or `first` itself if it has none."""
    kept: list[TracebackType] = []
    found = ours = False
    for entry in entries(first):
        if _is_ours(entry):
            found = ours = True
            continue
        if ours and kept and kept[-1].tb_frame is entry.tb_frame:
            kept.pop()  # pluggy's frame again: it threw the error into our wrapper, and got it back
        kept.append(entry)
        ours = False
    if not found:
        return first
    made = None
    for each in reversed(kept):
        made = TracebackType(made, each.tb_frame, each.tb_lasti, _line(each))
    return made


def _line(entry: TracebackType) -> int:
    """The line number for the constructor of tracebacks, -1 instead of None.

    From Python 3.11 on it is None for an instruction without a line, see
    https://docs.python.org/3.11/reference/datamodel.html#codeobject.co_positions
    An error from a signal handler, such as pytest-timeout's, can come at any instruction.
    """
    line: int | None = entry.tb_lineno  # typeshed says int
    return -1 if line is None else line


def _is_ours(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_PACKAGE)
