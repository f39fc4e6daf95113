"""What is said in the text of tracebacks, and what is only shown or quoted there."""

from __future__ import annotations

import re
from typing import Iterable, Iterator

from ...own import own_builtins

own_builtins(globals())

_HEADER = "Traceback (most recent call last):"
# What comes before it on the line is the prefix of a rank, an actor or a logger: `[rank1]: ` of
# PyTorch's workers, `(EngineCore_0 pid=7) ERROR 05-10 16:00:15 [core.py:396] ` of vLLM's. Ray's
# RayTaskError has frames and no header.
_FRAME = re.compile(r'(?P<prefix>[^"]*?)  File "[^"]+", line \d+')
_DIGITS = re.compile(r"\d+")
_EXCEPTION = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Warning|Failed)\b")
_WHAT = re.compile(r"\bwhat\(\): ")  # libstdc++, of an exception that nobody caught

_QUOTING = (
    "AssertionError",
    "AttributeError",
    "CalledProcessError",
    "DocTestFailure",
    "Failed",
    "IndentationError",
    "IndexError",
    "KeyError",
    "LookupError",
    "NameError",
    "SyntaxError",
    "TimeoutExpired",
    "UnboundLocalError",
)
"""Names of exceptions whose messages quote values, keys, names, a command."""

_QUOTED = re.compile(rf"(?:\w+\.)*(?:{'|'.join(_QUOTING)})\b")
_CONTINUED = 8
"""Lines of a message that are looked at where it is not known where it ends."""


def said(text: str) -> str:
    """The text without source lines, frames, and the messages of exceptions that quote."""
    if _HEADER not in text and '  File "' not in text:
        return text
    return "\n".join(line for line, _ in _heard(text.splitlines()))


def raised(output: str) -> Iterator[str]:
    """The messages of exceptions in what processes printed, each with the lines that follow it."""
    message: list[str] = []
    ended = True
    for line, began in _heard(output.splitlines()):
        found = _WHAT.search(line)
        if found or (began and _EXCEPTION.match(line)):
            yield from _joined(message)
            message, ended = [line[found.end() :] if found else line], False
        elif began or not line.strip() or len(message) > _CONTINUED:
            ended = True
        elif not ended:
            message.append(line)
    yield from _joined(message)


def _joined(lines: list[str]) -> Iterator[str]:
    if lines:
        yield "\n".join(lines)


def _heard(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """What is neither shown nor quoted; with each line whether it is the first after frames."""
    heard, inside, first = True, False, False
    prefix: re.Pattern[str] | None = None
    for line in lines:
        frame = _FRAME.match(line)
        if frame or _HEADER in line:
            before = frame["prefix"] if frame else line[: line.index(_HEADER)]
            prefix = _like(before) if before else None
            heard = inside = True
            first = bool(frame)
            continue
        found = prefix.match(line) if prefix is not None else None
        rest = line[found.end() :] if found else line
        if inside and rest[:1].isspace() and not _WHAT.search(rest):
            continue  # a source line, or what marks a place in it
        if _QUOTED.match(rest):
            heard = False
        if heard:
            yield rest, first
        first = False


def _like(prefix: str) -> re.Pattern[str]:
    """The same with other times and numbers."""
    return re.compile(r"\d+".join(re.escape(each) for each in _DIGITS.split(prefix)))
