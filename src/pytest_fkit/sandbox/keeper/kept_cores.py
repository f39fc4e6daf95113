"""Keeps the cores of test processes: lets a crashed process die, finds its core, and moves it.

Keepers of all workers of a run take turns, since a pattern without a pid names one file for all.
"""

from __future__ import annotations

from typing import Iterator

from ... import system
from ...named_tuple import NamedTuple
from ...own import contextmanager, os, own_builtins, signal, suppress, time
from ...protocol.crash_report import Core
from ...protocol.descriptors import read_from
from ...protocol.endings import format_size
from ...system import cores
from ...system.cores import MOST_BYTES, CoreFile
from ...system.paths import base_name, joined, make_directory
from ..process.crash_wait import end_thread
from ..process.tree import Until, is_alive, send_signal
from .debugger import NoTurnError, Runner, installed, take_turn

own_builtins(globals())

# Seconds.
TURN_WAIT = 30.0  # for the keepers of other workers
WRITE_LIMIT = 30.0  # for the kernel, or gdb, to write a core
_PROGRAM_LIMIT = 5.0  # for the program to which cores are piped

_SPARE = 64 << 20
"""Bytes of the disk that are left to others."""

_LOCK = ".fkit-cores"
_MOST_RUNS = 16

_APPORT = "/var/lib/apport/coredump"

HARD_LIMIT = (
    "the hard limit on core files is 0 (RLIMIT_CORE; `ulimit -Hc unlimited` raises it, or "
    "docker's --ulimit core=-1)"
)


class Keeping(NamedTuple):
    """What the user asks for.

    :param most: how many of one run are kept.
    :param run: what tells it from others.
    """

    directory: str
    most: int
    run: str


class Cores:
    """Keeps cores, for one keeper."""

    def __init__(self, keeping: Keeping, runner: Runner, until: Until) -> None:
        self._keeping = keeping
        self._runner = runner
        self._until = until
        self._began = time.time()
        self._seen = (0, "", "")

    def look(self, pid: int) -> None:
        """Note where a process is that runs, and what: when it has died, nobody can say it."""
        with suppress(OSError):
            self._seen = pid, os.readlink(f"/proc/{pid}/cwd"), os.readlink(f"/proc/{pid}/exe")

    def let_die(self, pid: int, thread: int, number: int) -> Core:
        """Let a process die of which a thread waits, and keep its core.

        :param number: of the signal that hit the thread.
        """
        begin = time.monotonic()
        if not is_alive(pid):  # the debugger took longer than it waits
            return self.of_dead(pid, number, dumped=True) or Core()
        send_signal(pid, signal.SIGSTOP)  # or it would wait no longer than for a debugger
        self.look(pid)
        told = cores.pattern()
        try:
            with _turn(self._keeping, self._until) as turn:
                reason = turn.refuses() or self._refuses(pid)
                gdb = installed("gdb") if cores.is_piped(told) and not reason else ""
                taken = self._by_gdb(gdb, pid, thread) if gdb else ""
                if reason or taken:
                    cores.forbid_process(pid)
                self._end(pid, thread, number)
                core = Core(why_not=reason) if reason else self._kept(turn, told, pid, taken)
        except _NoCoreError as error:
            cores.forbid_process(pid)
            self._end(pid, thread, number)
            core = Core(why_not=str(error))
        return core._replace(program=self._program(pid), seconds=time.monotonic() - begin)

    def of_dead(self, pid: int, number: int, dumped: bool) -> Core | None:
        """Keep the core of a process that has died without waiting.

        :param number: of the signal that ended it.
        :param dumped: whether the kernel says that it wrote a core.
        """
        begin = time.monotonic()
        if number not in cores.SIGNALS:
            return None
        if not dumped:
            why = HARD_LIMIT if not cores.hard_limit(0) else "the kernel wrote none"
            return Core(why_not=why)
        try:
            with _turn(self._keeping, self._until) as turn:
                core = self._kept(turn, cores.pattern(), pid, "")
        except _NoCoreError as error:
            core = Core(why_not=str(error))
        return core._replace(program=self._program(pid), seconds=time.monotonic() - begin)

    def _program(self, pid: int) -> str:
        """What the process ran, if it was seen, else what this one does."""
        return self._seen[2] if self._seen[0] == pid else os.readlink("/proc/self/exe")

    def _refuses(self, pid: int) -> str:
        """Why there can't be a core of a process; "" if there can, which it is allowed then."""
        expected = cores.expected_size(pid)
        try:
            hard = cores.hard_limit(pid)
            if not hard:
                return HARD_LIMIT
            if 0 < hard < expected:
                return f"it would have {format_size(expected)}, and its hard limit is {hard} bytes"
            cores.allow_process(pid)
        except OSError as error:
            return f"its limits can't be changed: {error.strerror}"
        if expected > MOST_BYTES:
            return f"it would have {format_size(expected)}, more than {format_size(MOST_BYTES)}"
        if cores.room_in(self._keeping.directory) < expected + _SPARE:
            return f"it would have {format_size(expected)}, and there is too little room for it"
        return ""

    def _end(self, pid: int, thread: int, number: int) -> None:
        end_thread(pid, thread, number)
        send_signal(pid, signal.SIGCONT)
        if not self._until(lambda: not is_alive(pid), WRITE_LIMIT):
            send_signal(pid, signal.SIGKILL)  # which ends the writing of a core

    # --- what was written ---

    def _kept(self, turn: _Turn, told: str, pid: int, taken: str) -> Core:
        """The core of a dead process, in the directory where cores are kept.

        :param taken: its path, if gdb has written it.
        """
        path = taken or self._found(told, pid)
        if not path:
            return Core(why_not=_unreached(told))
        refused = turn.refuses()
        cut = not taken and not cores.is_whole(path, cores.read_core(path))
        if refused or cut:
            _remove(path)
            return Core(
                why_not=refused or f"it has more than {format_size(MOST_BYTES)}, or its limit"
            )
        kept = self._place(pid)
        try:
            if path != kept:
                cores.move(path, kept)
        except OSError as error:
            return Core(why_not=f"{path} could not be moved: {error.strerror}")
        turn.count()
        return Core(kept)

    def _place(self, pid: int) -> str:
        return joined(self._keeping.directory, f"core.{pid}")

    def _found(self, told: str, pid: int) -> str:
        if not cores.is_piped(told):
            seen, directory, _ = self._seen
            places = {os.getcwd(): None} if seen != pid else {directory: None, os.getcwd(): None}
            files = (each for place in places for each in cores.written(told, place))
            return next((each for each in files if self._is_of(pid, each)), "")
        if "systemd-coredump" in told and installed("coredumpctl"):
            return self._by_coredumpctl(pid)
        return self._by_apport(pid) if "apport" in told else ""

    def _is_of(self, pid: int, path: str) -> bool:
        try:
            is_new = os.lstat(path).st_mtime > self._began - 2
        except OSError:
            return False
        return is_new and cores.read_core(path).pid == pid

    def _by_gdb(self, gdb: str, pid: int, thread: int) -> str:
        """The core that gdb writes of a process that waits, "" if it can't."""
        path = self._place(pid)
        # The core's own thread is the one that is selected; a gdb without Python has the main one.
        threads = "gdb.selected_inferior().threads()"
        selected = f"python [each.switch() for each in {threads} if each.ptid[1] == {thread}]"
        command = (
            gdb, "-nx", "-batch", "-iex", "set debuginfod enabled off",
            "-iex", "set auto-load off", "-p", str(pid), "-ex", selected,
            "-ex", f"generate-core-file {path}",
        )  # fmt: skip
        self._ask(command, WRITE_LIMIT)
        core = cores.read_core(path)
        if core != CoreFile(0, 0) and cores.is_whole(path, core):
            return path
        _remove(path)
        return ""

    def _by_coredumpctl(self, pid: int) -> str:
        """The core that systemd has of a process; it gets it after the process has died."""
        path = self._place(pid)
        command = (installed("coredumpctl"), "dump", f"--output={path}", str(pid))
        end = time.monotonic() + _PROGRAM_LIMIT
        while time.monotonic() < end:
            self._ask(command, WRITE_LIMIT)
            if cores.read_core(path).pid == pid:
                return path
            self._until(lambda: False, 0.2)
        _remove(path)
        return ""

    def _by_apport(self, pid: int) -> str:
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [
                path for path in cores.written("%p", _APPORT)
                if self._is_of(pid, path) and cores.is_whole(path, cores.read_core(path))
            ]  # fmt: skip
            return bool(found)

        return found[0] if self._until(is_there, _PROGRAM_LIMIT) else ""

    def _ask(self, command: tuple[str, ...], limit: float) -> None:
        out = system.anonymous_file("core")
        try:
            self._runner.run(command, out, out, limit)
        finally:
            os.close(out)


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _unreached(told: str) -> str:
    if not cores.is_piped(told):
        return f"none was found where core_pattern, {told!r}, has the kernel write it"
    name = base_name(told[1:].split(" ")[0])
    return (
        f"core_pattern pipes cores to {name}, from which none was to be had here; gdb can take "
        "them from processes, if it is installed and may attach (docker's --cap-add=SYS_PTRACE)"
    )


