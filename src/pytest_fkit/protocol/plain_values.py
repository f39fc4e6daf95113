"""Values in types that marshal and execnet carry from process to process."""

from __future__ import annotations

from typing import Any, Collection, cast

from ..own import os, own_builtins
from .event_file import ReportFacts

own_builtins(globals())

_DEEPEST = 50
_CARRIED = frozenset({type(None), bool, int, float, complex, bytes, ReportFacts})


def carriable(value: Any, _depth: int = 0) -> Any:
    """`value` in the types of execnet's serialiser, and our own in a report.

    Lone surrogates become backslash escapes, subclasses of built-in types these, paths strings, and
    everything else its ``repr``.
    """
    kind = type(value)
    if kind in _CARRIED or (kind is str and value.isascii()):
        return value
    if kind is str:
        return _plain_text(value)
    if _depth > _DEEPEST:
        return "..."
    below = _depth + 1
    # Without a call for most of it, since every report passes through here.
    if isinstance(value, dict):
        return {
            key if type(key) is str and key.isascii() else carriable(key, below): item
            if type(item) in _CARRIED or (type(item) is str and item.isascii())
            else carriable(item, below)
            for key, item in value.items()
        }
    if isinstance(value, (set, frozenset)):
        return _carried_set(value, below)
    if isinstance(value, (list, tuple)):
        carried = [
            item
            if type(item) in _CARRIED or (type(item) is str and item.isascii())
            else carriable(item, below)
            for item in value
        ]
        return carried if isinstance(value, list) else tuple(carried)
    return _converted(value)


def _carried_set(value: Collection[object], depth: int) -> object:
    kind = set if isinstance(value, set) else frozenset
    try:
        return kind([carriable(item, depth) for item in value])
    except TypeError:  # of a subclass of list that can be hashed, for example
        return _converted(value)


def _plain_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _converted(value: object) -> Any:
    for kind in (int, float, complex, str, bytes):
        if isinstance(value, kind):
            # Not kind(value), which calls __str__ and the like of the subclass.
            arguments = cast("Any", kind).__getnewargs__(value)
            base = kind(*arguments)
            return _plain_text(base) if isinstance(base, str) else base
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return _plain_text(path) if isinstance(path, str) else path
    try:
        return _plain_text(repr(value))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (a user's __repr__ may raise anything)
        return f"<unpresentable {type(value).__name__}: {type(error).__name__}>"
