"""What plugins put into reports, from a test process to pytest's own."""

from __future__ import annotations

import datetime
import enum
import sys
import types
from decimal import Decimal
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation

from pytest_fkit.compat.pytest_reports import keep_objects, restore_objects
from pytest_fkit.protocol.event_file import ReportFacts, facts_in


class Colour(enum.Enum):
    RED = 1


def _report(**attributes: Any) -> Any:
    report: Any = pytest.TestReport("a.py::t", ("a.py", 0, "t"), {}, "passed", None, "call")
    vars(report).update(attributes)
    return report


def _kept(session: pytest.Session, report: Any) -> dict[str, bytes]:
    data = dict(vars(report))
    keep_objects(session, report, data)
    return dict(facts_in(data).objects)


def test_objects_arrive_as_they_are_and_pytests_as_they_are_there(
    pytester: pytest.Pytester,
) -> None:
    item = pytester.getitem("class TestIt:\n    def test_it(self): pass", "test_it")
    session = item.session
    session.items = [item]
    given = {
        "began": datetime.datetime(2024, 2, 29, 12, 0),
        "cost": {"each": [Decimal("0.1")]},
        "colour": Colour.RED,
        "item": item,
        "nodes": (item.parent, item.config),
        "user_properties": [("at", datetime.date(2024, 2, 29))],
    }
    kept = _kept(session, _report(text="plain", number=1, **given))
    assert kept.keys() == given.keys()
    again = _report(fkit=ReportFacts(objects=tuple(kept.items())))
    restore_objects(session, again)
    assert again.fkit == ReportFacts()
    assert {name: getattr(again, name) for name in given} == given
    assert again.item is item


def test_what_writes_itself_to_the_terminal_is_no_text_there(pytester: pytest.Pytester) -> None:
    """As a doctest's failure, of which pytest's short summary has no message."""
    session = pytester.getitem("def test_it(): pass", "test_it").session
    shown = ReprFileLocation("a.txt", 3, "DocTestFailure")
    data = dict(vars(_report(longrepr=str(shown))))
    keep_objects(session, _report(longrepr=shown), data)
    again = _report(longrepr=data["longrepr"], fkit=facts_in(data))
    restore_objects(session, again)
    assert (type(again.longrepr), str(again.longrepr)) == (ReprFileLocation, str(shown))


def test_what_cant_be_carried_is_left_as_it_was(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = pytester.getitem("def test_it(): pass", "test_it").session
    session.items = []
    module = types.ModuleType("imported_by_a_test")
    exec("class Thing: pass", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kept = _kept(session, _report(function=lambda: 1, thing=module.Thing()))
    assert kept.keys() == {"thing"}
    monkeypatch.delitem(sys.modules, module.__name__)
    report = _report(thing="its text", fkit=ReportFacts(objects=tuple(kept.items())))
    restore_objects(session, report)
    assert report.thing == "its text"


def test_a_report_without_such_things_has_nothing_more(pytester: pytest.Pytester) -> None:
    session = pytester.getitem("def test_it(): pass", "test_it").session
    assert _kept(session, _report(description="text")) == {}
