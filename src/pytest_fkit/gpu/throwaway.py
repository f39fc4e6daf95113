"""Processes that do one thing for us, and may hang, crash, or survive SIGKILL."""

from __future__ import annotations

from typing import IO, Mapping, Sequence

from .. import system
from ..named_tuple import NamedTuple
from ..own import os, own_builtins, signal, subprocess, suppress, time
from ..protocol.endings import Exited, Lost, Signaled, TimedOut, signal_name
from .answers import FailedError

own_builtins(globals())

KILL_WAIT = 0.5
"""Seconds in which a process must be gone after SIGKILL; a tenth of the limit if that is less."""

MOST_OUTPUT = 4 << 20
"""Bytes that a tool may print: the longest known answers, on 64 GPUs, have about 100 KiB."""


def kill_group(pid: int) -> None:
    """Send SIGKILL to every process of a group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class Result(NamedTuple):
    """How a process ended.

    :param ending: Lost if it printed without end.
    :param left: says that it is still there, or "".
    :param out: its standard output; `err`: its standard error.
    """

    ending: Exited | Signaled | TimedOut | Lost
    left: str
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line that it printed, "" if none."""
        said = [each.strip() for each in (*self.out.splitlines(), *self.err.splitlines())]
        return next((line[:200] for line in reversed(said) if line), "")


class Throwaway:
    """A running process. :meth:`wait` has to be called, once.

    :param limit: seconds from now on, all waiting included: then it is killed, and left to itself
        if it survives that.
    :raises FailedError: if it can't be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], limit: float
    ) -> None:
        self._limit = limit
        self._kill_wait = min(KILL_WAIT, limit / 10)
        self._deadline = time.monotonic() + limit - self._kill_wait
        # Not pipes: processes that the program leaves behind may hold them open.
        self._out, self._err = _file("out"), _file("err")
        try:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                start_new_session=True,  # to end its children with it, and to spare it Ctrl-C
            )
        except (OSError, ValueError) as error:
            self._out.close()
            self._err.close()
            raise FailedError(f"can't be started: {error}") from None

    def wait(self) -> Result:
        """Wait until the process has ended, within the limit."""
        with self._out, self._err:
            left = ""
            try:
                trouble = self._await()
            finally:
                left = self._end()
            return Result(trouble or self._ending(), left, _read(self._out), _read(self._err))

    def stop(self) -> None:
        """Kill the process; :meth:`wait`, here or in another thread, reports it."""
        if self._process.returncode is None:
            kill_group(self._process.pid)

    def _await(self) -> TimedOut | Lost | None:
        """Wait for the process; None if it ended, else what it did instead."""
        while True:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, min(0.1, self._deadline - time.monotonic())))
                return None
            if os.fstat(self._out.fileno()).st_size > MOST_OUTPUT:
                return Lost(f"printed more than {MOST_OUTPUT >> 20} MiB")
            if time.monotonic() >= self._deadline:
                return TimedOut(round(self._limit, 1))

    def _ending(self) -> Exited | Signaled:
        status = self._process.returncode
        return Signaled(-status) if status < 0 else Exited(status)

    def _end(self) -> str:
        """End the process, if it still runs, and its children; a text if it survives."""
        process = self._process
        # If it has ended, this is for its children: a group keeps its number while it has members.
        kill_group(process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self._kill_wait)
            return ""
        name = system.describe(process.pid)
        # Nobody is going to wait for it: a destructor would complain that it still runs.
        process.returncode = -signal.SIGKILL
        return f"{name} does not end, not even by SIGKILL, and was left alone"


def _file(name: str) -> IO[bytes]:
    return os.fdopen(system.anonymous_file(name), "w+b")


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_OUTPUT).decode("utf-8", "replace")


def output_of(command: Sequence[str], environment: Mapping[str, str], limit: float) -> str:
    """The standard output of a program.

    :param limit: see :class:`Throwaway`.
    :raises FailedError: if it can't be started, hangs, crashes, leaves with a status other than 0
        or prints without end.
    """
    result = Throwaway(command, environment, limit).wait()
    if result.ending == Exited(0) and not result.left:
        return result.out
    whole = isinstance(result.ending, Exited) and not result.left
    raise FailedError(trouble_of(result), f"{result.out}\n{result.err}" if whole else "")


def trouble_of(result: Result) -> str:
    """How a process failed, and the last line that it printed."""
    ending = result.ending
    if isinstance(ending, TimedOut):
        text = ending.title
    elif isinstance(ending, Lost):
        text = ending.reason
    else:
        how = ending.title
        if isinstance(ending, Signaled):
            how = f"was ended by {signal_name(ending.signal)}"
        text = f"{how}: {result.last_line}" if result.last_line else how
    return f"{text}; {result.left}" if result.left else text
