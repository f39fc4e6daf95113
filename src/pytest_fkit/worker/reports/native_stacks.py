"""The native stacks in the report on a crash or a hang, from what a debugger printed."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Callable, Iterator, Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.crash_report import NativeStacks
from ...protocol.endings import Ending, Signaled, TimedOut, count
from ...protocol.plain_values import carriable
from ...protocol.stacks import Frame, crashed_stack
from ...sandbox.process.crash_wait import FATAL
from ...system.paths import base_name
from .deaths import NativeSection, text_of

own_builtins(globals())

MOST_LINES = 40
"""For one thread; what is below is counted."""

MOST_THREADS = 16
"""Of a process that hangs; the others are counted."""

NO_TOOL = (
    "no native stack: install gdb, elfutils, or pystack (pip install pystack); "
    "--fkit-stacks=python leaves this line out"
)

_NO_PERMISSION = re.compile(
    r"ptrace: Operation not permitted|Operation not permitted \(os error 1\)|Permission denied"
    r"|ptrace_scope|requires.*root|EPERM",
    re.IGNORECASE,
)
_GONE = re.compile(r"is a zombie|No such process")  # of which gdb says "not permitted", too
_ALLOW = (
    "attaching to a process is not permitted here: start the container with --cap-add=SYS_PTRACE, "
    "or run sysctl kernel.yama.ptrace_scope=0"
)


class NativeFrame(NamedTuple):
    """One function of a native stack.

    :param function: "" if unknown.
    :param place: its file and line, or its library, or "".
    :param is_python: whether it is a function of Python's, which pystack and py-spy show.
    """

    function: str
    place: str
    is_python: bool = False


class NativeThread(NamedTuple):
    """The stack of a thread, innermost frame first."""

    number: int
    frames: tuple[NativeFrame, ...]


# --- what tools print ---

_GDB_THREAD = re.compile(r"^Thread \d+ \(.*?LWP (\d+)\)?.*:$")
_GDB_FRAME = re.compile(
    r"^#\d+ +(?:0x[0-9a-f]+ in )?(?P<name>.+?) \(.*?\)"
    r"(?: at (?P<place>\S+:\d+)| from (?P<library>\S+))?$"
)
_EU_THREAD = re.compile(r"^TID (\d+):$")
_EU_FRAME = re.compile(r"^#\d+ +0x[0-9a-f]+(?: (?P<name>\S.*?))?(?: \(inlined\))?$")
_EU_PLACE = re.compile(r"^ {4}(\S.*?:\d+)(:\d+)?$")
_PYSTACK_THREAD = re.compile(r"^Traceback for thread (\d+) ")
_PYSTACK_FRAME = re.compile(
    r'^    \((?P<kind>C|Python)\) File "(?P<file>.*)", line (?P<line>\d+), in (?P<name>.+?)'
    r"(?: \(inlined\))?(?: \((?P<library>/.*)\))?$"
)
_PY_SPY_THREAD = re.compile(r"^Thread (?:0x)?([0-9A-Fa-f]+) ")
_PY_SPY_FRAME = re.compile(r"^    (?P<name>\S.*?) \((?P<place>[^()]*)\)$")


def _gdb(lines: Sequence[str]) -> Iterator[NativeFrame]:
    for line in lines:
        match = _GDB_FRAME.match(line)
        if match:
            name = "" if match["name"] == "??" else match["name"]
            yield NativeFrame(name, match["place"] or base_name(match["library"] or ""))
        elif _HANDLER in line:
            yield NativeFrame(_HANDLER, "")


def _eu_stack(lines: Sequence[str]) -> Iterator[NativeFrame]:
    for number, line in enumerate(lines):
        frame = _EU_FRAME.match(line)
        if frame:
            name = (frame["name"] or "").partition("@")[0]
            place = _EU_PLACE.match("".join(lines[number + 1 : number + 2]))
            yield NativeFrame(_named(name), place[1] if place else "")


def _pystack(lines: Sequence[str]) -> Iterator[NativeFrame]:
    for match in filter(None, map(_PYSTACK_FRAME.match, reversed(lines))):
        line = f"{match['file']}:{match['line']}" if int(match["line"]) else ""
        place = line or base_name(match["library"] or "")
        yield NativeFrame(_named(match["name"].strip("?")), place, match["kind"] == "Python")


def _py_spy(lines: Sequence[str]) -> Iterator[NativeFrame]:
    for match in filter(None, map(_PY_SPY_FRAME.match, lines)):
        name = "" if match["name"].startswith("0x") else match["name"]
        is_python = match["place"].partition(":")[0].endswith(".py")
        yield NativeFrame(name, match["place"], is_python)


_HANDLER = "<signal handler called>"
"""The name of the frame between a handler and what the signal interrupted."""


def _named(function: str) -> str:
    return _HANDLER if function == "__restore_rt" else function


_PARSERS: dict[str, tuple[re.Pattern[str], Callable[[Sequence[str]], Iterator[NativeFrame]]]] = {
    "gdb": (_GDB_THREAD, _gdb),
    "eu-stack": (_EU_THREAD, _eu_stack),
    "pystack": (_PYSTACK_THREAD, _pystack),
    "py-spy": (_PY_SPY_THREAD, _py_spy),
}
"""By tool, the line that begins a thread, and what reads the lines after it."""


# --- what the report shows ---

_INTERPRETER = re.compile(
    r"_?_?Py[A-Z_]|_ctypes_|PyInit|pymain|pyrun_|run_(mod|eval_code_obj)$|Py_|_Py|"
    r"(cfunction|method|function_code|slot|wrap|type|object|builtin|vectorcall|context_run|"
    r"partial|bound|gen_send|call)_?\w*(call|vectorcall|exec|FASTCALL|fastcall|new|init)\w*$|"
    r"(_start|main|__libc_start\w*|call_init|ffi_call\w*|_call_function_pointer)$"
)
_INTERPRETERS_FILE = re.compile(
    r"(^|/)(Python|Objects|Modules|\.?/?Include)/|libpython|^python3|libffi|^_ctypes\.|/_ctypes/"
)


_PYTEST = re.compile(r"(^|/)(_pytest|pluggy|pytest_fkit|xdist|execnet)/")


def is_interpreters(frame: NativeFrame) -> bool:
    """Whether a frame is the interpreter's own or pytest's, or nothing is known of it."""
    if frame.is_python:
        return bool(_PYTEST.search(frame.place))
    if not (frame.function or frame.place):
        return True
    named = frame.function and _INTERPRETER.match(frame.function)
    return bool(named or _INTERPRETERS_FILE.search(frame.place))


def without_handlers(frames: Sequence[NativeFrame]) -> tuple[NativeFrame, ...]:
    """The frames that a signal interrupted: without those of faulthandler's and of our waiting."""
    names = [frame.function for frame in frames]
    if _HANDLER in names:
        first = len(names) - names[::-1].index(_HANDLER)
    elif "pause" in names:  # py-spy does not show where handlers begin
        first = names.index("pause") + 1
        if "raise" in names[first:]:
            first = names.index("raise", first) + 1
    else:
        first = 0
    return tuple(frames[first:]) or tuple(frames)


