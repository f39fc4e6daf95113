"""Reports as data, whatever tests and hooks of a suite have made of them."""

from __future__ import annotations

from typing import Any

import pytest

from ..own import own_builtins
from ..protocol.event_file import ReportData
from ..protocol.plain_values import carriable
from ..system.stack_texts import stack_text
from .pytest_reports import report_to_data

own_builtins(globals())

_KINDS: dict[str, tuple[type[Any], ...]] = {
    "nodeid": (str,), "outcome": (str,), "keywords": (dict,), "duration": (float, int),
    "sections": (list, tuple), "user_properties": (list, tuple),
}  # fmt: skip
"""What pytest, and we, take for granted in the data of a report."""

_USUAL = [kinds[0] for kinds in _KINDS.values()]


def sound_data(config: pytest.Config, report: pytest.TestReport, seconds: float) -> ReportData:
    """The data of a report that a test, or a hook of a suite, may have made anything of.

    In plain pytest reports are not serialized, and the verdict stands. So it does here, whatever
    becomes of the rest.

    :param seconds: what its phase took, if the report has no number for that.
    :raises BaseException: if a report that is not of pytest's own class can't be serialized.
    """
    try:
        data = report_to_data(config, report)
        wrong = _wrong(data)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (of something that the test or a plugin patched)
        data, wrong = _minimal_data(report, error), []
    if {"nodeid", "outcome"} & {*wrong}:
        lack = TypeError(f"pytest_report_to_serializable gave no {' and no '.join(wrong)}")
        data, wrong = _minimal_data(report, lack), []
    # Of another type, too, if the test has replaced ``list``, which pytest calls to make them.
    data.update((name, seconds if name == "duration" else _KINDS[name][0]()) for name in wrong)
    if not isinstance(data.get("longrepr"), (str, tuple, list, dict, type(None))):
        data["longrepr"] = str(carriable(data["longrepr"]))
    if data["sections"]:
        data["sections"] = sound_sections(data["sections"])
    return data


def _wrong(data: ReportData) -> list[str]:
    """The names of what is of no kind that is expected."""
    if [*map(type, map(data.get, _KINDS))] == _USUAL:
        return []
    return [name for name, kinds in _KINDS.items() if not isinstance(data.get(name), kinds)]


def sound_sections(found: Any) -> list[tuple[str, str]]:
    """The sections of a report, of which a test or a hook may have made anything."""
    if not isinstance(found, (list, tuple)):
        return []
    return [
        (_text(each[0]), _text(each[1]))
        for each in found
        if isinstance(each, (tuple, list)) and len(each) == 2
    ]


def _text(value: object) -> str:
    return value if type(value) is str else str(carriable(value))


def _minimal_data(report: pytest.TestReport, error: BaseException) -> ReportData:
    """The data of a report that can't be serialized: its verdict, and the reason.

    :raises BaseException: `error`, if the report is not of pytest's own class.
    """
    if type(report) is not pytest.TestReport:
        raise error
    text = f"pytest-fkit: pytest's text on this can't be passed on: {stack_text(error)}"
    kept = ("location", "outcome", "when", "start", "stop", "wasxfail")
    duration = vars(report).get("duration")
    return {
        "$report_type": "TestReport",
        "nodeid": report.nodeid,
        "keywords": {},
        "longrepr": None if report.outcome == "passed" else text,
        "user_properties": [],
        "sections": [],
        "duration": duration if isinstance(duration, (float, int)) else 0.0,
        **{name: value for name, value in vars(report).items() if name in kept},
    }
