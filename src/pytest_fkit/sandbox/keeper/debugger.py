"""Asks a debugger for the native stacks of a test process that crashed or hangs.

Such tools run one at a time on a machine: they would slow each other down, and the tests.
"""

from __future__ import annotations

import errno
import math
import re
from typing import TYPE_CHECKING, Callable, Sequence

from ... import system
from ...named_tuple import NamedTuple
from ...own import fcntl, os, own_builtins, signal, subprocess, time
from ...protocol.crash_report import NativeStacks
from ...protocol.descriptors import read_from
from ...system.paths import program
from ..process.crash_wait import SUPPORTED
from ..process.tree import Until

if TYPE_CHECKING:
    from ...config.settings import Settings

own_builtins(globals())

LIMIT = 10.0
"""Seconds that a tool may take, the wait for its turn included."""

_KILL_WAIT = 1.0

_TURN = "/tmp"  # noqa: S108 (nothing is written there)
"""A directory of each machine. A lock on it, see flock(2), keeps nobody from using it."""

MOST_OUTPUT = 1 << 20
"""Bytes of its output that are read: 200 threads of 40 frames have about 800 KiB."""

_NOT_FOR_TOOLS = re.compile(
    # What a test needs, or a sanitizer, and what would stop or mislead an interpreter of its own.
    r"(LD_PRELOAD|LD_AUDIT|PYTHON.*|COVERAGE_.*|(A|L|T|M|UB)SAN_OPTIONS|DEBUGINFOD_URLS)$"
)


class Tool(NamedTuple):
    """A program that prints the native stacks of a process.

    :param arguments: all but the pid, which comes last.
    :param of_core: those for a core, with places for paths; none if the tool reads no cores.
    :param path: of the tool, once found.
    """

    name: str
    arguments: tuple[str, ...]
    of_core: tuple[str, ...] = ()
    path: str = ""

    def unasked(self, why: str) -> NativeStacks:
        """What is said where it is not asked, see :class:`.crash_report.NativeStacks`."""
        return NativeStacks(self.name, 0, b"", why, b"", 0.0)


_GDB = (
    "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load off",
    "-ex", "set width 0", "-ex", "set print frame-arguments none",
    "-ex", "thread apply all bt 200",
)  # fmt: skip

TOOLS = (
    Tool("pystack", ("remote", "--native-all"), ("core", "--native-all", "{core}", "{program}")),
    Tool("gdb", (*_GDB, "-p"), (*_GDB, "{program}", "{core}")),
    Tool("eu-stack", ("-i", "-s", "-p"), ("-i", "-s", "--core={core}", "--executable={program}")),
    Tool("py-spy", ("dump", "--native", "--pid")),
)
"""In the order in which they are tried where a process hangs: pystack shows Python's functions
among the native ones, gdb names files and lines and knows all threads, eu-stack is fast, py-spy
shows Python's threads."""

_ON_CRASH = ("gdb", "eu-stack", "pystack", "py-spy")
"""The same where it crashed: gdb and eu-stack look the function up by the address of the call.

That to which a call returns is in the next function if it is the last instruction, as a call of
abort() often is, and pystack 1.7 names that one. The Python stack is there without them.
"""


class Tools(NamedTuple):
    """The tools to ask.

    :param crash: about a process that crashed.
    :param hang: about one that hangs.
    """

    crash: Tool
    hang: Tool


def installed(name: str) -> str:
    """The path of a program, "" if it is not installed."""
    return program(name, os.environ.get("PATH", os.defpath).split(os.pathsep))


def is_wanted(settings: Settings | None) -> bool:
    """Whether the user wants native stacks, and this system has what they take."""
    return SUPPORTED and settings is not None and settings.stacks != "python"


def find_tools() -> Tools | None:
    """The installed tools, with their paths; None if there is none."""
    paths = {tool.name: installed(tool.name) for tool in TOOLS}
    found = [tool._replace(path=paths[tool.name]) for tool in TOOLS if paths[tool.name]]
    if not found:
        return None
    return Tools(min(found, key=lambda tool: _ON_CRASH.index(tool.name)), found[0])


class NoTurnError(Exception):
    """Others had the turn for all the time that there was."""


