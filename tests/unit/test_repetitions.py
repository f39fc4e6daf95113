"""Repetitions: when it is enough, what they say together, and how sure that is."""

from __future__ import annotations

import itertools
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_fkit.config.values import Repeat
from pytest_fkit.controller.controller import Controller
from pytest_fkit.controller.repeat.decisions import (
    MOST,
    Enough,
    decide,
    needs_more,
    rounds,
)
from pytest_fkit.controller.repeat.tally import RepeatTally, Repetition
from pytest_fkit.controller.schedule import units
from pytest_fkit.controller.schedule.collected import Collected
from pytest_fkit.controller.schedule.known_workers import Recall, Send, Unrunnable
from pytest_fkit.controller.schedule.schedule import Schedule
from pytest_fkit.controller.schedule.units import Unit, soft_units
from pytest_fkit.journal.rates import (
    RepeatResult,
    details,
    interval,
    rate,
    repeated_again,
    words,
)
from pytest_fkit.protocol import repetitions
from pytest_fkit.protocol.border import ItemComplete, Reported
from pytest_fkit.protocol.repetitions import (
    AllOf,
    ByTest,
    is_fresh,
    repeated,
    repetition_of,
    seed_of,
)

EXACT = {  # R 4.3, binom.test(failed, times)$conf.int
    (3, 200): (0.003104108, 0.04320828),
    (10, 100): (0.04900469, 0.1762226),
    (1, 10): (0.002528579, 0.4450161),
    (0, 20): (0.0, 0.1684335),
    (20, 20): (0.8315665, 1.0),
    (5, 10): (0.1870860, 0.8129140),
}


@pytest.mark.parametrize(("seen", "ends"), EXACT.items(), ids=str)
def test_the_interval_is_the_exact_one(seen: tuple[int, int], ends: tuple[float, float]) -> None:
    assert interval(*seen) == pytest.approx(ends, rel=1e-5)


def _tail(failed: int, times: int, p: float) -> float:
    """The probability of so many failures or more."""
    return math.fsum(
        math.comb(times, k) * p**k * (1 - p) ** (times - k) for k in range(failed, times + 1)
    )


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_what_is_seen_is_just_as_rare_as_allowed_at_its_ends(seen: tuple[int, int]) -> None:
    failed, times = seen
    low, high = interval(failed, times)
    assert 0 <= low <= failed / times <= high <= 1
    if failed:
        assert _tail(failed, times, low) == pytest.approx(0.025, abs=1e-9)
    if failed < times:
        assert 1 - _tail(failed + 1, times, high) == pytest.approx(0.025, abs=1e-9)
    mirrored = interval(times - failed, times)
    assert (low, high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-9)


def test_rates_in_words() -> None:
    assert rate(3, 200) == "failed 3 of 200 (1.5 %, 95 %: 0.3 to 4.3)"
    assert rate(0, 200) == "failed 0 of 200 (0 %, 95 %: 0 to 1.8)"
    assert rate(1, 1) == "failed 1 of 1 (100 %, 95 %: 2.5 to 100)"
    # What is rare does not look as if it never, or always, happened.
    assert rate(1, 1_000_000) == "failed 1 of 1000000 (0.0001 %, 95 %: 0.0000025 to 0.00056)"
    assert rate(9_999, 10_000).startswith("failed 9999 of 10000 (99.99 %, ")


@given(st.integers(1, 5_000), st.integers(1, 30_000))
def test_in_rounds_each_test_gets_what_was_asked_for(times: int, tests: int) -> None:
    found = list(rounds(Repeat(times=times), tests, 8))
    assert [each for part in found for each in part] == list(range(times))
    assert all(len(part) * tests <= max(MOST, tests) for part in found)


@pytest.mark.parametrize("repeat", [Repeat(seconds=1800.0), Repeat()])
def test_where_nobody_knows_how_many_rounds_grow(repeat: Repeat) -> None:
    found = list(itertools.islice(rounds(repeat, 1000, 8), 6))
    assert list(map(len, found)) == [1, 2, 4, 8, 10, 10]
    assert [part.start for part in found] == [0, 1, 3, 7, 15, 25]


