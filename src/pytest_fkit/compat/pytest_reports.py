"""Private names of pytest's reports, marks and tracebacks."""

from __future__ import annotations

from typing import Any, cast

import _pytest._code.code
import _pytest.config
import _pytest.debugging
import _pytest.fixtures
import _pytest.junitxml
import _pytest.main
import _pytest.runner
import _pytest.skipping
import _pytest.threadexception
import _pytest.unraisableexception
import _pytest.warnings
import pytest

from ..own import os, own_builtins
from .pytest_hooks import SERIALIZING, is_pytests

own_builtins(globals())


_code = _pytest._code.code

# What these are made of; dataclasses, or attrs' classes before pytest 7.3.
_PARTS: dict[type[Any], tuple[str, ...]] = {
    _code.ReprTraceback: ("reprentries", "extraline", "style"),
    _code.ReprTracebackNative: ("reprentries", "extraline", "style"),
    _code.ReprEntry: ("lines", "reprfuncargs", "reprlocals", "reprfileloc", "style"),
    _code.ReprEntryNative: ("lines",),
    _code.ReprFileLocation: ("path", "lineno", "message"),
    _code.ReprLocals: ("lines",),
    _code.ReprFuncArgs: ("args",),
}
_ENTRIES = (_code.ReprEntry, _code.ReprEntryNative)


class _ForeignPartError(Exception):
    """A report has a part that pytest does not make."""


def report_to_data(config: pytest.Config, report: Any) -> dict[str, Any]:
    """What pytest_report_to_serializable answers, by code of ours where pytest's would answer.

    pytest's asks ``os.fspath``, ``copy`` and ``dataclasses``, which the test may have patched, and
    takes several times as long. Reports of other classes, and all where a plugin or a conftest.py
    has a part in that hook, are left to the hook.
    """
    if type(report) is pytest.TestReport and is_pytests(config, SERIALIZING):
        try:
            return _report_data(report)
        except _ForeignPartError:
            pass
    hooks = config.hook
    return cast("dict[str, Any]", hooks.pytest_report_to_serializable(config=config, report=report))


_GIVEN = frozenset(
    {"location", "keywords", "outcome", "longrepr", "when", "user_properties", "sections"}
)
_COMMON = frozenset({type(None), str, int, float, bool, tuple, list, dict})


def _report_data(report: pytest.TestReport) -> dict[str, Any]:
    """As pytest's ``TestReport._to_json`` and pytest_report_to_serializable."""
    data = dict(vars(report))
    if "_id" in data:  # pytest 9.2 on
        data["nodeid"] = str(data.pop("_id"))
    if report.longrepr is not None:
        data["longrepr"] = _longrepr_data(report.longrepr)
    for name, value in data.items():
        if name == "result":
            data[name] = None
        elif name not in _GIVEN and type(value) not in _COMMON and isinstance(value, os.PathLike):
            data[name] = os.fspath(value)
    data["$report_type"] = "TestReport"
    return data


def _longrepr_data(longrepr: Any) -> Any:
    if not hasattr(longrepr, "toterminal"):
        return longrepr
    if not (hasattr(longrepr, "reprtraceback") and hasattr(longrepr, "reprcrash")):
        return str(longrepr)
    last, chain = _parts(longrepr.reprtraceback), None
    if isinstance(longrepr, _code.ExceptionChainRepr):
        chain = [
            (last if each is longrepr.reprtraceback else _parts(each), _parts(place), text)
            for each, place, text in longrepr.chain
        ]
    return {
        "reprcrash": _parts(longrepr.reprcrash),
        "reprtraceback": last,
        "sections": longrepr.sections,
        "chain": chain,
    }


def _parts(found: Any) -> dict[str, Any] | None:
    """As dataclasses.asdict; None for None.

    :raises _ForeignPartError: for an object of a class that is not pytest's.
    """
    if found is None:
        return None
    names = _PARTS.get(type(found))
    if names is None:
        raise _ForeignPartError
    return {name: _plain(getattr(found, name)) for name in names}


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is list or kind is tuple:
        return kind(map(_plain, value))
    if kind in _ENTRIES:
        return {"type": kind.__name__, "data": _parts(value)}
    return _parts(value)


def expected_failure(item: pytest.Item) -> str | None:
    """The reason for which a death of `item` is expected: an xfail mark without ``raises``."""
    if item.config.getoption("runxfail", False):
        return None
    xfail = _pytest.skipping.evaluate_xfail_marks(item)
    if xfail is None or xfail.raises is not None:
        return None
    return xfail.reason
