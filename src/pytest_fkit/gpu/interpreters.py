"""Functions of ours that are called in a fresh interpreter, and what they answer."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from .answers import FailedError, MissingError

# Starts in no time, whatever the environment says about Python: isolated, without the site module,
# and not writing byte code. So psutil, which the portable road needs, can't be imported.
_FLAGS = ("-I", "-S", "-B")
_BOOTSTRAP = (
    "import os, sys; "
    "os.environ.pop('FKIT_PORTABLE', None); "
    "sys.path.append(sys.argv[1]); "
    "from pytest_fkit.gpu.interpreters import main; "
    "main(*sys.argv[2:])"
)


def light_interpreter(function: str, *arguments: str) -> list[str]:
    """The command that calls a function of ours in a fresh interpreter, see :func:`answer_of`.

    There it can import the standard library and us, and nothing else.

    :param function: as in "pytest_fkit.gpu.vendors.kfd:read_nodes"; takes and returns what JSON can
        say.
    """
    ours = str(Path(__file__).parents[2])
    return [sys.executable, *_FLAGS, "-c", _BOOTSTRAP, ours, function, *arguments]


def imported(function: str) -> Any:
    """The function of that name, as in "pytest_fkit.gpu.vendors.kfd:read_nodes"."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def main(function: str, *arguments: str) -> None:
    """In the fresh interpreter: call the function, and print what came of it."""
    # Vendors' libraries write to standard output, too.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        try:
            answer = {"answer": imported(function)(*arguments)}
        except MissingError as error:
            answer = {"missing": str(error)}
        except FailedError as error:
            answer = {"failed": str(error)}
        json.dump(answer, out)


def answer_of(output: str) -> Any:
    """What the function of a :func:`light_interpreter` returned, given what that printed.

    :raises MissingError, FailedError: as the function did.
    """
    try:
        said = json.loads(output)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or len(said) != 1:
        raise FailedError("no answer came back")
    if "missing" in said:
        raise MissingError(str(said["missing"]))
    if "failed" in said:
        raise FailedError(str(said["failed"]))
    return said.get("answer")
