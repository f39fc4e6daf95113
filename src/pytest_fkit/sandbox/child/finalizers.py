"""Runs Python's exit handlers in processes that end by _exit(2)."""

from __future__ import annotations

import sys
import weakref
from typing import Any

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

_REGISTRIES = (
    # As multiprocessing.process.BaseProcess._bootstrap does after its own fork.
    ("multiprocessing.util", "_finalizer_registry"),
    ("multiprocessing.process", "_children"),
    *((name, "_threads_wakeups") for name in _EXECUTORS),
)
"""What a new process clears."""

_TRACKERS = (
    "multiprocessing.resource_tracker",
    "loky.backend.resource_tracker",
    "joblib.externals.loky.backend.resource_tracker",
)

_HELPERS = (
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid", "_forkserver_alive_fd"),
    *((name, "_resource_tracker", "_pid", "_fd") for name in _TRACKERS),
)
"""Modules, and where they keep pid and pipe of the helper process that they start."""

_FINALIZE: Any = weakref.finalize

_inherited_helpers: set[int] = set()


def forget_inherited() -> None:
    """In a new process: drop exit handlers from before the fork, which are the parent's to run.

    ``atexit._clear`` and ``atexit._run_exitfuncs`` are what CPython's own tests use, 3.8 to 3.14.
    """
    atexit._clear()
    with _whatever_is_there():
        for finalizer in list(_FINALIZE._registry):
            finalizer.atexit = False
    # atexit.register(weakref.finalize._exitfunc) happens once per process image.
    _FINALIZE._registered_with_atexit = False
    if _MULTIPROCESSING not in sys.modules:
        return
    for name, registry in _REGISTRIES:
        for module in _loaded((name,)):
            with _whatever_is_there():
                getattr(module, registry).clear()
    _inherited_helpers.update(pid for pid, _ in _helpers())


def run_own() -> None:
    """Run atexit handlers, weakref finalizers and multiprocessing's, as at interpreter exit.

    Unlike there, threads are not joined.
    """
    if _MULTIPROCESSING not in sys.modules:
        _run_exit_handlers()
        return
    for name, handler in _END_THEIR_PROCESSES:
        for module in _loaded((name,)):
            with _whatever_is_there():  # as atexit does, for all of them
                getattr(module, handler)()
    utils = _loaded(("multiprocessing.util",))
    for util in utils:
        with _whatever_is_there():
            atexit.unregister(util._exit_function)
    _run_exit_handlers()
    for util in utils:
        # Last, as it was imported first. Its handler may be gone with the inherited ones.
        with _whatever_is_there():
            atexit.register(util._exit_function)
            _run_exit_handlers()
    for pid, pipe in _helpers():
        if pid not in _inherited_helpers:
            _end_helper(pid, pipe)


def _run_exit_handlers() -> None:
    # Python 3.8 and 3.9 print all exceptions, and raise the last one again.
    with suppress(BaseException):
        atexit._run_exitfuncs()


def _whatever_is_there() -> suppress:
    """For private attributes of modules, which a test may have given any value.

    At the end of an interpreter an exception of any kind changes nothing, either.
    """
    return suppress(BaseException)


def _loaded(names: tuple[str, ...]) -> list[Any]:
    return [sys.modules[name] for name in names if name in sys.modules]


def _helpers() -> list[tuple[int, int]]:
    """Pids and pipes of multiprocessing's helper processes, started here or before the fork.

    The fork server comes first, since it holds the pipe of the resource tracker. From Python 3.14
    on, starting a process on Linux starts both.
    """
    found: list[tuple[int, int]] = []
    for name, helper, pid, pipe in _HELPERS:
        for module in _loaded((name,)):
            with _whatever_is_there():
                one = getattr(module, helper)
                numbers = getattr(one, pid), getattr(one, pipe)
                if type(numbers[0]) is type(numbers[1]) is int:
                    found.append(numbers)
    return found


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
