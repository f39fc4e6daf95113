"""Reasons of skips."""

from __future__ import annotations

from typing import Any

from ...own import own_builtins

own_builtins(globals())

_PREFIX = "Skipped: "


def skip_reason(report: Any) -> str:
    """Why a test, or a module, was skipped, from the report on it."""
    told = report.longrepr
    text = str(told[2] if isinstance(told, tuple) else told)
    return text[len(_PREFIX) :] if text.startswith(_PREFIX) else text
