"""What exceptions tell of failures: their own, and those that they came from."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from pytest_fkit.gpu.errors.classification import classify
from pytest_fkit.gpu.errors.failure import Failure, event_of, failure_of, mark_event

_ECC = "CUDA error: uncorrectable ECC error encountered"


class AcceleratorError(RuntimeError):
    """As PyTorch's."""

    def __init__(self, text: str, code: Any) -> None:
        super().__init__(text)
        self.error_code = code


AcceleratorError.__module__ = "torch"


def _raised(error: BaseException, cause: Any = None, handling: BaseException | None = None) -> Any:
    try:
        try:
            if handling is not None:
                raise handling
        finally:
            if cause is None:
                raise error
            raise error from cause
    except BaseException as caught:  # noqa: BLE001 (it is the one that was raised)
        return caught


def _category(error: BaseException) -> str | None:
    found = classify(failure_of(error))
    return None if found is None else found.category


def test_the_names_of_the_classes() -> None:
    assert failure_of(AcceleratorError("it failed", 719)) == Failure(
        ("torch.AcceleratorError", "builtins.RuntimeError", "builtins.Exception",
         "builtins.BaseException", "builtins.object"), "it failed", 719,
    )  # fmt: skip
    assert _category(AcceleratorError("it failed", 719)) == "suspect"


@pytest.mark.parametrize("code", [None, True, "719", 7.19])
def test_what_is_no_number(code: Any) -> None:
    assert failure_of(AcceleratorError("it failed", code)).error_code is None


def test_sources() -> None:
    ecc = RuntimeError(_ECC)
    assert _category(_raised(ValueError("engine"), cause=ecc)) == "device"
    assert _category(_raised(ValueError("engine"), handling=ecc)) == "device"
    assert _category(_raised(KeyError("cleanup"), handling=ecc)) == "device"
    hidden = _raised(ValueError("engine"), handling=ecc)
    hidden.__suppress_context__ = True
    assert _category(hidden) is None
    deep: BaseException = ecc
    for number in range(5):
        deep = _raised(ValueError(str(number)), cause=deep)
    assert _category(deep) == "device"


def test_what_an_assertion_was_made_on() -> None:
    ecc = RuntimeError(_ECC)
    for error in (AssertionError("not fine"), pytest.fail.Exception("no match")):
        assert _category(_raised(error, handling=ecc)) is None
        assert _category(_raised(error, cause=ecc)) == "device"


def test_chains_without_end() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert [link.text for link in failure_of(first).causes] == ["2"]
    link: BaseException = RuntimeError(_ECC)
    for number in range(1000):
        outer = ValueError(str(number))
        outer.__cause__ = link
        link = outer
    assert len(failure_of(link).causes) == 15


def test_groups() -> None:
    class GroupError(Exception):
        exceptions = (ValueError("1"), RuntimeError(_ECC), "no exception")

    assert _category(GroupError("2 sub-exceptions")) == "device"


def test_examples() -> None:
    example = doctest.Example("launch()", "")
    test = doctest.DocTest([example], {}, "name", "file.txt", 1, "")
    ecc = RuntimeError(_ECC)
    assert _category(doctest.UnexpectedException(test, example, (type(ecc), ecc, None))) == "device"  # type: ignore[arg-type]
    assert _category(doctest.DocTestFailure(test, example, _ECC)) is None


def test_an_exception_without_a_message() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert failure_of(BrokenError()).text == ""
    assert len(failure_of(ValueError("x" * 10**6)).text) == 20_000


def test_events() -> None:
    error = ValueError("1")
    assert event_of(error) == ""
    mark_event(error, "first")
    mark_event(error, "second")
    assert event_of(error) == "first"
