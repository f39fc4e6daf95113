"""What Python runs at the end of a process, for processes that leave by _exit(2)."""

from __future__ import annotations

import atexit
import sys
import weakref
from typing import Any, cast


def forget_inherited() -> None:
    """In a new process: what was registered before the fork is for the process that did it.

    ``atexit._clear`` and ``atexit._run_exitfuncs`` are what CPython's own tests use, 3.8 to 3.14.
    """
    atexit._clear()
    registry = cast("Any", weakref.finalize)._registry
    for finalizer in list(registry):
        finalizer.atexit = False
    # atexit.register(weakref.finalize._exitfunc) happens once per process image.
    cast("Any", weakref.finalize)._registered_with_atexit = False
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # As multiprocessing.process.BaseProcess._bootstrap does after its own fork.
        cast("Any", util)._finalizer_registry.clear()
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        cast("Any", process)._children.clear()


def run_own() -> None:
    """Run atexit handlers, weakref finalizers and multiprocessing's, as at interpreter exit."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # Its atexit handler was dropped with the inherited ones if it was imported before.
        atexit.unregister(cast("Any", util)._exit_function)
        atexit.register(cast("Any", util)._exit_function)
    atexit._run_exitfuncs()