def take_turn(path: str, flags: int, until: Until, limit: float) -> int:
    """Wait for the turn that a file, or directory, stands for.

    Where its file system knows no locks nobody waits. The kernel takes the turn back from a process
    that dies.

    :return: a descriptor of the file; the turn is over when that is closed.
    :raises OSError: if it can't be opened.
    :raises NoTurnError: if the time was not enough.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    taken = False
    try:
        taken = until(lambda: _is_locked(descriptor), limit)
    finally:
        if not taken:
            os.close(descriptor)
    if not taken:
        raise NoTurnError
    return descriptor


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


class Runner:
    """Runs tools of the keeper's, on a machine one at a time: a debugger may take all of a core.

    :param begins: called with the pid of the tool, which is no orphan.
    :param stop_deadline: returns when a stopped run has to be over, None while it is not stopped.
    """

    def __init__(
        self,
        until: Until,
        begins: Callable[[int], None],
        stop_deadline: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._until = until
        self._begins = begins
        self._stop_deadline = stop_deadline

    def run(self, command: Sequence[str], out: int, err: int, limit: float) -> str:
        """Run one, at most so many seconds; what went wrong, "" if nothing did.

        It waits for its turn half of that time at most, and has what is left. It is ended, too,
        when its output is longer than :data:`MOST_OUTPUT`.

        :param out: descriptor of its output.
        :param err: of its error output.
        """
        begin = time.monotonic()
        limit = min(limit, (self._stop_deadline() or math.inf) - begin)
        if limit <= 0:
            return "the run was stopped"
        try:
            turn = take_turn(_TURN, os.O_RDONLY, self._until, limit / 2)
        except NoTurnError:
            return f"another crash's stack was being taken for {limit / 2:g} s"
        except OSError:  # no such directory in this container
            return self._run(command, out, err, limit)
        try:
            return self._run(command, out, err, limit - (time.monotonic() - begin))
        finally:
            os.close(turn)

    def _run(self, command: Sequence[str], out: int, err: int, limit: float) -> str:
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
                return f"did not answer within {limit:.0f} s"
            return f"exit status {process.returncode}" if process.returncode else ""
        finally:
            if process.returncode is None:
                process.kill()
                self._until(lambda: process.poll() is not None, _KILL_WAIT)
            if process.returncode is None:  # in the kernel, with a process that is there as well
                process.returncode = -signal.SIGKILL  # nobody waits for it: no warning of that
            self._begins(0)


class Debugger:
    """Asks the tools, one process at a time."""

    def __init__(self, tools: Tools, runner: Runner) -> None:
        self.tools = tools
        self._runner = runner

    def stacks(self, pid: int, thread: int = 0, limit: float = LIMIT) -> NativeStacks:
        """The stacks of a process.

        :param thread: the one that crashed, 0 if none did.
        """
        tool = self.tools.crash if thread else self.tools.hang
        tracer = system.tracer(pid)
        if tracer:  # as strace -f of the whole run does; there can't be two
            return tool.unasked(f"traced already, by {system.describe(tracer)}")
        return self._ask(tool, (*tool.arguments, str(pid)), thread, limit)

    def stacks_in(self, core: str, program: str, thread: int) -> NativeStacks:
        """The stacks in a core.

        :param program: path of what left it.
        """
        tool, paths = self.tools.crash, {"core": core, "program": program}
        if not tool.of_core:
            return tool.unasked("it reads no cores")
        return self._ask(tool, [each.format(**paths) for each in tool.of_core], thread, LIMIT)

    def _ask(self, tool: Tool, arguments: Sequence[str], thread: int, limit: float) -> NativeStacks:
        begin = time.monotonic()
        out, err = system.anonymous_file("native-out"), system.anonymous_file("native-err")
        try:
            trouble = self._runner.run((tool.path, *arguments), out, err, limit)
            text, said = read_from(out)[:MOST_OUTPUT], read_from(err)[-MOST_OUTPUT:]
        finally:
            os.close(out)
            os.close(err)
        seconds = time.monotonic() - begin
        return NativeStacks(tool.name, thread, text, trouble, said, seconds)
