"""Reads the answers of tools, libraries and the kernel about GPUs, trusting none of them."""

from __future__ import annotations

import json
import re
from typing import Any, Dict

from ..own import own_builtins

own_builtins(globals())

Answer = Dict[str, Any]
"""What a tool, a library or the kernel says of one thing."""


class MissingError(Exception):
    """A tool, library or file is absent, which is nobody's fault. The text says which."""


class FailedError(Exception):
    """A tool or library is there and did not work: it hung, crashed, or printed rubbish.

    The text says how.

    :param printed: the output of a program that left with a status other than 0.
    :param lost: PCI addresses of GPUs that it can't reach: no other way is to bring them back.
    """

    def __init__(self, text: str, printed: str = "", lost: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.printed = printed
        self.lost = lost


# Not "[WARNING] …".
_JSON = re.compile(r"^\s*(?:\{|\[(?=\s*(?:[\[{\]\"\d]|$)))", re.MULTILINE)

_PCI = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)


def load_json(text: str) -> Any:
    """The JSON in a tool's output, which may have lines for people before and after it.

    :raises FailedError: if there is none.
    """
    start = _JSON.search(text)
    try:
        found, end = json.JSONDecoder().raw_decode(text, start.end() - 1 if start else 0)
    except (ValueError, RecursionError):
        raise rubbish(text) from None
    if text[end:].partition("\n")[0].strip():  # it goes on in the same line
        raise rubbish(text)
    return found


def rubbish(text: str) -> FailedError:
    """The failure of a program whose output is not what its documentation says."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return FailedError(f"what it prints can't be understood: {line[:80]!r}")


def mappings(value: object) -> list[Answer]:
    """The dicts in a list; nothing from anything else."""
    if not isinstance(value, list):
        return []
    return [entry for entry in value if isinstance(entry, dict)]


def only_mappings(value: object) -> list[Answer]:
    """The dicts in a list that has nothing else.

    :raises FailedError: if it is not such a list.
    """
    found = mappings(value)
    if not isinstance(value, list) or len(found) != len(value):
        raise rubbish(str(value))
    return found


def mapping(value: object) -> Answer:
    """A dict; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def word(value: object) -> str:
    """A text for people or for a mask; "" for anything else and for what says "not available"."""
    text = value.strip() if isinstance(value, str) else ""
    return "" if text.strip("[]").upper() in ("N/A", "NOT SUPPORTED", "UNKNOWN ERROR") else text


def number(value: object) -> int | None:
    """A non-negative number below 2**63, from an int or its decimal text; else None."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value.strip()):
        value = int(value.strip())  # int() takes fewer characters for white space
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        return None
    return value


def pci_address(value: object) -> str:
    """A PCI address in the form "0000:41:00.0", from any form that tools print; else ""."""
    match = _PCI.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return ""
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function}".lower()


def addresses(value: object) -> tuple[str, ...]:
    """The PCI addresses in a list; nothing from anything else."""
    found = map(pci_address, value) if isinstance(value, list) else ()
    return tuple(address for address in found if address)


def pci_order(address: str) -> tuple[int, str]:
    """A sort key for addresses as :func:`pci_address` gives them; domains may have more digits."""
    return len(address), address