@pytest.mark.parametrize("repeat", [Repeat(seconds=1800.0), Repeat()])
@given(st.integers(1, 40), st.integers(1, 300))
def test_no_worker_is_ever_without_a_repetition(repeat: Repeat, tests: int, workers: int) -> None:
    unfinished, last_round = 0, 0
    for part in itertools.islice(rounds(repeat, tests, workers), 6):
        last_round = len(part) * tests
        unfinished += last_round
        assert unfinished >= workers
        while not needs_more(unfinished, last_round, workers):
            unfinished -= 1  # one has ended
            assert unfinished >= workers


@pytest.mark.parametrize(
    ("repeat", "maxfail", "seconds", "failing", "decided"),
    [
        (Repeat(times=3), 0, 1e9, 7, None),
        (Repeat(times=3), 2, 0, 1, None),
        (Repeat(times=3), 2, 0, 2, Enough("2 failing tests end the run", True)),
        (Repeat(seconds=60), 0, 59, 5, None),
        (Repeat(seconds=60), 0, 60, 0, Enough("60s have passed")),
        (Repeat(), 0, 1e9, 0, None),
        (Repeat(), 0, 0, 1, Enough("a test failed")),
        (Repeat(), 1, 0, 1, Enough("1 failing test ends the run", True)),
    ],
)
def test_when_it_is_enough(
    repeat: Repeat, maxfail: int, seconds: float, failing: int, decided: Enough | None
) -> None:
    assert decide(repeat, maxfail, seconds, failing) == decided


def test_a_repetition_has_a_number_of_its_own_and_what_is_known_of_its_test() -> None:
    number = repeated(7, 12)
    assert (repetitions.test_of(number), repetition_of(number)) == (7, 12)
    assert (repetitions.test_of(7), repetition_of(7)) == (7, 0)
    assert (repetitions.test_of(-1), repetition_of(-1)) == (-1, 0)
    assert ByTest("abcdefgh")[number] == "h"
    assert number in AllOf({7})
    assert repeated(6, 12) not in AllOf({7})
    there = Collected([3, 7], {3: 0, 7: 1})
    assert there.number(repeated(1, 12)) == number
    assert there.position(number) == repeated(1, 12)
    assert [each for each in range(30) if is_fresh(each)] == [9, 19, 29]


