"""The functions that our code calls, kept as they were before a suite could change them.

Our code runs in processes whose code belongs to users. They patch ``os`` and ``time``, fake the
file system, freeze clocks, guard sockets and count calls; none of that may reach us, and none of
our calls may show there. So a module that runs in such a process says ``from ..own import os``
where it would say ``import os``, and ``own_builtins(globals())`` before its functions are made
(``tests/unit/test_own_references.py`` sees to both).

They are attributes of instances, not of modules: pyfakefs and freezegun go through the globals of
all modules and replace whatever is a module or a function that they fake. This module is
imported before the initial conftest files are, see initial_conftests.py.
"""

from __future__ import annotations

import sys
import warnings as _warnings  # which a suite may take out of sys.modules
from typing import TYPE_CHECKING, Any, Generator

from .importing import hide as hide
from .importing import own_builtins as own_builtins
from .importing import own_imports as own_imports
from .importing import standard_library_first as standard_library_first

own_builtins(globals())


if TYPE_CHECKING:
    import array as array
    import atexit as atexit
    import copy as copy
    import ctypes as ctypes
    import faulthandler as faulthandler
    import fcntl as fcntl
    import gc as gc
    import marshal as marshal
    import mmap as mmap
    import os as os
    import pickle as pickle
    import resource as resource
    import select as select
    import signal as signal
    import socket as socket
    import struct as struct
    import subprocess as subprocess
    import threading as threading
    import time as time
    import warnings as warnings
    import zlib as zlib
    from contextlib import contextmanager as contextmanager

else:
    import contextlib
    import functools
    import importlib
    from _thread import allocate_lock as _lock
    from _thread import start_new_thread as _start

    class _Kept:
        """What a module had when this one was imported."""

        def __init__(self, name: str, **ours: object) -> None:
            with contextlib.suppress(ModuleNotFoundError):  # on Windows, where --fkit is refused
                vars(self).update(vars(importlib.import_module(name)))
            vars(self).update(ours)

    def _clocks() -> dict[str, object]:
        """``time.time`` and ``time.monotonic``, which can't be frozen or moved.

        time-machine changes the functions themselves, in C; it leaves clock_gettime(2) alone but
        for CLOCK_REALTIME, so the time of day is counted from that of this import on.
        """
        import time

        read = time.clock_gettime
        monotonic = time.CLOCK_MONOTONIC
        # The one that goes on while a laptop sleeps, where there is one.
        steady = getattr(time, "CLOCK_BOOTTIME", monotonic)
        offset = time.time() - read(steady)
        return {
            "time": lambda: read(steady) + offset,
            "monotonic": functools.partial(read, monotonic),
        }

    class _Condition:
        """As threading's, on a lock of the kernel's: gevent's would wait for greenlets."""

        def __init__(self) -> None:
            self._lock = _lock()
            self._waiting: list[object] = []

        def __enter__(self) -> None:
            self._lock.acquire()

        def __exit__(self, *raised: object) -> None:
            self._lock.release()

        def wait(self, timeout: float | None = None) -> bool:
            waiting = _lock()
            waiting.acquire()
            self._waiting.append(waiting)
            self._lock.release()
            try:
                return waiting.acquire(True, -1 if timeout is None else max(0.0, timeout))
            finally:
                self._lock.acquire()
                if waiting in self._waiting:
                    self._waiting.remove(waiting)

        def notify(self) -> None:
            if self._waiting:
                self._waiting.pop(0).release()

        def notify_all(self) -> None:
            while self._waiting:
                self.notify()

    class _Event:
        """As threading's, see _Condition."""

        def __init__(self) -> None:
            self._changed = _Condition()
            self._set = False

        def is_set(self) -> bool:
            return self._set

        def set(self) -> None:
            with self._changed:
                self._set = True
                self._changed.notify_all()

        def clear(self) -> None:
            self._set = False

        def wait(self, timeout: float | None = None) -> bool:
            with self._changed:
                if not self._set:
                    self._changed.wait(timeout)
                return self._set

    class _Thread:
        """As threading's, a daemon: gevent's is a greenlet, in which all others wait if it does."""

        def __init__(
            self, target: Any = None, args: tuple[Any, ...] = (), daemon: bool = True
        ) -> None:
            self._target = target
            self._args = args
            self.daemon = daemon
            self._begun = False
            self._over = _Event()

        def start(self) -> None:
            self._begun = True
            _start(self._bootstrap, ())

        def run(self) -> None:
            self._target(*self._args)

        def _bootstrap(self) -> None:
            try:
                self.run()
            finally:
                self._over.set()

        def is_alive(self) -> bool:
            return self._begun and not self._over.is_set()

        def join(self, timeout: float | None = None) -> None:
            self._over.wait(timeout)

    class _Timer(_Thread):
        """As threading's."""

        def __init__(self, interval: float, function: Any) -> None:
            super().__init__(function)
            self._interval = interval
            self._cancelled = _Event()

        def run(self) -> None:
            if not self._cancelled.wait(self._interval):
                super().run()

        def cancel(self) -> None:
            self._cancelled.set()

    with own_imports():
        for _name in (
            "array", "atexit", "copy", "ctypes", "faulthandler", "fcntl", "gc", "marshal", "mmap",
            "os", "resource", "select", "struct", "subprocess", "warnings", "zlib",
        ):  # fmt: skip
            globals()[_name] = _Kept(_name)
        # Its functions are C's: those that Python's own module wraps around them call what is in
        # that module, which a suite may have patched.
        signal = _Kept("signal", **vars(importlib.import_module("_signal")))
        # All that we need of it is in C.
        pickle = _Kept("_pickle")
        # Its C type: guards replace, and wrap, the class that Python's own module makes of it.
        socket = _Kept("_socket")
        threading = _Kept(
            "threading", Condition=_Condition, Event=_Event, Thread=_Thread, Timer=_Timer
        )
        time = _Kept("time", **_clocks())


