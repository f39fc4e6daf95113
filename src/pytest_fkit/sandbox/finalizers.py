"""What Python runs at the end of a process, for processes that leave by _exit(2)."""

from __future__ import annotations

import sys
import weakref
from typing import Any, cast

from ..own import atexit, os, own_builtins, suppress, time

own_builtins(globals())

_TRACKER_WAIT = 1.0
"""Seconds; a process that the test left running may hold the pipe."""

_EXECUTORS = (
    "concurrent.futures.process",
    # A descendant of the former, with the same names in it.
    "loky.process_executor",
    "joblib.externals.loky.process_executor",
)

_TRACKERS = (
    "multiprocessing.resource_tracker",
    "loky.backend.resource_tracker",
    "joblib.externals.loky.backend.resource_tracker",
)

_inherited_trackers: set[int] = set()


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
    for executors in _loaded(_EXECUTORS):
        executors._threads_wakeups.clear()
    _inherited_trackers.update(tracker._pid for tracker in _trackers())


def run_own() -> None:
    """Run atexit handlers, weakref finalizers and multiprocessing's, as at interpreter exit.

    Threads are not waited for, other than at interpreter exit.
    """
    for executors in _loaded(_EXECUTORS):
        # Before multiprocessing waits for their processes, which nobody would tell to end.
        executors._python_exit()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        atexit.unregister(cast("Any", util)._exit_function)
    _run_exit_handlers()
    if util is not None:
        # Last, as it was imported first. Its handler may be gone with the inherited ones.
        atexit.register(cast("Any", util)._exit_function)
        _run_exit_handlers()
    for tracker in _trackers():
        if tracker._pid not in _inherited_trackers:
            _end_resource_tracker(tracker)


def _run_exit_handlers() -> None:
    try:
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 (Python 3.8 and 3.9 print all and raise the last again)
        return


def _loaded(names: tuple[str, ...]) -> list[Any]:
    return [sys.modules[name] for name in names if name in sys.modules]


def _trackers() -> list[Any]:
    """The resource trackers that were started, here or before the fork."""
    found = [module._resource_tracker for module in _loaded(_TRACKERS)]
    return [tracker for tracker in found if tracker._pid is not None]


def _end_resource_tracker(tracker: Any) -> None:
    """Let a resource tracker clean up, which it does when nobody holds its pipe."""
    with suppress(OSError):  # closed by the test
        os.close(tracker._fd)
    deadline = time.monotonic() + _TRACKER_WAIT
    while time.monotonic() < deadline:
        try:
            if os.waitpid(tracker._pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:  # the test waited for it, or SIGCHLD is ignored
            return
        time.sleep(0.001)
