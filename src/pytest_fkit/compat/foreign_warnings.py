"""Stands in for warning classes that the controller can't, or should not, import.

xdist sends a warning by the module and name of its class, and gives up on the worker if the
controller can't import that. This module has a class of every name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..own import own_builtins

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
