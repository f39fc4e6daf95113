"""Unwinds, in a host, the hooks of a test that it began and a child finished.

Hook wrappers of other plugins undo after their yield what they changed before it, so they have to
run to their ends in the host, too. The child has written what they write there already, started
what they start and sent what they send: in the host that has no effect.
"""

from __future__ import annotations

import sys
from errno import EPERM
from typing import Any, Callable, Iterator

import pytest

from ...compat import pytest_hooks
from ...own import contextmanager, os, own_builtins, suppress
from ..process.output import no_output

own_builtins(globals())


class BegunHooks:
    """The hook wrappers of other plugins that have begun for `item` in this process."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._functions: list[tuple[Any, Callable[..., object]]] = []
        self._open: list[tuple[Any, object]] = []
        self.leaving = False
        """Whether the hooks are unwound because a child has run the test."""

    def watch(self) -> None:
        """Record all wrappers that begin from now on."""
        for hook in pytest_hooks.wrappers_of_others(self._item):
            self._functions.append((hook, hook.function))
            hook.function = self._watched(hook.function, hook.hookwrapper)

    def unwatch(self) -> None:
        """Stop recording; wrappers that have begun stay recorded."""
        for hook, function in self._functions:
            hook.function = function
        self._functions.clear()

    def tear_down(self, nextitem: pytest.Item | None) -> None:
        """Have plugins undo what they did for the test, but for what follows all teardown."""
        hear_reports = pytest_hooks.installed_hear_reports(self._item)
        teardowns = list(pytest_hooks.teardowns_of_others(self._item, nextitem))
        if not hear_reports and not teardowns:
            return
        with self.silence():
            with suppress(BaseException):
                call = pytest.CallInfo.from_call(lambda: None, when="setup")
                pytest_hooks.report_for_installed(self._item, call)
            for teardown in teardowns:
                with suppress(BaseException):
                    generator = teardown.call()
                    if teardown.wraps:
                        next(generator)
                        self._open.append((generator, teardown.result))

    def end_tear_down(self) -> None:
        """Run the second halves of wrappers, after the teardown of wide fixtures."""
        if not self._open:
            return
        with self.silence():
            while self._open:
                generator, result = self._open.pop()
                with suppress(BaseException):
                    generator.send(result)
                with suppress(BaseException):
                    generator.close()

    def _watched(self, function: Callable[..., Any], old_style: bool) -> Callable[..., _Wrapper]:
        return lambda *arguments: _Wrapper(function(*arguments), self, old_style)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Within the block, discard output, and have nobody outside this process notice a thing."""
        with no_output(), _no_changes():
            yield


class _Wrapper:
    """Replaces the generator of a hook wrapper, with the methods that pluggy calls.

    :param old_style: whether it is a ``hookwrapper``, which gets a result object.
    """

    def __init__(self, generator: Any, begun: BegunHooks, old_style: bool) -> None:
        self._generator = generator
        self._begun = begun
        self._old_style = old_style

    def __next__(self) -> object:
        __tracebackhide__ = True
        return next(self._generator)

    def send(self, value: object) -> object:
        __tracebackhide__ = True
        if not self._begun.leaving:
            return self._generator.send(value)
        kind: Any = type(value)
        self._end(kind([], None) if self._old_style else value)
        raise StopIteration

    def throw(self, *error: Any) -> object:
        __tracebackhide__ = True
        if not self._begun.leaving:
            return self._generator.throw(*error)
        self._end(None)
        raise error[0] if len(error) == 1 else error[1]

    def close(self) -> None:
        self._generator.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def _end(self, result: object) -> None:
        """Run the second half of the wrapper, as if the hook had succeeded."""
        with self._begun.silence(), suppress(BaseException):
            self._generator.send(result)
        with self._begun.silence(), suppress(BaseException):
            self._generator.close()


@contextmanager
def _no_changes() -> Iterator[None]:
    """Within the block, change no file, start no process and send nothing to anybody else.

    Files that are opened for writing are /dev/null.
    """
    undo: list[Callable[[], None]] = []
    for path, replacement in _HARMLESS.items():
        module, _, name = path.partition(".")
        owner: Any = sys.modules.get(module)
        # A suite may have something else in the place of any of these.
        with suppress(AttributeError, TypeError):
            if "." in name:
                inner, _, name = name.partition(".")
                owner = getattr(owner, inner)
            undo.append(_replaced(owner, name, replacement(getattr(owner, name))))
    try:
        yield
    finally:
        for each in reversed(undo):
            each()


def _replaced(owner: Any, name: str, function: Callable[..., object]) -> Callable[[], None]:
    """Replace an attribute of a module or class; what restores it."""
    own = vars(owner)
    if name not in own:  # inherited
        setattr(owner, name, function)
        return lambda: delattr(owner, name)
    before = own[name]
    setattr(owner, name, function)
    return lambda: setattr(owner, name, before)


def _reading_only(function: Callable[..., object]) -> Callable[..., object]:
    def open_for_reading(
        file: object, mode: str = "r", *arguments: object, **options: object
    ) -> object:
        if isinstance(mode, str) and any(letter in mode for letter in "wax+"):
            file, mode = os.devnull, mode.replace("x", "w")
            options.pop("opener", None)
            options.pop("closefd", None)
        return function(file, mode, *arguments, **options)

    return open_for_reading


def _descriptor_for_reading(function: Callable[..., object]) -> Callable[..., object]:
    def open_for_reading(path: object, flags: int, *arguments: object, **options: object) -> object:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return function(os.devnull, os.O_RDWR)
        return function(path, flags, *arguments, **options)

    return open_for_reading


def _doing_nothing(_: object) -> Callable[..., object]:
    return lambda *_, **__: None


def _sending_nothing(_: object) -> Callable[..., object]:
    return lambda _, data, *__: len(data)


def _refusing(_: object) -> Callable[..., object]:
    def refuse(*arguments: object, **options: object) -> None:
        del arguments, options
        # Hooks that handle such errors of theirs handle this one.
        raise PermissionError(EPERM, "pytest-fkit: the process of the test has done this")

    return refuse


_HARMLESS: dict[str, Callable[[Any], Callable[..., object]]] = {
    "builtins.open": _reading_only,
    "io.open": _reading_only,
    "os.open": _descriptor_for_reading,
    **dict.fromkeys(
        (
            "os.chmod", "os.chown", "os.link", "os.mkdir", "os.mkfifo", "os.remove",
            "os.removedirs", "os.rename", "os.renames", "os.replace", "os.rmdir", "os.symlink",
            "os.truncate", "os.unlink", "os.utime",
        ),
        _doing_nothing,
    ),
    **dict.fromkeys(
        (
            "os.fork", "os.forkpty", "os.posix_spawn", "os.posix_spawnp", "os.system",
            "subprocess.Popen.__init__", "socket.socket.connect", "socket.socket.connect_ex",
        ),
        _refusing,
    ),
    "socket.socket.sendto": _sending_nothing,
}  # fmt: skip
"""By function whose effect others would notice, what makes the one to put in its place."""
