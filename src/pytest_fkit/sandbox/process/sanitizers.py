"""Reports of sanitizers that a test printed and survived."""

from __future__ import annotations

from typing import Any

from ...own import os, own_builtins, own_imports
from ...protocol.event_file import add_facts
from ...protocol.plain_values import carriable

own_builtins(globals())

_WORDS = ("Sanitizer: ", ": runtime error: ", "\n==")


def look_for_sanitizers(report: Any, fails: bool) -> None:
    """Name what sanitizers have said in the phase, on descriptor 2 as pytest captured it.

    :param fails: whether a phase fails by that which passed.
    """
    title = f"Captured stderr {report.when}"
    text = "\n".join(["", *(content for name, content in report.sections if name == title)])
    if not any(word in text for word in _WORDS):
        return
    try:
        with own_imports():
            from ...system.diagnostics import sanitizer_reports
    except Exception:  # noqa: BLE001 (the test has changed how modules are imported)
        return
    found = sanitizer_reports(text, os.getpid())
    if not found:
        return
    add_facts(vars(report), sanitizers=carriable(tuple(found)))
    if fails and report.outcome == "passed" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = (
            f"{'; '.join(found)}, said a sanitizer, see the captured stderr "
            "(ini value fkit_sanitizer_reports = fail)"
        )
