"""The file that shows a report: one page that needs no network, and may not use one."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Sequence

from ..events import Event
from .content import OUTCOMES, RED_OR_UNFINISHED, ReportContent, content
from .packing import packed

HERE = Path(__file__).parent

_SCRIPTS = (
    "vendor/uPlot.iife.min.js", "script/data.js", "script/view.js", "script/timeline.js",
    "script/charts.js", "script/table.js", "script/test.js", "script/main.js",
)  # fmt: skip
_STYLES = ("vendor/uPlot.min.css", "style.css")

MOST_CAUSES = 100
_SHOWN_OF_A_CAUSE = 20
"""Causes, and tests of each, that the page names without its script; the table has them all."""

EXTRA = "pip install 'pytest-forkit[html]'"


class MissingExtraError(Exception):
    def __init__(self) -> None:
        super().__init__(f"an HTML report needs Jinja2: {EXTRA}")


def page(events: Sequence[Event]) -> bytes:
    """The report on these journals.

    :raises MissingExtraError: if it can't be made here.
    """
    try:
        import jinja2
    except ImportError:
        raise MissingExtraError from None
    told = content(events)
    data = packed(told)
    script = "\n".join(_text(name) for name in _SCRIPTS)
    style = "\n".join(_text(name) for name in _STYLES)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(HERE)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template("page.html").render(
        title=_title(told),
        told=told,
        outcomes=[
            (name, told.counts[name])
            for name in (*OUTCOMES, *sorted(told.counts.keys() - set(OUTCOMES)))
            if told.counts.get(name)
        ],
        red=RED_OR_UNFINISHED,
        lanes=told.lane_names(),
        causes=told.causes[:MOST_CAUSES],
        most=_SHOWN_OF_A_CAUSE,
        data=data,
        script=script,
        style=style,
        policy=_policy(script, style),
        licence=_text("vendor/uPlot.LICENSE"),
        count=_count,
    )
    return text.encode("utf-8", "backslashreplace")


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _title(told: ReportContent) -> str:
    if told.red:
        return f"{_count(told.red, 'red test')} of {len(told.tests):,}"
    missing = told.counts.get("not run", 0)
    if missing:
        return f"{missing:,} of {_count(len(told.tests), 'test')} not run"
    return f"{_count(len(told.tests), 'test')}, none red" if told.tests else "No tests"


def _count(number: int, what: str) -> str:
    """As in "1 test" or "12,000 tests"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _policy(script: str, style: str) -> str:
    """Forbids every request, and every script and style but these."""
    hashes = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in (("script", script), ("style", style))
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "base-uri 'none'; form-action 'none'"
    )
