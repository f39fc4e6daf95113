"""What Python runs at the end of a process, for processes that leave by _exit(2)."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import weakref
from typing import Any, cast

_TRACKER_WAIT = 1.0
"""Seconds; a process that the test left running may hold the pipe."""

_inherited_trackers: list[int | None] = []


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

    executors = sys.modules.get("concurrent.futures.process")
    if executors is not None:
        cast("Any", executors)._threads_wakeups.clear()
    _inherited_trackers.append(_tracker_pid())


def run_own() -> None:
    """Run atexit handlers, weakref finalizers and multiprocessing's, as at interpreter exit.

    Threads are not waited for, other than at interpreter exit.
    """
    executors = sys.modules.get("concurrent.futures.process")
    if executors is not None:
        # Before multiprocessing waits for their processes, which nobody would tell to end.
        cast("Any", executors)._python_exit()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        atexit.unregister(cast("Any", util)._exit_function)
    _run_exit_handlers()
    if util is not None:
        # Last, as it was imported first. Its handler may be gone with the inherited ones.
        atexit.register(cast("Any", util)._exit_function)
        _run_exit_handlers()
    _end_resource_tracker()


def _run_exit_handlers() -> None:
    try:
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 (Python 3.8 and 3.9 print all and raise the last again)
        return


def _tracker() -> Any:
    module = sys.modules.get("multiprocessing.resource_tracker")
    return getattr(module, "_resource_tracker", None)


def _tracker_pid() -> int | None:
    return getattr(_tracker(), "_pid", None)


def _end_resource_tracker() -> None:
    """Let multiprocessing's resource tracker clean up, which it does when nobody holds its pipe."""
    pid = _tracker_pid()
    if pid is None or pid in _inherited_trackers:
        return
    with contextlib.suppress(OSError):  # closed by the test
        os.close(_tracker()._fd)
    deadline = time.monotonic() + _TRACKER_WAIT
    while time.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:  # the test waited for it, or SIGCHLD is ignored
            return
        time.sleep(0.001)