_RUNTIMES_FILE = re.compile(
    r"^(\.\.?/(sysdeps|nptl|stdlib|signal|csu|malloc|debug|libio|assert)/|lib(c|pthread|stdc\+\+|gcc_s)[.-])"
)
_RUNTIMES = re.compile(
    r"(__|_IO_|_Unwind_|std::terminate|std::__throw_|__cxxabiv1::|__gnu_cxx::)|"
    r"(raise|abort|kill|tgkill|pause)$"
)


def own_frame(frames: Sequence[NativeFrame]) -> NativeFrame | None:
    """The innermost frame of neither the interpreter's nor the C and C++ runtimes'."""
    return next((frame for frame in frames if _is_own(frame)), None)


def _is_own(frame: NativeFrame) -> bool:
    if not frame.function or frame.is_python or is_interpreters(frame):
        return False
    return not (_RUNTIMES.match(frame.function) or _RUNTIMES_FILE.search(frame.place))


def shown(frames: Sequence[NativeFrame]) -> list[str]:
    """The lines for a stack, innermost frame first, and the innermost own one marked.

    Where none is, the crash is the interpreter's: then its innermost function is shown.
    """
    marked = own_frame(frames)
    lines: list[str] = []
    if marked is None and frames and is_interpreters(frames[0]) and frames[0].function:
        lines, frames = [f"    {_described(frames[0])}"], frames[1:]
    for folded, group in groupby(frames, is_interpreters):
        members = list(group)
        if folded:
            lines.append(f"    … {count(len(members), 'frame')} of the interpreter and pytest")
            continue
        for frame, again in groupby(members):
            repeated = len(list(again)) - 1
            lines.append(f"  {'> ' if frame is marked else '  '}{_described(frame)}")
            if repeated > 1 and frame.function:
                lines.append(f"    … the same frame {repeated} times more")
            else:
                lines += [f"    {_described(frame)}"] * repeated
    left = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"    … {left} more lines"] if left > 0 else lines


