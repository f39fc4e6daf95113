"""Warnings that test processes recorded, made again."""

from __future__ import annotations

import sys

from ...compat.foreign_warnings import stand_in
from ...own import own_builtins
from ...protocol.event_file import WarningRecorded

own_builtins(globals())


def warning_again(message: WarningRecorded) -> Warning:
    """The warning again, of its own class where that can be made to say the same."""
    category = _warning_class(*message.category)
    if message.args is not None:
        try:
            again = category(*message.args)
            if str(again) == message.text:
                return again
        except Exception:  # noqa: BLE001 (a user's __init__ or __str__ may raise anything)
            return stand_in(category.__name__)(message.text)
    return stand_in(category.__name__)(message.text)


def _warning_class(module: str, qualname: str) -> type[Warning]:
    found: object = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    if isinstance(found, type) and issubclass(found, Warning):
        return found
    return stand_in(qualname.rpartition(".")[2])  # made inside a function, or imported by the test