if not TYPE_CHECKING:

    def contextmanager(function):
        """As contextlib's, whose own builtins a suite can change."""

        def begin(*args: object, **kwargs: object) -> _Block:
            return _Block(function(*args, **kwargs))

        return begin


class _Block:
    """A generator that yields once, as a context manager."""

    def __init__(self, generator: Generator[object, None, None]) -> None:
        self._generator = generator

    def __enter__(self) -> object:
        return next(self._generator)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *rest: object
    ) -> bool:
        if error is None:
            next(self._generator, None)
            return False
        try:
            self._generator.throw(error)
        except StopIteration as end:
            return end is not error
        except BaseException as raised:
            # Python raises the same again; StopIteration leaves a generator as another's cause.
            if raised is not error and not (
                isinstance(error, StopIteration) and raised.__cause__ is error
            ):
                raise
            return False
        return True


class suppress:  # noqa: N801 (as contextlib's)
    """Within the block, these exceptions end it, and nothing else."""

    def __init__(self, *exceptions: type[BaseException]) -> None:
        self._exceptions = exceptions

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        return kind is not None and issubclass(kind, self._exceptions)


class no_warnings:  # noqa: N801 (as contextlib's)
    """Within the block, what somebody warns of is neither shown nor raised, and is lost."""

    def __enter__(self) -> None:
        # Recorded, since who warns may have filters of its own; ignored, lest they be raised.
        module = sys.modules.get("warnings", _warnings)
        caught: Any = warnings.catch_warnings(record=True, module=module)
        caught.__enter__()
        # Not by simplefilter(), which catches what a suite may have made of ValueError.
        caught._module.filters[:] = [("ignore", None, Warning, None, 0)]
        self._caught = caught

    def __exit__(self, *raised: object) -> None:
        self._caught.__exit__(None, None, None)
