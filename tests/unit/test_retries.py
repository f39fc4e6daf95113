"""What follows an attempt at a test: another one, or which one is the verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_fkit.controller.retry.retries import Attempt, Before, Retries, Retry, Rules, decide
from pytest_fkit.controller.retry.retries import verdict as verdict_of
from pytest_fkit.controller.schedule.units import ANY
from pytest_fkit.protocol.border import ItemComplete, Reported
from pytest_fkit.protocol.event_file import GpuError, add_facts, facts_of

ERROR = GpuError("suspect", "unspecified launch failure")


def _attempt(
    name: str, *phases: tuple[Any, Any], error: GpuError | None = None, gpus: str = ""
) -> Attempt:
    node = SimpleNamespace(
        gateway=SimpleNamespace(id=name, spec=None),
        workerinput={"fkit_gpus": {"ids": [*gpus]}},
    )
    reports = [
        Reported(0, pytest.TestReport("test_it", ("", 0, ""), {}, outcome, None, when))
        for when, outcome in phases
    ]
    return Attempt(node, tuple(f"/{gpu}" for gpu in gpus[:1]), reports, ItemComplete(3, 0.5), error)


def _decided(
    attempt: Attempt, *earlier: Attempt, most: int = 1, able: Any = lambda _: True, **more: Any
) -> Any:
    shared = more.pop("shared", False)
    rules = Rules(most, more.pop("widens", False), more.pop("network", 0))
    there = more.pop("there", frozenset())
    return decide(attempt, Before(ANY, ANY, earlier), rules, able, shared, there)


FAILED = (("setup", "passed"), ("call", "failed"), ("teardown", "passed"))


@pytest.mark.parametrize(
    ("phases", "verdict"),
    [
        ((), "failed"),  # Ctrl-C came before its setup had ended
        ((("setup", "passed"),), "failed"),  # or during the test
        ((("setup", "skipped"), ("teardown", "passed")), "failed"),
        ((("setup", "passed"), ("call", "passed"), ("teardown", "passed")), "passed"),
    ],
)
def test_a_failure_stands_unless_another_attempt_came_to_its_end(
    phases: tuple[tuple[Any, Any], ...], verdict: str
) -> None:
    retries = Retries(fail=False)
    failed = _attempt("gw0", *FAILED, error=ERROR)
    retries.hold(0, failed, ANY)
    told = retries.conclude(0, verdict_of(_attempt("gw1", *phases), [failed]))
    outcomes = {each.report.outcome for each in told if isinstance(each, Reported)}
    assert ("failed" in outcomes) == (verdict == "failed")
    assert 0 not in retries


def test_what_was_only_given_more_gpus_has_not_failed_before() -> None:
    retries = Retries(fail=False)
    first, second = _attempt("gw0", ("setup", "skipped")), _attempt("gw1", *FAILED, error=ERROR)
    for before, failed_before in ((first, False), (second, True)):
        retries.hold(0, before, ANY)
        last = _attempt("gw2", *FAILED, error=ERROR)
        retries.conclude(0, verdict_of(last, [before]))
        told = [bool(facts_of(report).failed_after) for report in last.reports]
        assert told == [False, failed_before, False]


def test_a_test_that_met_a_gpu_error_is_tried_on_other_gpus() -> None:
    first = _attempt("gw0", *FAILED, error=ERROR, gpus="01")
    second = _attempt("gw1", *FAILED, error=ERROR, gpus="23")
    assert _decided(first) == Retry(3, 0.5, ANY._replace(avoid=frozenset({"/0"})))
    assert _decided(second, first).stands is second
    again = _decided(second, first, most=2)
    assert again.kind == ANY._replace(avoid=frozenset({"/0", "/2"}))


@pytest.mark.parametrize("others", [True, False])
def test_an_error_of_the_machine_is_tried_on_another_one_if_there_is_one(others: bool) -> None:
    failed = _attempt("gw0", *FAILED, error=ERROR._replace(category="missing"), gpus="01")
    there = frozenset({"/0", "/1", "/2", "/3"})
    decided = _decided(failed, there=there, able=lambda kind: others or kind.avoid != there)
    assert decided.kind.avoid == (there if others else {"/0"})
    of_gpu = _decided(failed._replace(error=ERROR), there=there)
    assert of_gpu.kind.avoid == {"/0"}


@pytest.mark.parametrize("others", [True, False])
def test_memory_that_a_machine_lacks_is_looked_for_on_another_one_only(others: bool) -> None:
    lacking = ERROR._replace(category="host", counts=False)
    here = frozenset({"n1/", "/0", "/1"})
    first = _attempt("gw0", *FAILED, error=lacking, gpus="01")
    decided = _decided(first, there=here, able=lambda kind: others or "n1/" not in kind.avoid)
    assert decided == (Retry(3, 0.5, ANY._replace(avoid=here)) if others else ([first], first))
    # Of three machines, the third attempt is on the third.
    second = _attempt("gw2", *FAILED, error=lacking, gpus="2")
    given = Before(ANY, ANY._replace(avoid=here), [first])
    there = frozenset({"n2/", "/2"})
    again = decide(second, given, Rules(2, False), lambda _: True, False, there)
    assert isinstance(again, Retry)
    assert again.kind.avoid == here | there


def test_memory_that_the_host_locks_for_gpus_is_the_machines() -> None:
    text = "[2] Call to cuMemHostAlloc results in CUDA_ERROR_OUT_OF_MEMORY"
    locked = _attempt("gw0", *FAILED, error=GpuError("memory", text, alone=True), gpus="0")
    there = frozenset({"n1/", "/0", "/1"})
    assert _decided(locked, there=there).kind.avoid == there
    assert _decided(locked, there=there, able=lambda kind: kind.avoid != there).kind.avoid == {"/0"}


def test_where_too_few_are_left_other_workers_than_those_before_try_it() -> None:
    failed = _attempt("gw0", *FAILED, error=ERROR, gpus="01")
    few = _decided(failed, able=lambda kind: kind.avoid != {"/0"})
    assert few.kind.avoid == {"/0", "/1"}
    nobody = _decided(failed, able=lambda kind: not kind.avoid)
    assert nobody == ([failed], failed)


@pytest.mark.parametrize("shared", [True, False])
def test_memory_that_others_may_have_used_is_enough_alone_on_the_same_gpus(shared: bool) -> None:
    error = ERROR._replace(alone=True)
    failed = _attempt("gw0", *FAILED, error=error, gpus="0")
    decided = _decided(failed, able=lambda kind: not kind.avoid, shared=shared)
    alone = Retry(3, 0.5, ANY._replace(alone=True))
    assert decided == (alone if shared else ([failed], failed))


def test_a_test_that_saw_too_few_gpus_is_given_more_once() -> None:
    skipped = _attempt("gw0", ("setup", "skipped"))
    add_facts(vars(skipped.reports[0]), wanted_gpus=4)
    assert _decided(skipped).stands is skipped
    assert _decided(skipped, widens=True).kind == ANY._replace(gpus=4)
    assert _decided(skipped, skipped, widens=True).stands is skipped


def test_errors_of_the_network_are_counted_by_themselves_and_tried_anywhere_after_a_pause() -> None:
    cut = _attempt("gw0", *FAILED, error=GpuError("network", "ReadTimeout: timed out"), gpus="0")
    sick = _attempt("gw1", *FAILED, error=ERROR, gpus="1")
    assert _decided(cut).stands is cut
    assert _decided(cut, network=2) == Retry(3, 0.5, ANY, pause=1)
    assert _decided(cut, cut, network=2) == Retry(3, 0.5, ANY, pause=2)
    assert _decided(cut, *[cut] * 9, network=10).pause == 60
    assert _decided(cut, cut, cut, network=2).stands is cut
    assert _decided(cut, sick, network=1).pause == 1
    # What it met on other GPUs says nothing of those that it had when the network failed.
    assert _decided(sick, cut, network=1) == Retry(3, 0.5, ANY._replace(avoid=frozenset({"/1"})))


CUT = GpuError("network", "ReadTimeout: timed out")


@pytest.mark.parametrize("outcome", ["skipped", "passed"])
def test_after_a_network_error_the_last_attempt_is_the_verdict_even_if_it_is_a_skip(
    outcome: Any,
) -> None:
    """After a GPU error a skip says that no GPU was found, which is no verdict."""
    cut, sick = _attempt("gw0", *FAILED, error=CUT), _attempt("gw0", *FAILED, error=ERROR)
    last = _attempt("gw1", ("setup", "passed"), ("call", outcome), ("teardown", "passed"))
    assert verdict_of(last, [cut]).stands is last
    assert verdict_of(last, [sick]).stands is (sick if outcome == "skipped" else last)


def test_an_expected_failure_is_a_verdict() -> None:
    sick = _attempt("gw0", *FAILED, error=ERROR)
    last = _attempt("gw1", ("setup", "passed"), ("call", "skipped"), ("teardown", "passed"))
    last.reports[1].wasxfail = "known"
    assert verdict_of(last, [sick]).stands is last


def test_a_test_that_had_failed_when_the_network_did_is_not_tried_again() -> None:
    phases = (("setup", "passed"), ("call", "failed"), ("teardown", "failed"))
    cut = _attempt("gw0", *phases, error=CUT)
    add_facts(vars(cut.reports[2]), gpu_error=CUT)
    assert _decided(cut, network=2).stands is cut
    add_facts(vars(cut.reports[1]), gpu_error=CUT)
    assert _decided(cut, network=2).kind == ANY
