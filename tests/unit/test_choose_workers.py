"""``-n`` and ``--fkit-workers`` are one knob."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_fkit.config.numprocesses import choose_workers


@pytest.mark.parametrize(
    ("arguments", "workers", "expected"),
    [
        ((), None, 1),
        ((), 3, 3),
        ((), "auto", "auto"),
        (("-n", "2"), None, 2),
        (("-n", "2"), 2, 2),
        (("-n", "0"), None, 0),
        (("--tx", "2*popen"), None, None),
        (("--collect-only",), 3, None),
        (("--fixtures",), None, None),
    ],
)
def test_xdist_gets_the_number(
    pytester: pytest.Pytester, arguments: Any, workers: Any, expected: Any
) -> None:
    config = pytester.parseconfig(*arguments)
    choose_workers(config.option, workers)
    assert config.option.numprocesses == expected


@pytest.mark.parametrize(("given", "workers"), [("2", 3), ("0", 1), ("2", "auto")])
def test_two_numbers_contradict_each_other(
    pytester: pytest.Pytester, given: str, workers: Any
) -> None:
    config = pytester.parseconfig("-n", given)
    with pytest.raises(pytest.UsageError, match="contradict each other"):
        choose_workers(config.option, workers)
