"""Runs Python's exit handlers in processes that end by _exit(2)."""

from __future__ import annotations

import sys
import weakref
from typing import Any, cast

from ...own import atexit, os, own_builtins, suppress, time

own_builtins(globals())

_HELPER_WAIT = 1.0
"""Seconds to wait for a helper to exit; a process that the test left may hold its pipe open."""

_MULTIPROCESSING = "multiprocessing"
"""The package that all modules below are part of, or import."""

_EXECUTORS = (
    "concurrent.futures.process",
    # Loky's derives from the former, and has the same private names.
    "loky.process_executor",
    "joblib.externals.loky.process_executor",
)

_END_THEIR_PROCESSES = (
    *((name, "_python_exit") for name in _EXECUTORS),
    ("pebble.pool.process", "interpreter_shutdown"),
)
"""Exit handlers that a library registers when it is imported, so maybe before the fork.

Nothing else tells the processes to end that it has started since, and multiprocessing joins them.
"""

_TRACKERS = (
    "multiprocessing.resource_tracker",
    "loky.backend.resource_tracker",
    "joblib.externals.loky.backend.resource_tracker",
)

_inherited_helpers: set[int] = set()


def forget_inherited() -> None:
    """In a new process: drop exit handlers from before the fork, which are the parent's to run.

    ``atexit._clear`` and ``atexit._run_exitfuncs`` are what CPython's own tests use, 3.8 to 3.14.
    """
    atexit._clear()
    finalize: Any = weakref.finalize
    for finalizer in list(finalize._registry):
        finalizer.atexit = False
    # atexit.register(weakref.finalize._exitfunc) happens once per process image.
    finalize._registered_with_atexit = False
    if _MULTIPROCESSING not in sys.modules:
        return
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # As multiprocessing.process.BaseProcess._bootstrap does after its own fork.
        cast("Any", util)._finalizer_registry.clear()
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        cast("Any", process)._children.clear()
    for executors in _loaded(_EXECUTORS):
        executors._threads_wakeups.clear()
    _inherited_helpers.update(pid for pid, _ in _helpers())


def run_own() -> None:
    """Run atexit handlers, weakref finalizers and multiprocessing's, as at interpreter exit.

    Unlike there, threads are not joined.
    """
    if _MULTIPROCESSING not in sys.modules:
        _run_exit_handlers()
        return
    for name, handler in _END_THEIR_PROCESSES:
        if name in sys.modules:
            with suppress(Exception):  # as atexit does, for all of them
                getattr(sys.modules[name], handler)()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        atexit.unregister(cast("Any", util)._exit_function)
    _run_exit_handlers()
    if util is not None:
        # Last, as it was imported first. Its handler may be gone with the inherited ones.
        atexit.register(cast("Any", util)._exit_function)
        _run_exit_handlers()
    for pid, pipe in _helpers():
        if pid not in _inherited_helpers:
            _end_helper(pid, pipe)


def _run_exit_handlers() -> None:
    try:
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 (Python 3.8 and 3.9 print all and reraise the last one)
        return


def _loaded(names: tuple[str, ...]) -> list[Any]:
    return [sys.modules[name] for name in names if name in sys.modules]


def _helpers() -> list[tuple[int, int]]:
    """Pids and pipes of multiprocessing's helper processes, started here or before the fork.

    The fork server comes first, since it holds the pipe of the resource tracker. From Python 3.14
    on, starting a process on Linux starts both.
    """
    servers = [module._forkserver for module in _loaded(("multiprocessing.forkserver",))]
    trackers = [module._resource_tracker for module in _loaded(_TRACKERS)]
    found = [
        *((server._forkserver_pid, server._forkserver_alive_fd) for server in servers),
        *((tracker._pid, tracker._fd) for tracker in trackers),
    ]
    return [(pid, pipe) for pid, pipe in found if pid is not None]


def _end_helper(pid: int, pipe: int) -> None:
    """Let a helper clean up and exit, which it does once its pipe is closed everywhere."""
    with suppress(OSError):  # closed by the test
        os.close(pipe)
    deadline = time.monotonic() + _HELPER_WAIT
    while time.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:  # the test waited for it, or SIGCHLD is ignored
            return
        time.sleep(0.001)
