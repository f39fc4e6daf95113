"""From pytest's reports on a test to what a journal keeps of them, and to the verdict."""

from __future__ import annotations

from typing import Any, Dict, Sequence

from ..own import own_builtins
from .events import capped, plain

own_builtins(globals())

Kept = Dict[str, Any]
"""A report as a journal has it: see README.md."""

_OURS = ("fkit_death", "fkit_worker", "fkit_leftovers", "fkit_gpu_memory", "fkit_shared")


def kept(report: Any) -> Kept:
    """What a journal keeps of a report; an empty field is left out."""
    found: Kept = {
        "when": report.when,
        "outcome": report.outcome,
        "duration": round(report.duration, 6),
    }
    start = getattr(report, "start", 0.0)
    if start:
        found["start"] = round(start, 6)
    if report.longrepr:
        _keep_reason(found, report)
    if report.sections:
        found["sections"] = [[name, capped(text)] for name, text in report.sections]
    if report.user_properties:
        found["properties"] = [[str(name), plain(it)] for name, it in report.user_properties]
    if hasattr(report, "wasxfail"):
        found["xfail"] = str(report.wasxfail)
    if getattr(report, "rerun", 0):
        found["rerun"] = report.rerun
    for name in _OURS:
        if hasattr(report, name):
            found[name] = getattr(report, name)
    return found


def _keep_reason(found: Kept, report: Any) -> None:
    if isinstance(report.longrepr, tuple):
        path, line, reason = report.longrepr
        number = line if isinstance(line, int) else None
        found["skip"] = [str(path), number, capped(str(reason))]
        return
    found["text"] = capped(str(report.longrepr))
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        found["message"] = capped(str(crash.message))


def verdict(reports: Sequence[Kept]) -> str:
    """One word for all reports on a test.

    "error" (in setup or teardown, or the test's process died), "failed", "skipped", "xfailed",
    "xpassed" or "passed"; the first of these that one of the reports says. Reports of a run that
    another plugin repeated have outcomes of their own and don't count. A test that passed says so
    of its call: without that, something was lost, and it is an "error".
    """
    said = {_word(report) for report in reports}
    words = ("error", "failed", "xfailed", "xpassed", "skipped")
    otherwise = "passed" if is_whole(reports) else "error"
    return next((word for word in words if word in said), otherwise)


def is_whole(reports: Sequence[Kept]) -> bool:
    """Whether one of these says how the test ended: of its call, or that something went wrong."""
    return any(
        report["outcome"] != "rerun"
        and (report["when"] not in ("setup", "teardown") or report["outcome"] != "passed")
        for report in reports
    )


def _word(report: Kept) -> str:
    outcome = str(report["outcome"])
    if outcome == "failed":
        return "failed" if report["when"] == "call" and "fkit_death" not in report else "error"
    if "xfail" in report and outcome in ("skipped", "passed"):
        return "xfailed" if outcome == "skipped" else "xpassed"
    return outcome


def message(reports: Sequence[Kept]) -> str:
    """The one-line reason of the verdict, "" where there is none."""
    for report in reports:
        if report["outcome"] == "failed":
            text = report.get("fkit_death") or report.get("message") or report.get("text", "")
            return str(text).partition("\n")[0]
    for report in reports:
        if "skip" in report or "xfail" in report:
            return str(report["skip"][2] if "skip" in report else report["xfail"])
    return ""
