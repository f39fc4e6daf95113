"""The environment before conftest files ran, of which some clear it."""

from __future__ import annotations

from os import environ

_before: dict[str, str] = {}


def remember_environment() -> None:
    """Keep what is set now; before conftest files are loaded, at each run in this process."""
    _before.clear()
    _before.update(environ)


def environment() -> dict[str, str]:
    """All variables as they are now, and those that were set before and are gone."""
    return {**_before, **environ}


def variable(name: str) -> str | None:
    """The value of one, or the one that it had before it was gone; None if it never had any."""
    found = environ.get(name)
    return _before.get(name) if found is None else found
