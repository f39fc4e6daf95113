"""The libraries that are loaded in this process."""

from __future__ import annotations

import re
from typing import Any

from ..own import ctypes, own_builtins, suppress
from .paths import read_lines

own_builtins(globals())


def loaded(pattern: re.Pattern[str]) -> list[str]:
    """Paths of those that match; none where there is no /proc.

    The list of what is mapped is long, so it is read again only after the loader loaded something.
    What was unloaded since may be among them.
    """
    loads = _loads()
    known = _found.get(pattern)
    if known is None or loads is None or known[0] != loads:
        known = _found[pattern] = loads, _mapped(pattern)
    return known[1]


_found: dict[re.Pattern[str], tuple[int | None, list[str]]] = {}


def _mapped(pattern: re.Pattern[str]) -> list[str]:
    try:
        lines = read_lines("/proc/self/maps")
    except OSError:
        return []
    paths = {line.partition("/")[2] for line in lines if "/" in line}
    return sorted(f"/{path}" for path in paths if pattern.search(f"/{path}"))


def _loads() -> int | None:
    """How many libraries the loader has loaded so far, None where it does not say."""
    if _iterate is None:
        return None
    del _counts[:]
    _iterate(_note, None)
    return _counts[0] if _counts else None


# dl_iterate_phdr(3), by which the first library tells how many there were.
_AT = 32
"""Offset in bytes of ``dlpi_adds`` in ``struct dl_phdr_info``, where pointers have eight."""

_counts: list[int] = []
_iterate: Any = None
_note: Any = None

with suppress(Exception):  # no such function; or no memory may be executed that is written to

    def _take_count(info: int, size: int, data: object) -> int:
        del data
        if size >= _AT + 8:
            _counts.append(ctypes.c_ulonglong.from_address(info + _AT).value)
        return 1  # one is enough

    if ctypes.sizeof(ctypes.c_void_p) == 8:
        _kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        _note = _kind(_take_count)
        # The GIL is kept: another thread that loads something could wait for it with the loader's
        # lock.
        _iterate = ctypes.PyDLL(None).dl_iterate_phdr
        _iterate.argtypes = (_kind, ctypes.c_void_p)
