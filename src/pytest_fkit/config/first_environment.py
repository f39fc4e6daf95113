"""The environment as it was before conftest files, of which some clear it."""

from __future__ import annotations

from os import environ

_before: dict[str, str] = {}


def remember_environment() -> None:
    """Keep what is set now; called before conftest files are loaded, in each run of a process."""
    _before.clear()
    _before.update(environ)


def environment() -> dict[str, str]:
    """All variables as they are now, and those that were set before and are gone."""
    return {**_before, **environ}


def variable(name: str) -> str | None:
    """What one is, or was before it was gone; None if it was never set."""
    found = environ.get(name)
    return _before.get(name) if found is None else found
