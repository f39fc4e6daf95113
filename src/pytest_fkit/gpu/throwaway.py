"""Processes that are asked one thing and may hang, crash, or be beyond killing."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import IO, Any, Callable, Iterator, Mapping, Sequence

from .. import system
from ..endings import Exited, TimedOut, signal_name
from .failures import FailedError, MissingError

KILL_WAIT = 0.5
"""Seconds that a process has to be gone after SIGKILL; a tenth of the limit if that is less."""

MOST_OUTPUT = 4 << 20
"""Bytes that a tool may print: the longest known answers, on 64 GPUs, have about 100 KiB."""

# -m would ask an import path that may lack us; what comes first is the module search path.
_BOOTSTRAP = (
    "import json, sys; "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from pytest_fkit.gpu.throwaway import main; "
    "main(*sys.argv[2:])"
)

Kill = Callable[[int], None]
"""Ends a process group, given by its number."""


def kill_group(pid: int) -> None:
    """Send SIGKILL to every process of a group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def interpreter(path: Sequence[str], function: str, *arguments: str) -> list[str]:
    """The command that calls a function of ours in a fresh interpreter, see :func:`answer_of`.

    :param path: its ``sys.path``.
    :param function: as in "pytest_fkit.gpu.nvml:read_nvml"; takes and returns what JSON can say.
    """
    return [sys.executable, "-c", _BOOTSTRAP, json.dumps(list(path)), function, *arguments]


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


def output_of(
    command: Sequence[str],
    environment: Mapping[str, str],
    limit: float,
    kill: Kill = kill_group,
) -> str:
    """What a program writes to its standard output.

    :param limit: seconds, all waiting included: what does not end then is killed, and what does
        not end by that is left to itself.
    :param kill: how a process group is ended; tests have one that can't be.
    :raises FailedError: if it can't be started, hangs, crashes, leaves with a status other than 0
        or prints without end.
    """
    wait = min(KILL_WAIT, limit / 10)
    deadline = time.monotonic() + limit - wait
    with _file("out") as out, _file("err") as err:
        try:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # to end what it starts with it, and to spare it Ctrl-C
            )
        except (OSError, ValueError) as error:
            raise FailedError(f"can't be started: {error}") from None
        try:
            trouble = _await(process, out, deadline, limit)
        finally:
            left = _end(process, wait, kill)
        if left:
            raise FailedError(f"{trouble or 'got no answer'}; {left}")
        if trouble:
            raise FailedError(trouble)
        return _judge(process.returncode, _read(out), _read(err))


@contextlib.contextmanager
def _file(name: str) -> Iterator[IO[bytes]]:
    # Not a pipe: what the tool leaves running may hold it open.
    with os.fdopen(system.anonymous_file(name), "w+b") as file:
        yield file


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_OUTPUT).decode("utf-8", "replace")


def _await(process: subprocess.Popen[bytes], out: IO[bytes], deadline: float, limit: float) -> str:
    """Wait for the process; what is wrong with it, "" if it ended."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, min(0.1, deadline - time.monotonic())))
            return ""
        if os.fstat(out.fileno()).st_size > MOST_OUTPUT:
            return f"printed more than {MOST_OUTPUT >> 20} MiB"
        if time.monotonic() >= deadline:
            return TimedOut(round(limit, 1)).title


def _end(process: subprocess.Popen[bytes], wait: float, kill: Kill) -> str:
    """End the process, if it still runs, and all it started; what is left, for people."""
    # If it has ended, this is for what it started: a group keeps its number while it has members.
    kill(process.pid)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(wait)
        return ""
    left = f"{system.describe(process.pid)} does not end, not even by SIGKILL, and was left alone"
    # Nobody is going to wait for it: a destructor would complain that it still runs.
    process.returncode = -signal.SIGKILL
    return left


def _judge(status: int, out: str, err: str) -> str:
    if status == 0:
        return out
    how = f"was ended by {signal_name(-status)}" if status < 0 else Exited(status).title
    said = [line.strip() for line in (*out.splitlines(), *err.splitlines()) if line.strip()]
    raise FailedError(f"{how}: {said[-1][:200]}" if said else how)
