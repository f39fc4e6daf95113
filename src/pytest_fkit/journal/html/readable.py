"""Texts of tests, such that a reader sees all that is in them and nothing that is not."""

from __future__ import annotations

import re

from ...own import own_builtins, zlib

own_builtins(globals())

NAME_LIMIT = 300
"""Longest name of a test, and longest reason, that lists show whole, in characters."""

_TERMINAL_CODES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)

# Controls, marks that turn the direction of text, lone surrogates, what has no width. Not the
# joiners U+200C and U+200D, which belong to words and emoji.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff]"
)


def readable(text: str) -> str:
    """The text without codes for terminals; what can't be seen is escaped, as in U+202E."""
    if text.isascii() and text.isprintable():
        return text
    text = _TERMINAL_CODES.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSEEN.sub(_escaped, text)


def readable_name(nodeid: str) -> str:
    """The name of a test in one line; a long one loses its middle, and stays different."""
    name = readable(nodeid).replace("\n", "\\n").replace("\t", "\\t")
    if len(name) <= NAME_LIMIT:
        return name
    number = zlib.crc32(nodeid.encode("utf-8", "surrogatepass"))
    return f"{name[: NAME_LIMIT - 60]}[… {number:08x} …]{name[-40:]}"


def readable_line(text: str) -> str:
    """The first line of a text, cut if it is long."""
    line = readable(text.partition("\n")[0])
    return line if len(line) <= NAME_LIMIT else f"{line[: NAME_LIMIT - 1]}…"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
