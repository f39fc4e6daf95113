"""The native stacks of a process as values, from what a debugger printed."""

from __future__ import annotations

import re
from typing import Callable, Iterator, Sequence

from ..named_tuple import NamedTuple
from ..own import own_builtins
from ..system.paths import base_name
from .crash_report import NativeStacks

own_builtins(globals())


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


# --- whose a function is ---

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


def function_of(stacks: NativeStacks) -> NativeFrame | None:
    """In which function it crashed: the innermost own one, else the interpreter's."""
    frames = crashed_frames(stacks)
    return own_frame(frames) or next(iter(frames), None)
