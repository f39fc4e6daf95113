"""A failure, as plugins are asked about it: what an exception, or a skip, tells."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from ...named_tuple import NamedTuple
from ...own import own_builtins, subprocess, suppress

own_builtins(globals())

_LINKS = 16
_CHARACTERS = 20_000

_EVENT = "_pytest_fkit_event"
_PRINTED = "_pytest_fkit_printed"
_PRINTED_CHARACTERS = 400_000


class Failure(NamedTuple):
    """A phase of a test that did not pass.

    :param types: names of the exception's class and its bases, in the order of the MRO, as in
        "torch.OutOfMemoryError"; empty where there was no exception.
    :param text: the exception's message, or the reason of a skip.
    :param error_code: of a torch.AcceleratorError (PyTorch 2.8 on): the runtime's number.
    :param death: whether the test process died.
    :param stderr: what reached descriptor 2 of a process that died.
    :param skip: whether the test was skipped.
    :param printed: the output of the test, or of a subprocess that failed, where the exception only
        points there.
    :param causes: the exceptions from which this one was raised, or while it was handled.
    :param status: of the HTTP response that the exception reports.
    """

    types: tuple[str, ...] = ()
    text: str = ""
    error_code: int | None = None
    death: bool = False
    stderr: str = ""
    skip: bool = False
    printed: str = ""
    causes: tuple[Failure, ...] = ()
    status: int | None = None


def failure_of(error: BaseException) -> Failure:
    """The exception and those that it came from, the nearest first.

    Not the one during whose handling an assertion failed, which only looked at it.
    """
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < _LINKS:
        link = waiting.pop(0)
        if not any(link is each for each in found):
            found.append(link)
            waiting += _sources(link)
    first, *others = (_failure(link) for link in found)
    return first._replace(causes=tuple(others))


def _failure(error: BaseException) -> Failure:
    return Failure(
        tuple(f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__),
        _message(error),
        _error_code(error),
        printed=_printed(error),
        status=_status(error),
    )


def _printed(error: BaseException) -> str:
    """The output of the subprocess whose end the exception reports."""
    if not isinstance(error, subprocess.SubprocessError):
        return ""
    parts = (getattr(error, name, None) for name in ("stdout", "stderr"))
    texts = (each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in parts)
    return "\n".join(each for each in texts if isinstance(each, str))[-_PRINTED_CHARACTERS:]


def _sources(error: BaseException) -> Iterator[BaseException]:
    looked_at = isinstance(error, (AssertionError, pytest.fail.Exception))
    if error.__cause__ is not None:
        yield error.__cause__
    elif error.__context__ is not None and not error.__suppress_context__ and not looked_at:
        yield error.__context__
    members: Any = getattr(error, "exceptions", None)  # of an exception group, or a backport's
    if isinstance(members, (tuple, list)):
        yield from (each for each in members if isinstance(each, BaseException))
    example: Any = getattr(error, "exc_info", None)  # of doctest.UnexpectedException
    if isinstance(example, tuple) and len(example) == 3 and isinstance(example[1], BaseException):
        yield example[1]


def _message(error: BaseException) -> str:
    try:
        return str(error)[:_CHARACTERS]
    except Exception:  # noqa: BLE001 (a user's __str__ may raise anything)
        return ""


def _error_code(error: BaseException) -> int | None:
    code = getattr(error, "error_code", None)
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _status(error: BaseException) -> int | None:
    """The HTTP status in an exception of requests, httpx and what builds on them, or its own."""
    try:
        response: Any = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if response is None:
            names = (f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__)
            attribute = next((_OWN_STATUS[name] for name in names if name in _OWN_STATUS), "")
            status = getattr(error, attribute, None)
    except Exception:  # noqa: BLE001 (a property of a user's class may raise anything)
        return None
    return status if type(status) is int and 100 <= status < 600 else None


_OWN_STATUS = {
    "urllib.error.HTTPError": "code",
    "aiohttp.client_exceptions.ClientResponseError": "status",
}
"""The attribute that has it, by the name of the class."""


def mark_event(error: BaseException, event: str) -> None:
    """Mark an exception that pytest caches with its fixture, to count its failures as one event."""
    with suppress(AttributeError, TypeError):  # its class has no room for it
        if not event_of(error):
            setattr(error, _EVENT, event)


def event_of(error: BaseException) -> str:
    """The mark of :func:`mark_event`, else ""."""
    return str(getattr(error, _EVENT, ""))


def keep_printed(error: BaseException, printed: str) -> str:
    """The output when it was raised first; pytest raises a fixture's exception for each test."""
    kept = getattr(error, _PRINTED, None)
    if isinstance(kept, str):
        return kept
    with suppress(AttributeError, TypeError):
        setattr(error, _PRINTED, printed[-_PRINTED_CHARACTERS:])
    return printed


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test, or a module, was skipped, from the report on it."""
    told = report.longrepr
    text = str(told[2] if isinstance(told, tuple) else told)
    return text[len("Skipped: ") :] if text.startswith("Skipped: ") else text
