"""Which of several attempts is the verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_fkit.controller.retry.retries import Attempt, Retries
from pytest_fkit.controller.retry.retries import verdict as verdict_of
from pytest_fkit.controller.schedule.units import ANY
from pytest_fkit.protocol.border import ItemComplete, Reported
from pytest_fkit.protocol.event_file import GpuError

ERROR = GpuError("suspect", "unspecified launch failure")


def _attempt(name: str, *phases: tuple[Any, Any], error: GpuError | None = None) -> Attempt:
    node = SimpleNamespace(
        gateway=SimpleNamespace(id=name, spec=None),
        workerinput={},
    )
    reports = [
        Reported(0, pytest.TestReport("test_it", ("", 0, ""), {}, outcome, None, when))
        for when, outcome in phases
    ]
    return Attempt(node, (), reports, ItemComplete(0, 0.0), error)


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
