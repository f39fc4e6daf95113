"""Functions of ours that are called in a fresh interpreter, and what they answer."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Sequence

from .failures import FailedError, MissingError

# -m would ask an import path that may lack us; what comes first is the module search path.
_BOOTSTRAP = (
    "import json, sys; "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from pytest_fkit.gpu.asking.interpreters import main; "
    "main(*sys.argv[2:])"
)

# The same, for an interpreter that starts in no time, whatever the environment says about Python:
# isolated, without the site module, and not writing byte code.
_LIGHT_FLAGS = ("-I", "-S", "-B")
_LIGHT_BOOTSTRAP = (
    "import sys; "
    "sys.path.append(sys.argv[1]); "
    "from pytest_fkit.gpu.asking.interpreters import main; "
    "main(*sys.argv[2:])"
)


def interpreter(path: Sequence[str], function: str, *arguments: str) -> list[str]:
    """The command that calls a function of ours in a fresh interpreter, see :func:`answer_of`.

    :param path: its ``sys.path``.
    :param function: as in "pytest_fkit.gpu.vendors.nvml:read_nvml"; takes and returns what JSON can
        say.
    """
    return [sys.executable, "-c", _BOOTSTRAP, json.dumps(list(path)), function, *arguments]


def light_interpreter(function: str, *arguments: str) -> list[str]:
    """As :func:`interpreter`; it can import the standard library and us, and nothing else."""
    ours = str(Path(__file__).parents[3])
    return [sys.executable, *_LIGHT_FLAGS, "-c", _LIGHT_BOOTSTRAP, ours, function, *arguments]


def main(function: str, *arguments: str) -> None:
    """Called in the fresh interpreter: call, and print what came of it."""
    # Vendors' libraries write to standard output, too.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        module, _, name = function.partition(":")
        try:
            answer = {"answer": getattr(importlib.import_module(module), name)(*arguments)}
        except MissingError as error:
            answer = {"missing": str(error)}
        except FailedError as error:
            answer = {"failed": str(error)}
        json.dump(answer, out)


def answer_of(output: str) -> Any:
    """What the function returned that an :func:`interpreter` called, given what that printed.

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
