"""Stands in for warning classes that the controller can't, or should not, import.

xdist sends a warning by the module and name of its class, and gives up on the worker if the
controller can't import that. This module has a class of every name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..own import own_builtins
from ..protocol.event_file import WarningRecorded

if TYPE_CHECKING:
    import warnings

own_builtins(globals())

_EVERYWHERE = ("builtins", "pytest", "_pytest")

_made: dict[str, type[Warning]] = {}


def stand_in(name: str) -> type[Warning]:
    """The class of that name in this module."""
    if name not in _made:
        _made[name] = type(name, (Warning,), {"__module__": __name__})
    return _made[name]


def __getattr__(name: str) -> type[Warning]:
    if name.startswith("__"):
        raise AttributeError(name)
    return stand_in(name)


def make_portable(warning_message: warnings.WarningMessage) -> None:
    """Replace classes in a ``warnings.WarningMessage`` that not every process has."""
    text = str(warning_message.message)
    if not _is_everywhere(warning_message.category):
        warning_message.category = stand_in(warning_message.category.__name__)
    if not _is_everywhere(type(warning_message.message)):
        warning_message.message = stand_in(type(warning_message.message).__name__)(text)


def _is_everywhere(found: type[object]) -> bool:
    return found.__module__.partition(".")[0] in _EVERYWHERE or found.__module__ == __name__


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
