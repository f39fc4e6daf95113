"""What a quarantine says, about which tests, and which of its entries are due."""

from __future__ import annotations

import datetime
import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_fkit.journal.causes import Cause
from pytest_fkit.journal.events import event
from pytest_fkit.journal.history import history
from pytest_fkit.journal.quarantine import KnownFailure, Quarantine, QuarantineError, matches, parse
from pytest_fkit.journal.quarantine_check import due

TEXTS = st.text("ab[]*?!-", max_size=12)


@given(TEXTS, TEXTS)
def test_an_asterisk_is_the_only_wildcard(pattern: str, text: str) -> None:
    escaped = "".join(f"[{each}]" if each in "[?" else each for each in pattern)
    assert matches(pattern, text) == fnmatch.fnmatchcase(text, escaped)


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_a_text_is_what_is_made_of_its_pieces(text: str, others: list[str]) -> None:
    assert matches(text.replace("*", ""), text.replace("*", ""))
    assert matches("*".join(others), "x".join(others).replace("*", ""))


def entry(test: str, **given: str) -> KnownFailure:
    return KnownFailure(**{"test": test, "issue": "", "expires": "2030-01-02", **given})


def test_an_entry_with_a_node_id_is_about_that_test_alone() -> None:
    one, other, pattern = entry("a::t[*]"), entry("a::t[1-a]"), entry("a::u*", cause="B*")
    found = Quarantine(
        [pattern, one, other, entry("b*"), entry("c")], ["a::t[*]", "a::t[1-a]", "a::u"]
    )
    assert found.about("a::t[*]") == [one]
    assert found.about("a::t[1-a]") == [other]
    assert found.about("a::u") == [pattern]
    assert [each.test for each in found.unused] == ["b*", "c"]
    # Where there is no test of that name, it is a pattern.
    assert Quarantine([one], ["a::t[3]"]).about("a::t[3]") == [one]
    assert pattern.has_cause(Cause("B", "x", ""))
    assert not pattern.has_cause(Cause("A", "x", ""))


def test_a_file_is_read() -> None:
    found = parse(
        '[[quarantine]]\ntest = "t"\nissue = "i"\nexpires = 2030-01-02\nmode = "skip"\n'
        'cause = "c"\n'
        '[[quarantine]]\ntest = "u"\nexpires = "2030-01-02"\n'
        '[[quarantine]]\ntest = "v"\nexpires = 2030-01-02T03:04:05\n'
    )
    assert found == [KnownFailure("t", "i", "2030-01-02", "skip", "c"), entry("u"), entry("v")]
    assert found[0].reason == "quarantined until 2030-01-02: i"
    assert parse("") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "not TOML: "),
        (f"a = {'[' * 9999}", "not TOML: "),
        ("[[tests]]\n", r"'tests': expected \[\[quarantine\]\] with test = "),
        ("quarantine = 3\n", "'quarantine': expected "),
        ("quarantine = [3]\n", "entry 1: expected "),
        ('[[quarantine]]\nexpires = "2030-01-02"\n', "entry 1: 'test': expected a string"),
        ('[[quarantine]]\ntest = "t"\n', r"entry 1 \(t\): 'expires': expected a day, as in exp"),
        ('[[quarantine]]\ntest = "t"\nexpires = "soon"\n', "'expires': expected a day"),
        ('[[quarantine]]\ntest = "t"\nexpires = 3\n', "'expires': expected a day"),
        ('[[quarantine]]\ntest = 3\nexpires = 2030-01-02\n', "'test': expected a string"),
        ('[[quarantine]]\ntest = "t"\nmode = "x"\n', "mode = 'x': expected 'run' or 'skip'"),
        ('[[quarantine]]\ntest = "t"\nowner = "x"\n', "entry 1: 'owner' is unknown; expected "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(QuarantineError, match=message):
        parse(text)


def test_entries_that_are_due() -> None:
    def verdict(test: str, outcome: str, attempt: int = 1) -> dict[str, Any]:
        return event("verdict", test=test, worker="gw0", outcome=outcome, attempt=attempt)

    told = history(
        [
            event("run", session="a", options={"dist": "loadgroup"}),
            event("collection", worker="gw0", nodeids=["t1@g", "u", "v", "w", "x"]),
            verdict("t1@g", "passed"), verdict("u", "passed"), verdict("v", "passed", 2),
            event("run", session="b"),
            verdict("t2", "passed"), verdict("u", "quarantined"),
        ]
    )  # fmt: skip
    entries = [
        entry("t*"), entry("u"), entry("v"), entry("w", expires="2029-12-31"),
        entry("t1", mode="skip"), entry("none*", expires="2029-12-31"),
    ]  # fmt: skip
    found = due(entries, told, datetime.date(2030, 1, 2))
    assert [(each.entry.test, each.why) for each in found] == [
        ("t*", "passed"), ("w", "expired"), ("none*", "expired"), ("none*", "unused"),
    ]  # fmt: skip
    assert {each.why for each in due(entries, told, datetime.date(2030, 1, 3))} == {
        "passed", "expired", "unused",
    }  # fmt: skip
