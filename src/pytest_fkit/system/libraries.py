"""The libraries that are loaded in this process."""

from __future__ import annotations

import re

from ..own import own_builtins
from .paths import read_lines

own_builtins(globals())


def loaded(pattern: re.Pattern[str]) -> list[str]:
    """Paths of those that match; none where there is no /proc."""
    try:
        lines = read_lines("/proc/self/maps")
    except OSError:
        return []
    paths = {line.partition("/")[2] for line in lines if "/" in line}
    return sorted(f"/{path}" for path in paths if pattern.search(f"/{path}"))
