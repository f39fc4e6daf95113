"""The native stacks in the report on a crash or a hang, from what a debugger printed."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Sequence

from ...own import own_builtins
from ...protocol.crash_report import NativeStacks
from ...protocol.endings import Ending, Signaled, TimedOut, count
from ...protocol.native_frames import (
    NativeFrame,
    NativeThread,
    crashed_frames,
    is_interpreters,
    own_frame,
    threads,
)
from ...protocol.plain_values import carriable
from ...sandbox.process.crash_wait import FATAL
from .deaths import NativeSection

own_builtins(globals())

MOST_LINES = 40
"""Lines shown for one thread; those below are counted."""

MOST_THREADS = 16
"""Threads of a hanging process that are shown; the others are counted."""

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


def section_of(stacks: NativeStacks | None, ending: Ending) -> NativeSection:
    """The native stack of a process that ended so.

    :param stacks: None if nobody was asked.
    """
    if stacks is not None:
        made = section(stacks)
        return made._replace(text=carriable(made.text), function=carriable(made.function))
    number = ending.signal if isinstance(ending, Signaled) else 0
    may_have = number in FATAL or isinstance(ending, TimedOut)
    return NativeSection(NO_TOOL if may_have else "")


def section(stacks: NativeStacks) -> NativeSection:
    """The part of the report on native stacks."""
    frame = own_frame(crashed_frames(stacks))
    place = f" ({frame.place})" if frame is not None and frame.place else ""
    function = "" if frame is None else f"{frame.function}{place}"
    return NativeSection(_text(stacks), function, stacks.alike)


_OF_CRASHED = "native stack of the thread that crashed"
_OF_EARLIER = "native stack of an earlier crash with the same signal, Python stack and stderr"


def _text(stacks: NativeStacks) -> str:
    found = threads(stacks)
    if stacks.thread:
        frames = crashed_frames(stacks)
        if frames:
            whose = _OF_EARLIER if stacks.alike else _OF_CRASHED
            return "\n".join([f"{whose}, by {stacks.tool}:", *shown(frames)])
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
