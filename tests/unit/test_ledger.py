"""Each test has one verdict: what counts as one, and what does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_fkit.controller.reports.accounting import Ledger
from pytest_fkit.journal.attempts import verdict


def report(when: str, outcome: str = "passed", **more: object) -> Any:
    return SimpleNamespace(when=when, outcome=outcome, **more)


PASSED = (report("setup"), report("call"), report("teardown"))


def run(ledger: Ledger, number: int, *reports: Any, complete: bool = True) -> None:
    ledger.begins(number)
    for each in reports:
        ledger.reported(number, each)
    if complete:
        ledger.complete(number)


def wrong(ledger: Ledger) -> list[tuple[int, bool, bool]]:
    return [(each.number, each.complete, each.twice) for each in ledger.wrong()]


@pytest.mark.parametrize(
    "reports",
    [
        PASSED,
        (report("setup"), report("call", "failed"), report("teardown")),
        (report("setup", "failed"), report("teardown")),
        (report("setup", "skipped"), report("teardown")),
        (report("setup"), report("call", "rerun"), report("setup"), report("call")),
        (report("call"),),  # by another plugin
        (),
    ],
)
def test_what_was_said_is_a_verdict(reports: tuple[Any, ...]) -> None:
    ledger = Ledger()
    ledger.add(["a"])
    run(ledger, 0, *reports)
    assert wrong(ledger) == []


@pytest.mark.parametrize(
    "reports",
    [
        (report("setup"),),
        (report("setup"), report("teardown")),
        (report("setup"), report("call", "rerun"), report("teardown")),
        (report("setup"), report("call", context="a subtest"), report("teardown")),
    ],
)
def test_without_a_word_on_its_call_there_is_none(reports: tuple[Any, ...]) -> None:
    ledger = Ledger()
    ledger.add(["a"])
    run(ledger, 0, *reports)
    assert wrong(ledger) == [(0, True, False)]
    without_calls = Ledger(calls=False)
    without_calls.add(["a"])
    run(without_calls, 0, *reports)
    assert wrong(without_calls) == []


def test_what_was_not_said_to_be_over_is_not() -> None:
    ledger = Ledger()
    ledger.add(["a", "b"])
    run(ledger, 0, *PASSED, complete=False)
    assert wrong(ledger) == [(0, False, False), (1, False, False)]


def test_tests_are_counted_not_node_ids() -> None:
    ledger = Ledger()
    ledger.add(["a", "a", "b"])
    run(ledger, 1, *PASSED)
    run(ledger, 2, *PASSED)
    assert wrong(ledger) == [(0, False, False)]
    ledger.final(ledger.number("a", 0))
    assert wrong(ledger) == []


def test_workers_that_collected_other_tests_select_them_too() -> None:
    ledger = Ledger()
    first, second = ledger.add(["a", "b"]), ledger.add(["b", "c"])
    run(ledger, first.number(0), *PASSED)
    run(ledger, second.number(0), *PASSED)
    assert [each.nodeid for each in ledger.wrong()] == ["c"]


def test_an_attempt_that_was_broken_off_counts_for_nothing() -> None:
    ledger = Ledger()
    ledger.add(["a"])
    run(ledger, 0, *PASSED, complete=False)
    run(ledger, 0, report("setup"))
    assert wrong(ledger) == [(0, True, False)]


@pytest.mark.parametrize("dead", [True, False])
def test_two_verdicts_are_one_too_many(dead: bool) -> None:
    ledger = Ledger()
    ledger.add(["a"])
    run(ledger, 0, *PASSED)
    if dead:
        ledger.final(0)
    else:
        run(ledger, 0, *PASSED)
    assert wrong(ledger) == [(0, True, True)]


@pytest.mark.parametrize("last", [[], [{"when": "teardown", "outcome": "passed"}]])
def test_a_journal_does_not_call_that_passed_of_which_no_call_is_known(
    last: list[dict[str, Any]],
) -> None:
    assert verdict([{"when": "setup", "outcome": "passed"}, *last]) == "error"
