"""Asks a debugger for the native stacks of a test process that crashed or hangs."""

from __future__ import annotations

import re
from typing import Callable, Sequence

from ... import system
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, signal, subprocess, time
from ...protocol.descriptors import read_from
from ...protocol.messages import NativeStacks
from ...system.paths import program

own_builtins(globals())

LIMIT = 10.0
"""Seconds that a tool may take."""

_KILL_WAIT = 1.0

MOST_OUTPUT = 1 << 20
"""Bytes of its output that are read: 200 threads of 40 frames have about 800 KiB."""

_NOT_FOR_TOOLS = re.compile(
    # What a test needs, or a sanitizer, and what would stop or mislead an interpreter of its own.
    r"(LD_PRELOAD|LD_AUDIT|PYTHON.*|COVERAGE_.*|(A|L|T|M|UB)SAN_OPTIONS|DEBUGINFOD_URLS)$"
)


class Tool(NamedTuple):
    """A program that prints the native stacks of a process.

    :param arguments: all but the pid, which comes last; the path of the program first, once found.
    """

    name: str
    arguments: tuple[str, ...]


TOOLS = (
    Tool("pystack", ("remote", "--native-all")),
    Tool(
        "gdb",
        (
            "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load off",
            "-ex", "set width 0", "-ex", "set print frame-arguments none",
            "-ex", "thread apply all bt 200", "-p",
        ),
    ),
    Tool("eu-stack", ("-i", "-s", "-p")),
    Tool("py-spy", ("dump", "--native", "--pid")),
)  # fmt: skip
"""In the order in which they are tried: pystack shows Python's functions among the native ones,
gdb names files and lines and knows all threads, eu-stack is fast, py-spy shows Python's threads."""


def installed(name: str) -> str:
    """The path of a program, "" if it is not installed."""
    return program(name, os.environ.get("PATH", os.defpath).split(os.pathsep))


def find_tool() -> Tool | None:
    """The first that is installed, with its path; None if none is."""
    for tool in TOOLS:
        path = installed(tool.name)
        if path:
            return tool._replace(arguments=(path, *tool.arguments))
    return None


class Runner:
    """Runs tools of the keeper's, one at a time.

    :param until: waits for a condition, at most so many seconds; returns whether it holds.
    :param begins: called with the pid of the tool, which is no orphan.
    """

    def __init__(
        self, until: Callable[[Callable[[], bool], float], bool], begins: Callable[[int], None]
    ) -> None:
        self._until = until
        self._begins = begins

    def run(self, command: Sequence[str], out: int, err: int, limit: float) -> str:
        """Run one, at most so many seconds; what went wrong, "" if nothing did.

        It is ended, too, when its output is longer than :data:`MOST_OUTPUT`.

        :param out: descriptor of its output.
        :param err: of its error output.
        """
        environ = {
            name: value for name, value in os.environ.items() if not _NOT_FOR_TOOLS.match(name)
        }
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ,
                cwd="/", start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return f"can't be started: {error}"
        self._begins(process.pid)

        def over() -> bool:
            return process.poll() is not None or os.fstat(out).st_size > MOST_OUTPUT

        try:
            if not self._until(over, limit):
                return f"did not answer within {limit:g} s"
            return f"exit status {process.returncode}" if process.returncode else ""
        finally:
            if process.returncode is None:
                process.kill()
                self._until(lambda: process.poll() is not None, _KILL_WAIT)
            if process.returncode is None:  # in the kernel, with a process that is there as well
                process.returncode = -signal.SIGKILL  # nobody waits for it: no warning of that
            self._begins(0)


class Debugger:
    """Asks the tool, one process at a time."""

    def __init__(self, tool: Tool, runner: Runner) -> None:
        self._tool = tool
        self._runner = runner

    def stacks(self, pid: int, thread: int = 0) -> NativeStacks:
        """The stacks of a process, within :data:`LIMIT` seconds.

        :param thread: the one that crashed, 0 if none did.
        """
        name, arguments = self._tool
        begin = time.monotonic()
        out, err = system.anonymous_file("native-out"), system.anonymous_file("native-err")
        try:
            trouble = self._runner.run([*arguments, str(pid)], out, err, LIMIT)
            text, said = read_from(out)[:MOST_OUTPUT], read_from(err)[-MOST_OUTPUT:]
        finally:
            os.close(out)
            os.close(err)
        return NativeStacks(name, thread, text, trouble, said, time.monotonic() - begin)
