"""The reference of options, for the documentation."""

from __future__ import annotations

from typing import Iterator

from .options import COMMAND_LINE, INI, MARK, OPTIONS, Option

HEAD = ("option", "ini value", "mark", "default", "meaning")


def markdown() -> str:
    """All options, ini values and arguments of ``pytest.mark.fkit``, as one table."""
    lines = [HEAD, ("---",) * len(HEAD), *map(_cells, OPTIONS)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(option: Option) -> tuple[str, ...]:
    return (
        ", ".join(f"`{text}`" for text in _spellings(option)),
        f"`{option.name}`" if INI in option.where else "",
        f"`fkit({option.setting}=…)`" if MARK in option.where else "",
        option.default_text,
        "; ".join([_escaped(option.help), *option.notes]),
    )


def _spellings(option: Option) -> Iterator[str]:
    if COMMAND_LINE in option.where:
        yield option.flag + (f"={_escaped(option.metavar)}" if option.metavar else "")
        if option.negation:
            yield option.negation


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
