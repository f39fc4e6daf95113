"""How a host gets out of the hooks of a test that it began and a child ended.

Other plugins' hooks restore in their second halves what they changed in the first; that is done
here, too, once the child is through. What they write then was written by the child: here it goes
nowhere.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Iterator

import pytest

from ...compat import pytest_hooks
from ...own import contextmanager, os, own_builtins, suppress
from ...system.limits import room

own_builtins(globals())

_CHANGES_FILES = (
    "chmod",
    "chown",
    "link",
    "mkdir",
    "mkfifo",
    "remove",
    "removedirs",
    "rename",
    "renames",
    "replace",
    "rmdir",
    "symlink",
    "truncate",
    "unlink",
    "utime",
)


class Begun:
    """What other plugins' hooks have begun for `item` in this process."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._functions: list[tuple[Any, Any]] = []
        self.leaving = False
        """Whether what unwinds the hooks is this process's way out of the test."""

    def watch(self) -> None:
        """From now on: know the wrappers that begin."""
        for hook in pytest_hooks.wrappers_of_others(self._item):
            self._functions.append((hook, hook.function))
            hook.function = self._watched(hook.function, hook.hookwrapper)

    def unwatch(self) -> None:
        """Those that have begun stay known."""
        for hook, function in self._functions:
            hook.function = function
        self._functions.clear()

    def tear_down(self, nextitem: pytest.Item | None) -> None:
        """Have plugins undo what they did outside of wrappers, or noted of the test."""
        heard = pytest_hooks.installed_hear_reports(self._item)
        undone = list(pytest_hooks.teardowns_of_others(self._item, nextitem))
        if not heard and not undone:
            return
        with self.silence():
            with suppress(BaseException):
                call: Any = pytest.CallInfo.from_call(_nothing, when="setup")
                pytest_hooks.report_for_installed(self._item, call)
            for undo in undone:
                with suppress(BaseException):
                    undo()

    def _watched(self, function: Callable[..., Any], old: bool) -> Callable[..., _Wrapper]:
        return lambda *arguments: _Wrapper(function(*arguments), self, old)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Within the block nothing is written, and no file is made or removed."""
        with _no_output(), _no_changes():
            yield


class _Wrapper:
    """A generator of a hook wrapper, as pluggy uses it."""

    def __init__(self, generator: Any, begun: Begun, old: bool) -> None:
        self._generator = generator
        self._begun = begun
        self._old = old

    def __next__(self) -> Any:
        __tracebackhide__ = True
        return next(self._generator)

    def send(self, value: Any) -> Any:
        __tracebackhide__ = True
        if not self._begun.leaving:
            return self._generator.send(value)
        self._end(type(value)([], None) if self._old else value)
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        __tracebackhide__ = True
        if not self._begun.leaving:
            return self._generator.throw(*error)
        self._end(None)
        raise error[0] if len(error) == 1 else error[1]

    def close(self) -> None:
        self._generator.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def _end(self, result: Any) -> None:
        """As if all had gone well."""
        with self._begun.silence(), suppress(BaseException):
            self._generator.send(result)
        with self._begun.silence(), suppress(BaseException):
            self._generator.close()


@contextmanager
def _no_output() -> Iterator[None]:
    _flush()
    with room():
        nothing = os.open(os.devnull, os.O_WRONLY)
        kept = [(number, _copy(number)) for number in (1, 2)]
    try:
        for number, copy in kept:
            if copy is not None:
                os.dup2(nothing, number)
        yield
    finally:
        _flush()
        for number, copy in kept:
            if copy is not None:
                os.dup2(copy, number)
                os.close(copy)
        os.close(nothing)


def _copy(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:
        return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


@contextmanager
def _no_changes() -> Iterator[None]:
    """Within the block files are opened for reading only, others in their places for writing."""
    modules = sys.modules
    replaced: list[tuple[dict[str, Any], str, Any]] = []

    def replace(names: dict[str, Any], name: str, function: Any) -> None:
        if name in names:
            replaced.append((names, name, names[name]))
            names[name] = function

    for module in ("builtins", "io"):
        names = vars(modules[module])
        if "open" in names:
            replace(names, "open", _reading_only(names["open"]))
    for name in _CHANGES_FILES:
        replace(vars(modules["os"]), name, _nothing)
    try:
        yield
    finally:
        for names, name, function in reversed(replaced):
            names[name] = function


def _reading_only(function: Callable[..., Any]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if isinstance(mode, str) and any(letter in mode for letter in "wax+"):
            file, mode = os.devnull, mode.replace("x", "w")
            options.pop("opener", None)
            options.pop("closefd", None)
        return function(file, mode, *arguments, **options)

    return opened


def _nothing(*arguments: Any, **options: Any) -> None:
    del arguments, options
