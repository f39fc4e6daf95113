"""The journal's format: one JSON object per line, each with the name of its event and two times.

docs/reference/journal.md describes every event. A reader ignores events and fields that it does not
know, as long as the major version is its own; the major version changes when a meaning changes.
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, Sequence

from ..own import own_builtins, time
from ..protocol.event_file import OF_MACHINE

own_builtins(globals())

MAJOR, MINOR = 1, 0
SCHEMA = f"{MAJOR}.{MINOR}"

FORMAT = "pytest-fkit journal"
"""Marks a file as a journal, in its ``run`` events."""

TEXT_LIMIT = 20_000
"""Longest text that is kept whole, in characters."""

Event = Dict[str, Any]

USAGE = (
    "user", "system", "peak_memory", "gpu_peak_memory", "minor_faults", "major_faults", "read",
    "written",
)  # fmt: skip
"""Fields of an ``attempt``: what it used."""

# Pure ASCII, so that lone surrogates and line separators do no harm.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=repr).encode


def now() -> Event:
    """`wall`, in seconds since the epoch, and `mono`, of a clock that never goes back."""
    return {"wall": round(time.time(), 6), "mono": round(time.monotonic(), 6)}


def event(name: str, **fields: object) -> Event:
    return {"event": name, **now(), **fields}


def encode(happened: Event) -> bytes:
    return _encode(happened).encode() + b"\n"


def encode_list(things: Sequence[Event]) -> bytes:
    """The inside of a JSON array; one call of the encoder is cheaper than many."""
    return _encode(things)[1:-1].encode()


def capped(text: str) -> str:
    """The text; if it exceeds TEXT_LIMIT, its middle is replaced by a note."""
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters cut ...]\n{text[-half:]}"


def plain(value: object) -> Any:
    """A value that JSON can hold: numbers, texts and None as they are, the rest as text."""
    if isinstance(value, str):
        return capped(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return capped(hex(value))  # str() refuses integers of many digits
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return capped(str(value))


def is_of_machine(happened: Event) -> bool:
    """Whether the error of an event is the machine's, though it is recorded as a GPU's."""
    return happened["event"] == "gpu_error" and happened.get("category") == OF_MACHINE


def wide_title(step: Event) -> str:
    """What is done to which wide fixture, of a step in an ``attempt`` event."""
    return f"{step['what']}: {step['label']}"


def death_title(attempt: Event) -> str:
    """How the process of an ``attempt`` event ended, as in "SIGSEGV"; "" if as it should."""
    ending = attempt.get("ending", {})
    kind = ending.get("type", "Finished")
    return "" if kind == "Finished" else str(ending.get("title", kind))


def xid_title(xid: Event) -> str:
    """As in "Xid 79 (GPU has fallen off the bus)"."""
    number, name = xid.get("xid", "?"), xid.get("name", "")
    return f"Xid {number} ({name})" if name else f"Xid {number}"
