"""Private names of pytest's session: ini values, collection, clean-ups, temporary directories."""

from __future__ import annotations

import pdb
import sys
from typing import TYPE_CHECKING, Any, Callable, cast

import _pytest.debugging
import _pytest.main
import _pytest.threadexception
import _pytest.unraisableexception
import pytest

from ..own import own_builtins, suppress

if TYPE_CHECKING:
    from pathlib import Path

own_builtins(globals())


def ini_value(config: pytest.Config, name: str) -> Any:
    """An ini value as the file has it.

    In pytest 9's native TOML (``pytest.toml``, ``[tool.pytest]``) it may be a number, a boolean or
    a list, which ``getini`` refuses if a text was declared. ``Config._inicfg`` has what the file
    says, and what ``-o`` says instead.

    :return: "" or None where it is not given.
    :raises ValueError: if nobody declared it.
    """
    given = getattr(config, "_inicfg", {}).get(name)
    if given is not None and (given.mode == "toml" or not isinstance(given.value, str)):
        return given.value
    return config.getini(name)


def forget_cleanups(config: pytest.Config) -> object:
    """In a forked process: drop what was given to ``config.add_cleanup``.

    :return: what was dropped. Keep it alive: the generator of a context manager, such as that of
        pytest's warning filters, runs its ``finally`` blocks when it is collected.
    """
    stack = getattr(config, "_cleanup_stack", None)  # pytest 8.4 on
    if stack is not None:
        return stack.pop_all()
    dropped = list(cast("Any", config)._cleanup)
    del cast("Any", config)._cleanup[:]
    return dropped


def has_cleanups(config: pytest.Config) -> bool:
    """Whether there is something for :func:`run_cleanups`."""
    stack = getattr(config, "_cleanup_stack", None)
    if stack is not None:
        return bool(getattr(stack, "_exit_callbacks", True))  # contextlib.ExitStack
    return bool(cast("Any", config)._cleanup)


def run_cleanups(config: pytest.Config) -> None:
    """Run what was given to ``config.add_cleanup``, the last first.

    :raises BaseException: what one of them raised.
    """
    stack = getattr(config, "_cleanup_stack", None)
    if stack is not None:
        stack.close()
        return
    cleanups = cast("Any", config)._cleanup
    while cleanups:
        cleanups.pop()()


def unraisable_errors_count(config: pytest.Config) -> bool:
    """Whether pytest, from 8.4 on, fails at its end for unraisable errors.

    It does where its warnings of them are errors, by the filters of the configuration.
    """
    if not config.pluginmanager.hasplugin("unraisableexception"):
        return False
    if not hasattr(_pytest.unraisableexception, "collect_unraisable"):
        return False
    filters: Any = cast("Any", sys.modules["warnings"]).filters
    return any(
        each[0] == "error" and issubclass(pytest.PytestUnraisableExceptionWarning, each[2])
        for each in filters
    )


def raise_unraisable(config: pytest.Config) -> None:
    """Warn of what was raised in destructors and threads, and is not reported yet.

    :raises Exception: such a warning, or several, where they are errors.
    """
    _pytest.unraisableexception.collect_unraisable(config)
    if config.pluginmanager.hasplugin("threadexception"):
        _pytest.threadexception.collect_thread_exception(config)


def arguments_leading_to(config: pytest.Config, path: Path) -> list[str]:
    """The arguments, as given, that name this file, something in it or a directory above."""
    found = []
    for number, argument in enumerate(config.args):
        try:
            named = _named_path(config, argument, number)
        except pytest.UsageError:  # reported by the process that collected
            continue
        if named == path or named in path.parents:
            found.append(argument)
    return found


def _named_path(config: pytest.Config, argument: str, number: int) -> Path:
    resolve: Any = _pytest.main.resolve_collection_argument
    known = resolve.__code__.co_varnames
    options = {"as_pypath": config.option.pyargs}
    if "consider_namespace_packages" in known:  # pytest 9 on
        options["consider_namespace_packages"] = config.getini("consider_namespace_packages")
    numbers = (number,) if "arg_index" in known else ()
    named = resolve(config.invocation_params.dir, argument, *numbers, **options)
    return cast("Path", named[0] if isinstance(named, tuple) else named.path)


def collection_error(report: pytest.CollectReport) -> BaseException | None:
    """What was raised; only in hooks around pytest_make_collect_report: pytest drops it then."""
    call = getattr(report, "call", None)
    return None if call is None or call.excinfo is None else cast("Any", call).excinfo.value


def replace_debugger(action: Callable[..., None]) -> None:
    """Call `action` where ``breakpoint()`` or ``pytest.set_trace()`` would start pdb."""
    pdb.set_trace = action
    _pytest.debugging.pytestPDB.set_trace = action  # type: ignore[method-assign]
    pytest.set_trace = action
    # For modules that imported one of these by name before.
    _pytest.debugging.pytestPDB._init_pdb = action  # type: ignore[method-assign]


def resolve_basetemp(config: pytest.Config) -> None:
    """Make the base temporary directory now: the first request of each process empties it."""
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is not None:
        with suppress(Exception):  # what keeps it from being made is said by tests that want it
            factory.getbasetemp()


def temporary(config: pytest.Config, name: str) -> str:
    """The path of a directory of this name in pytest's temporary directory, "" if it has none."""
    factory = getattr(config, "_tmp_path_factory", None)
    return "" if factory is None else str(factory.getbasetemp() / name)


def basetemp(config: pytest.Config) -> str | None:
    """A base directory for another process, below this one's; that process makes it."""
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is None:
        return None
    # Within a new directory: pytest removes what it is given and makes it anew, and in between
    # another process that looks for a free number would take this one.
    return str(factory.mktemp("spawned", numbered=True) / "base")