def _described(frame: NativeFrame) -> str:
    kind = " (Python)" if frame.is_python else ""
    place = f" at {frame.place}" if frame.place else ""
    return f"{frame.function or '??'}{place}{kind}"


def threads(stacks: NativeStacks) -> list[NativeThread]:
    """All threads that the tool showed."""
    begin, read = _PARSERS[stacks.tool]
    blocks: list[tuple[int, list[str]]] = []
    for line in stacks.text.decode("utf-8", "replace").splitlines():
        match = begin.match(line)
        if match:
            blocks.append((int(match[1], 16 if re.search("[a-fA-F]", match[1]) else 10), []))
        elif blocks:
            blocks[-1][1].append(line)
    return [NativeThread(number, tuple(read(lines))) for number, lines in blocks]


def crashed_frames(stacks: NativeStacks) -> tuple[NativeFrame, ...]:
    """The stack of the thread that crashed, as far as the tool showed it."""
    for thread in threads(stacks):
        if thread.number == stacks.thread:
            return without_handlers(thread.frames)
    return ()


class Sections:
    """The parts of reports on native stacks, of one process that makes reports.

    It remembers some: of crashes like an earlier one the keeper asks no debugger any more.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[Frame, ...]], NativeSection] = {}

    def of(self, stacks: NativeStacks | None, ending: Ending, dump: bytes) -> NativeSection:
        """That of a process which ended so.

        :param stacks: None if nobody was asked.
        """
        number = ending.signal if isinstance(ending, Signaled) else 0
        if stacks is None:
            may_have = number in FATAL or isinstance(ending, TimedOut)
            return NativeSection(NO_TOOL if may_have else "")
        crash = number, crashed_stack(text_of(dump))
        if stacks.alike and crash in self._known:
            return self._known[crash]
        made = NativeSection(*map(carriable, section(stacks)))
        if made.function and len(self._known) < _MOST_KNOWN:
            text = made.text.replace(_OF_CRASHED, _OF_EARLIER, 1)
            self._known[crash] = made._replace(text=text)
        return made


_MOST_KNOWN = 256
"""Crashes of which the stacks are remembered."""


def section(stacks: NativeStacks) -> NativeSection:
    """The part of the report on native stacks."""
    frame = own_frame(crashed_frames(stacks))
    place = f" ({frame.place})" if frame is not None and frame.place else ""
    return NativeSection(_text(stacks), "" if frame is None else f"{frame.function}{place}")


_OF_CRASHED = "native stack of the thread that crashed"
_OF_EARLIER = "native stack of an earlier crash with the same signal and Python stack"


def _text(stacks: NativeStacks) -> str:
    found = threads(stacks)
    if stacks.thread:
        frames = crashed_frames(stacks)
        if frames:
            title = f"{_OF_CRASHED}, by {stacks.tool}:"
            return "\n".join([title, *shown(frames)])
        if found:
            return f"no native stack: {stacks.tool} does not show the thread that crashed"
    elif found:
        return "\n".join([f"native stacks of all threads, by {stacks.tool}:", *_folded(found)])
    return f"no native stack: {stacks.tool}: {_trouble(stacks)}"


def _folded(found: Sequence[NativeThread]) -> list[str]:
    """The stacks of all threads, equal ones once."""
    numbers: dict[tuple[NativeFrame, ...], list[int]] = {}
    for thread in found:
        numbers.setdefault(thread.frames, []).append(thread.number)
    lines: list[str] = []
    for frames, equal in list(numbers.items())[:MOST_THREADS]:
        others = f" and {len(equal) - 1} more" if len(equal) > 1 else ""
        lines += [f"thread {equal[0]}{others}:", *shown(frames)]
    left = sum(map(len, list(numbers.values())[MOST_THREADS:]))
    return [*lines, f"… {left} more threads"] if left else lines


def _trouble(stacks: NativeStacks) -> str:
    said = stacks.said.decode("utf-8", "replace") + stacks.text.decode("utf-8", "replace")
    if _GONE.search(said):
        return "the process died before it was looked at"
    if _NO_PERMISSION.search(said):
        return _ALLOW
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return stacks.trouble or "it printed nothing"
    last = lines[-1][:200]
    return f"{stacks.trouble}: {last}" if stacks.trouble else last
