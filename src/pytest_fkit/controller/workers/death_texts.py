"""Reports on deaths, as the process that owns the terminal gets them."""

from __future__ import annotations

from typing import Any

from ...own import own_builtins

own_builtins(globals())


class DeathText(str):
    """The text of a report, with the one-line message that pytest's short summary asks for."""

    __slots__ = ("message",)

    message: str

    @property
    def reprcrash(self) -> DeathText:
        """Pytest takes the message from here."""
        return self


def death_of(report: Any) -> str | None:
    """The headline of a report on a death, None for any other report."""
    if getattr(report, "outcome", None) != "failed":
        return None
    headline = getattr(report, "fkit_death", None)
    return str(headline) if headline is not None else None
