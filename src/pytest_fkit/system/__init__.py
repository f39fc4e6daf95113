"""What the operating system can do for a process tree: two modules with the same functions.

``FKIT_PORTABLE=1`` in the environment takes the portable one on Linux, too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..own import os, own_builtins

own_builtins(globals())

PORTABLE = not sys.platform.startswith("linux") or os.environ.get("FKIT_PORTABLE", "") == "1"

if TYPE_CHECKING or not PORTABLE:
    from .linux import *  # noqa: F403
else:
    from .portable import *  # noqa: F403

__all__ = [  # noqa: F405
    "PORTABLE", "adopted_children", "anonymous_file", "be_first_for_oom_killer", "become_subreaper",
    "blocked_signals", "catches", "caught_signals", "children", "command_line", "descendants",
    "describe", "die_with_parent", "forget_peak_memory", "free_range", "io_account",
    "io_account_at_end", "let_attach", "must_let_attach", "oom_kills", "process_memory",
    "process_state", "tracer", "tree_memory",
]  # fmt: skip


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; False if that can't be known."""
    return bool(caught_signals(pid) >> number - 1 & 1)  # noqa: F405