# --- turns of keepers -----------------------------------------------------------------------------


class _NoCoreError(Exception):
    """Nobody may write a core now; says why."""


@contextmanager
def _turn(keeping: Keeping, until: Until) -> Iterator[_Turn]:
    """Within the block, no other keeper has a core written.

    :raises _NoCoreError: if it can't be had.
    """
    try:
        make_directory(keeping.directory)
        path = joined(keeping.directory, _LOCK)
        descriptor = take_turn(path, os.O_RDWR | os.O_CREAT, until, TURN_WAIT)
    except OSError as error:
        raise _NoCoreError(f"{keeping.directory}: {error.strerror}") from None
    except NoTurnError:
        raise _NoCoreError(f"other cores were written for {TURN_WAIT:g} s") from None
    try:
        yield _Turn(keeping, descriptor)
    finally:
        os.close(descriptor)


class _Turn:
    """What the file that is locked says: line by line, how many cores which run has."""

    def __init__(self, keeping: Keeping, descriptor: int) -> None:
        self._keeping = keeping
        self._descriptor = descriptor

    def _counted(self) -> dict[str, int]:
        lines = (line.split() for line in read_from(self._descriptor).decode().splitlines())
        return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}

    def refuses(self) -> str:
        """Why this run may have no other core, or ""."""
        most = self._keeping.most
        if self._counted().get(self._keeping.run, 0) < most:
            return ""
        return f"{most} of this run are kept (--fkit-keep-cores), others are removed"

    def count(self) -> None:
        """Count another one."""
        counted = self._counted()
        counted[self._keeping.run] = counted.pop(self._keeping.run, 0) + 1
        last = list(counted.items())[-_MOST_RUNS:]
        data = "".join(f"{run} {number}\n" for run, number in last).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
