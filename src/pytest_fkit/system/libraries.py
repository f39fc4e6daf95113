"""The libraries that are loaded in this process."""

from __future__ import annotations

import re

from ..own import own_builtins

own_builtins(globals())


def loaded(pattern: re.Pattern[str]) -> list[str]:
    """Paths of those that match; none where there is no /proc."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            paths = {line.rstrip("\n").partition("/")[2] for line in file if "/" in line}
    except OSError:
        return []
    return sorted(f"/{path}" for path in paths if pattern.search(f"/{path}"))
