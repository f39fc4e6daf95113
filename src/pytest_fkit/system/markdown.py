"""Markdown of texts that may contain anything."""

from __future__ import annotations

import re
from typing import Iterator, Sequence

from ..own import own_builtins

own_builtins(globals())


def table(header: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table after an empty one; none without rows.

    :param header: the first line, as in "| test | why |".
    """
    if rows:
        yield from ("", header, "|---" * (header.count("|") - 1) + "|")
        yield from (f"| {' | '.join(row)} |" for row in rows)


def code(text: str) -> str:
    """Text as code in a cell of a table."""
    if not text:
        return ""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    # A space between the ticks and a tick of the text's own; Markdown takes it away again.
    space = " " if "`" in (text[0], text[-1]) else ""
    cell = text.replace("|", "\\|").replace("\n", " ")
    return f"{ticks}{space}{cell}{space}{ticks}"
