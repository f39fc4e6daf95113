from __future__ import annotations

import builtins
import re
import traceback

import pytest

from pytest_fkit.system.stack_texts import stack_text


class OwnError(Exception):
    def __str__(self) -> str:
        if self.args:
            return str(self.args[0])
        raise RuntimeError


def _raise(kind: str) -> None:
    if kind == "plain":
        raise OwnError("text")
    try:
        _raise("plain")
    except OwnError as error:
        if kind == "cause":
            raise ValueError from error
        if kind == "hidden":
            raise KeyError("key") from None
        raise KeyError("key")  # noqa: B904


@pytest.mark.parametrize("kind", ["plain", "cause", "context", "hidden"])
def test_it_says_what_traceback_says(kind: str) -> None:
    with pytest.raises((OwnError, ValueError, KeyError)) as raised:
        _raise(kind)
    error = raised.value
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # Python 3.11 marks parts of lines.
    assert f"{stack_text(error)}\n" == re.sub(r"^ *[~^]+\n", "", text, flags=re.MULTILINE)


def test_an_error_that_led_to_itself_is_told_once() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert stack_text(one).count("ValueError: one") == 1


def test_what_has_no_text_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "open", None)
    assert stack_text(OwnError()).endswith("OwnError: <exception str() failed>")
