"""What stops a run, on its way from the process where it happened to where pytest shows it."""

from __future__ import annotations

from typing import NoReturn

import pytest

from ..own import own_builtins
from ..system.stack_texts import entries, stack_text
from .messages import Interrupted
from .plain_values import carriable

own_builtins(globals())


def interruption(error: BaseException) -> Interrupted:
    """The message for what stops a run: KeyboardInterrupt, pytest.exit or an error in a hook."""
    path, lineno = _raised_at(error)
    if isinstance(error, pytest.exit.Exception):
        return Interrupted("exit", str(error.msg), error.returncode, path, lineno)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupt", str(error), None, path, lineno)
    return Interrupted("internal", carriable(f"{stack_text(error)}\n"), None, path, lineno)


def _raised_at(error: BaseException) -> tuple[str, int]:
    path, lineno = "", 0
    for entry in entries(error.__traceback__):
        path, lineno = entry.tb_frame.f_code.co_filename, entry.tb_lineno
    return path, lineno


def raise_again(message: Interrupted) -> NoReturn:
    """Raise what :func:`interruption` turned into `message`, from the line where it happened.

    :raises KeyboardInterrupt, pytest.exit.Exception, RuntimeError: for the three kinds.
    """
    if message.kind == "exit":
        error: BaseException = pytest.exit.Exception(message.text, message.returncode)
    elif message.kind == "interrupt":
        error = KeyboardInterrupt(message.text) if message.text else KeyboardInterrupt()
    else:
        raise RuntimeError(f"error in a hook, in a test's process:\n{message.text}")
    if message.path:
        # pytest shows where an interruption came from; its last frame has to be that place.
        code = compile("\n" * (message.lineno - 1) + "raise error", message.path, "exec")
        exec(code, {"error": error})  # noqa: S102 (the text is the line above)
    raise error
