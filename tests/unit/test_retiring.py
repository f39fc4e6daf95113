from __future__ import annotations

from typing import Any

import pytest

from pytest_fkit.controller.retry.trust import SliceTrust
from pytest_fkit.protocol.event_file import GpuError

ERROR = GpuError("suspect", "unspecified launch failure", counts=True)


def _slices(*workers: str, after: int = 3) -> SliceTrust:
    slices = SliceTrust(after)
    for worker in workers:
        slices.add(worker)
    return slices


def _meet(slices: SliceTrust, worker: str, tests: range, error: GpuError = ERROR) -> None:
    for test in tests:
        slices.error(worker, test, error, certain=False)


def test_errors_count_when_their_tests_pass_elsewhere() -> None:
    slices = _slices("gw0", "gw1")
    _meet(slices, "gw0", range(5))
    assert slices.to_retire() == []
    slices.resolve(0, everywhere=False)
    slices.resolve(1, everywhere=False)
    assert slices.to_retire() == []
    slices.resolve(2, everywhere=False)
    reason = "3 GPU errors in a row, the last: unspecified launch failure"
    assert slices.to_retire() == [("gw0", reason)]
    assert slices.is_retired("gw0")
    assert slices.to_retire() == []


def test_errors_of_tests_that_break_everywhere_count_for_nobody() -> None:
    slices = _slices("gw0", "gw1")
    _meet(slices, "gw0", range(9))
    for test in range(9):
        slices.resolve(test, everywhere=True)
    assert slices.to_retire() == []


def test_a_test_that_ends_well_ends_the_row() -> None:
    slices = _slices("gw0", "gw1")
    _meet(slices, "gw0", range(2))
    slices.resolve(0, everywhere=False)
    slices.resolve(1, everywhere=False)
    slices.ended("gw0")
    slices.error("gw0", 2, ERROR, certain=True)
    assert slices.to_retire() == []


def test_one_error_of_a_cached_fixture_is_one_event() -> None:
    slices = _slices("gw0", "gw1")
    cached = GpuError("suspect", "text", counts=True, event="model")
    for test in range(5):
        slices.error("gw0", test, cached, certain=True)
    assert slices.to_retire() == []


def test_what_does_not_count_does_not_count() -> None:
    slices = _slices("gw0", "gw1")
    for test in range(5):
        slices.error("gw0", test, GpuError("memory", "text"), certain=True)
    assert slices.to_retire() == []


@pytest.mark.parametrize(("after", "number"), [(1, 1), (0, 50)])
def test_the_number_is_the_users(after: int, number: int) -> None:
    slices = _slices("gw0", "gw1", after=after)
    for test in range(number):
        slices.error("gw0", test, ERROR, certain=True)
    assert len(slices.to_retire()) == (1 if after else 0)


def test_the_last_worker_stays() -> None:
    slices = _slices("gw0", "gw1")
    assert slices.retire("gw0")
    assert not slices.retire("gw1")
    slices.remove("gw0")
    assert not slices.retire("gw1")


def test_who_is_retired_comes_back_when_nobody_else_is_left() -> None:
    slices = _slices("gw0", "gw1", "gw2")
    slices.retire("gw1")
    slices.retire("gw2")
    assert slices.only_retired() == []
    slices.remove("gw0")
    assert slices.only_retired() == ["gw1", "gw2"]
    slices.readmit("gw1")
    assert slices.only_retired() == []
    assert not slices.is_retired("gw1")


@pytest.mark.parametrize(
    ("answers", "back"),
    [
        (["healthy"], False),
        (["healthy", "healthy"], True),
        (["healthy", "sick", "healthy"], False),
        (["healthy", "unknown", "healthy"], True),
        (["unknown"] * 5, False),
    ],
)
def test_two_healthy_probes_in_a_row_bring_a_worker_back(answers: Any, back: bool) -> None:
    slices = _slices("gw0", "gw1")
    slices.retire("gw0")
    assert [slices.probed("gw0", answer) for answer in answers][-1] is back
    assert slices.is_retired("gw0") is not back


def test_a_slice_is_in_doubt_while_its_errors_may_retire_it() -> None:
    slices = _slices("gw0", "gw1")
    _meet(slices, "gw0", range(2))
    assert not slices.in_doubt("gw0")
    _meet(slices, "gw0", range(2, 3))
    assert slices.in_doubt("gw0")
    assert slices.open_errors("gw0") == [0, 1, 2]
    slices.resolve(1, everywhere=True)
    assert not slices.in_doubt("gw0")
    _meet(slices, "gw0", range(3, 4))
    slices.retire("gw1")
    assert not slices.in_doubt("gw0")  # it is the last one
    assert not _slices("gw0", "gw1", after=0).in_doubt("gw0")


def test_what_is_known_of_gpus_stays_known_when_their_worker_is_replaced() -> None:
    slices = SliceTrust(3)
    slices.add("gw0", "place")
    slices.add("gw1", "another")
    _meet(slices, "gw0", range(3))
    slices.remove("gw0", "place")
    slices.resolve(0, everywhere=False)
    slices.add("gw2", "place")
    assert slices.in_doubt("gw2")
    slices.resolve(1, everywhere=False)
    slices.resolve(2, everywhere=False)
    assert [worker for worker, _ in slices.to_retire()] == ["gw2"]


def test_who_has_not_shown_that_its_gpus_work_is_suspect() -> None:
    slices = _slices("gw0", "gw1", "gw2")
    assert slices.suspects() == {"gw0", "gw1", "gw2"}
    for worker in ("gw0", "gw1"):
        slices.ended(worker)
    assert slices.suspects() == {"gw2"}
    _meet(slices, "gw0", range(1))
    slices.suspect("gw1")
    assert slices.suspects() == {"gw0", "gw1", "gw2"}


def test_an_error_of_a_cached_fixture_may_become_certain() -> None:
    slices = _slices("gw0", "gw1", after=1)
    cached = GpuError("suspect", "text", counts=True, event="model")
    slices.error("gw0", 0, cached, certain=False)
    assert slices.to_retire() == []
    slices.error("gw0", 0, cached, certain=True)
    assert [worker for worker, _ in slices.to_retire()] == ["gw0"]
