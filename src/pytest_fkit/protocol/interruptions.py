"""What stops a run, from the process where it happens to the one where pytest shows it."""

from __future__ import annotations

from types import FrameType, FunctionType
from typing import Any, NoReturn

import pytest

from ..own import own_builtins, signal, threading
from ..system.stack_texts import entries, stack_text
from .event_file import Interrupted
from .plain_values import carriable

own_builtins(globals())


_BETWEEN = "\0"
"""Stands between the texts of a usage error, of each of which pytest makes a line of its own."""


def interruption(error: BaseException) -> Interrupted:
    """The message for a KeyboardInterrupt, pytest.exit, a usage error or an error in a hook."""
    path, lineno = _raised_at(error)
    if isinstance(error, pytest.exit.Exception):
        return Interrupted("exit", str(error.msg), error.returncode, path, lineno)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupt", str(error), None, path, lineno)
    if isinstance(error, pytest.UsageError):
        texts = [carriable(str(each)) for each in error.args]
        return Interrupted("usage", _BETWEEN.join(texts), None, path, lineno)
    return Interrupted("internal", carriable(f"{stack_text(error)}\n"), None, path, lineno)


def _raised_at(error: BaseException) -> tuple[str, int]:
    path, lineno = "", 0
    for entry in entries(error.__traceback__):
        path, lineno = entry.tb_frame.f_code.co_filename, entry.tb_lineno
    return path, lineno


_PLUGGYS = ("pluggy", "typing")  # its classes are generic: in Python 3.8 typing makes the instances


def is_of_pytest(error: BaseException) -> bool:
    """Whether a hook of pytest's own, or of ours, or pluggy failed, or memory or stack was short.

    Then the reason is what the test did to its process, and not a plugin or a ``conftest.py``.
    """
    if isinstance(error, (KeyboardInterrupt, pytest.exit.Exception)):
        return False
    if isinstance(error, (MemoryError, RecursionError)):
        return True
    caller = hook = function = ""
    before: FrameType | None = None
    for entry in entries(error.__traceback__):
        frame = entry.tb_frame
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if caller == "pluggy" and package not in _PLUGGYS:
            if before is None or not _is_hook(frame, before):
                return True
            hook = module
        before, caller, function = frame, package, frame.f_code.co_name
    if not hook and caller in _PLUGGYS:  # without a built-in function, say, if it blames no wrapper
        return function != "_raise_wrapfail"
    return hook.startswith(("_pytest.", "pytest_fkit."))


_CALL_HOOKS = ("_multicall", "run_old_style_hookwrapper", "traced_hookexec")
"""pluggy's functions that do; the last one calls those who watch hooks."""


def _is_hook(called: FrameType, caller: FrameType) -> bool:
    """Whether pluggy called a hook, and not what a test has in the place of ``next``, say.

    :param called: a frame of a function, or of a mock.
    """
    if called.f_globals.get("__name__") == "unittest.mock":
        return False
    functions = (each for each in caller.f_builtins.values() if type(each) is FunctionType)
    replaced = any(each.__code__ is called.f_code for each in functions)
    return caller.f_code.co_name in _CALL_HOOKS and not replaced


def raise_again(message: Interrupted) -> NoReturn:
    """Undo :func:`interruption`: raise the error, from the line where it happened.

    :raises KeyboardInterrupt, pytest.exit.Exception, pytest.UsageError, RuntimeError: as it says.
    """
    if message.kind == "usage":
        raise pytest.UsageError(*message.text.split(_BETWEEN))
    if message.kind == "exit":
        error: BaseException = pytest.exit.Exception(message.text, message.returncode)
    elif message.kind == "interrupt":
        error = KeyboardInterrupt(message.text) if message.text else KeyboardInterrupt()
    else:
        raise RuntimeError(f"error in a hook, in a test's process:\n{message.text}")
    if message.path:
        # pytest shows the last frame as the place where an interruption came from.
        code = compile("\n" * (message.lineno - 1) + "raise error", message.path, "exec")
        exec(code, {"error": error})  # noqa: S102 (the text is the line above)
    raise error


def interrupt_on_sigterm() -> Any:
    """Make SIGTERM a Ctrl-C in the process that the user started, unless somebody handles it.

    :return: what :func:`restore_sigterm` needs.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        return None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return before


def restore_sigterm(before: Any) -> None:
    """Undo :func:`interrupt_on_sigterm`."""
    if before is not None:
        signal.signal(signal.SIGTERM, before)
