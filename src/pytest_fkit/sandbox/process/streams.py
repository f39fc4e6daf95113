"""Python's standard streams, whoever has put something else into their places."""

from __future__ import annotations

import sys

from ...own import own_builtins

own_builtins(globals())


def flush() -> None:
    """Write what is buffered: forked processes have copies of it, and write to the same places."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except Exception:  # noqa: BLE001, S112 (closed, broken, or an object of the suite's own)
            continue
