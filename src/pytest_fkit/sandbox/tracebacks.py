"""Tracebacks in reports, without the functions of this package that called the user's code."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pytest

from ..own import own_builtins

own_builtins(globals())

_PACKAGE = __file__[: -len("sandbox/tracebacks.py")]


class Tracebacks:
    """Plugin of a test process."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: Any) -> None:
        """Before the report is made: pytest hides its own functions, and does not know ours."""
        if call.excinfo is not None:
            error = call.excinfo.value
            cut = _without_ours(call.excinfo.tb)
            if cut is not None and cut is not call.excinfo.tb:
                call.excinfo = pytest.ExceptionInfo.from_exc_info((type(error), error, cut))


def _without_ours(first: TracebackType | None) -> TracebackType | None:
    """The traceback again, or `first` itself if there is nothing of ours in it."""
    entries = []
    entry = first
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    kept = [each for each in entries if not _is_ours(each)]
    if len(kept) == len(entries):
        return first
    made = None
    for each in reversed(kept):
        made = TracebackType(made, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return made


def _is_ours(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_PACKAGE)