def test_seeds_differ_and_the_first_is_the_one_that_was_said() -> None:
    seeds = [seed_of(7, each) for each in range(1000)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 1000
    assert all(0 <= each < 2**32 for each in seeds)
    assert 450 < sum(each < 2**31 for each in seeds) < 550


def _repetition(number: int, outcome: str, when: str = "call") -> Repetition:
    report: Any = pytest.TestReport("t.py::t", ("t.py", 0, "t"), {}, "passed", None, "call")
    report.outcome, report.when = outcome, when
    said = [Reported(repeated(0, number), report)]
    node: Any = SimpleNamespace()
    return Repetition(number, seed_of(1, number), node, said, ItemComplete(0, 0.1))


def test_the_first_failure_stands_else_the_usual_outcome() -> None:
    tally = RepeatTally("t.py::t", 4)
    for number, outcome in enumerate(["skipped", "passed", "passed"]):
        assert tally.add(_repetition(number, outcome)) == outcome
    assert (tally.stands.number, tally.is_complete) == (1, False)
    found = tally.result("the run was stopped")
    assert words(found) == "failed 0 of 2 (0 %, 95 %: 0 to 84.2), skipped 1"
    assert details(found) == ["stopped after 3 of 4: the run was stopped"]
    assert tally.add(_repetition(9, "failed", "teardown")) == "error"
    assert (tally.stands.number, tally.is_complete) == (9, True)
    found = tally.result("nobody says")
    assert (found.first, found.seed, found.first_fresh) == (9, seed_of(1, 9), True)
    assert details(found) == [
        "forked: failed 0 of 2 (0 %, 95 %: 0 to 84.2)",
        "in fresh interpreters: failed 1 of 1 (100 %, 95 %: 2.5 to 100)",
    ]
    assert repeated_again(found.event()) == found
    assert (found.event()["low"], found.event()["high"]) == pytest.approx((0.84, 90.57), abs=0.01)


def test_what_is_always_skipped_has_no_rate() -> None:
    tally = RepeatTally("t.py::t", 10)
    for number in range(10):
        tally.add(_repetition(number, "skipped"))
    found = tally.result()
    assert words(found) == "skipped 10 times"
    assert (found.fresh, found.forked) == (0, 0)
    assert words(repeated_again(found.event())) == "skipped 10 times"


def test_the_first_failure_that_is_not_quarantined_stands() -> None:
    tally = RepeatTally("t.py::t", 4)
    for number, known in enumerate([True, True, False, False]):
        tally.add(_repetition(number, "failed"), known)
        assert tally.counts == (number > 1)
    assert tally.stands.number == 2


@given(
    st.builds(
        dict, times=st.floats(1, 99), failed=st.floats(0, 99), fresh=st.floats(-9, 99),
        others=st.dictionaries(st.sampled_from(["skipped", "xfailed"]), st.floats(-9, 199)),
    )
)  # fmt: skip
def test_what_somebody_else_wrote_can_be_put_into_words(kept: dict[str, float]) -> None:
    again = repeated_again(kept)
    assert words(again)
    assert details(again) is not None


def test_a_test_that_stopped_before_its_end_is_no_repetition() -> None:
    assert not _repetition(0, "passed", "setup").ended
    once = RepeatResult(times=1, once="isolation module")
    assert words(once) == "not repeated, because of isolation module"


def test_what_is_not_wanted_any_more_is_called_back_and_finished() -> None:
    schedule = Schedule([0.001] * 300)
    schedule.add_units(soft_units([units.Test(number) for number in range(300)], sort=False))
    for name in ("gw0", "gw1"):
        schedule.add_worker(name)
    sent = {each.worker: each.tests for each in schedule.decide() if isinstance(each, Send)}
    first = {name: tests[0] for name, tests in sent.items()}
    for name, test in first.items():
        schedule.begins(name, test)
    schedule.want_only(lambda number: number == 299)
    recalled = {each.worker: each for each in schedule.decide() if isinstance(each, Recall)}
    assert {name: each.tests for name, each in recalled.items()} == {
        name: tests[1:] for name, tests in sent.items()
    }
    # One worker has just begun the next one.
    begun = sent["gw0"][1]
    schedule.completed("gw0", first["gw0"], 0.001)
    schedule.begins("gw0", begun)
    schedule.returned("gw0", sent["gw0"][2:])
    schedule.returned("gw1", sent["gw1"][1:])
    later = schedule.decide()
    assert not any(isinstance(each, Unrunnable) for each in later)
    again = [each for each in later if isinstance(each, Send)]
    assert [each.tests for each in again] == [(299,)]
    schedule.completed("gw0", begun, 0.001)
    schedule.completed("gw1", first["gw1"], 0.001)
    schedule.begins(again[0].worker, 299)
    schedule.completed(again[0].worker, 299, 0.001)
    schedule.decide()
    assert not schedule.unfinished


def test_units_of_later_rounds_go_after_those_of_earlier_ones() -> None:
    earlier = soft_units([units.Test(repeated(test, 0), "m") for test in range(3)], sort=False)
    later = soft_units([units.Test(repeated(0, each), "m") for each in (1, 2)], sort=False)

    def rank(unit: Unit) -> tuple[float, int]:
        return unit.rank

    assert max(map(rank, earlier)) < min(map(rank, later))


CONTRADICTIONS = {
    "-n0": "repetitions are distributed to workers, and there are none; use -n1 or more",
    "--fkit-isolation=module": "each repetition has a process of its own, and --fkit-isolation=mo",
    "--dist=loadfile": "repetitions of a test go to all workers, which --dist=loadfile forbids",
    "--dist=each": "repetitions of a test go to all workers, which --dist=each forbids",
    "--fkit-resume=run.jsonl": "a rate of failures belongs to one run, which --fkit-resume",
    "--pdb": "--pdb is given: a debugger runs each test here, once; leave one of them out",
}


@pytest.mark.parametrize("argument", list(CONTRADICTIONS))
def test_what_does_not_go_with_it_is_a_usage_error(
    pytester: pytest.Pytester, argument: str
) -> None:
    config = pytester.parseconfig("--fkit", "-n1", "--fkit-repeat=2", argument)
    said = f"^pytest-fkit: --fkit-repeat=2: {re.escape(CONTRADICTIONS[argument])}"
    with pytest.raises(pytest.UsageError, match=said):
        Controller(config).prepare()
