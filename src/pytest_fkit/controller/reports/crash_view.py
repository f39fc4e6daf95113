"""How a crash is shown: the user's frames with their source lines, the rest folded.

Decided on values; :mod:`.crash_shown` reads sources and writes.
"""

from __future__ import annotations

from typing import Callable, Iterator, Sequence, Union

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.crash_report import CrashReport
from ...protocol.endings import count
from ...protocol.stacks import FATAL_ERROR, FATAL_ERRORS, Frame, Origins, Thread, parsed
from ...system.paths import base_name, below, joined
from ...system.source_lines import NOTHING, Excerpt

own_builtins(globals())


class Text(NamedTuple):
    """A line as it is.

    :param red: whether it says what happened, as pytest's lines with an E in front.
    """

    text: str
    red: bool = False


class FrameLocation(NamedTuple):
    """The location of a frame, in front of its source lines."""

    path: str
    line: int
    text: str


class Source(NamedTuple):
    """Source lines, the indents in front of which are not to be highlighted."""

    lines: Sequence[str]
    indents: Sequence[str]


Part = Union[Text, FrameLocation, Source]

Reader = Callable[[Frame, int], Excerpt]
"""Gives the line of a frame, and so many before and after it."""


class Fold(NamedTuple):
    """Frames that are not shown.

    :param label: whose they are, as in "pytest".
    """

    frames: Sequence[Frame]
    label: str

    def __str__(self) -> str:
        return f"… {count(len(self.frames), 'frame')} of {self.label}"


class Repeated(NamedTuple):
    """The frames before this are there so many times more, as in a recursion."""

    frames: int
    times: int

    def __str__(self) -> str:
        what = "the same frame" if self.frames == 1 else f"the same {self.frames} frames"
        return f"… {what} {self.times} times more"


Shown = Union[Frame, str, Fold, Repeated]

_AROUND = 2
"""Source lines that are shown before and after that of a frame."""

_IN_FULL = 5
"""Frames with lines around theirs, from either end, where the style is "auto"."""

_LONGEST_CYCLE = 8

_NAMED_THREADS = 4
"""Threads that wait and are named."""

# Where threads of the standard library wait for something.
_WAITS = frozenset(
    {
        "threading.py", "queue.py", "selectors.py", "socket.py", "ssl.py", "subprocess.py",
        "socketserver.py", "thread.py", "process.py", "connection.py", "queues.py",
        "synchronize.py", "popen_fork.py", "pool.py", "base_events.py", "_base.py",
    }
)  # fmt: skip

# What faulthandler writes of signals, which the first line of the report says by itself.
_SAID = frozenset(FATAL_ERROR + name for name in FATAL_ERRORS)


def frames_of(thread: Thread, origins: Origins) -> list[Shown]:
    """What is shown of a thread: the user's frames, and those of the library that they called.

    Who tests a library has it in site-packages as often as not: what is there counts as the user's.
    """
    entries: list[Shown] = []
    folded: list[Frame] = []
    rest = list(thread.lines)
    shown = False
    while rest:
        line = rest.pop(0)
        if isinstance(line, str):
            entries += _fold(folded, origins)
            entries.append(_note(line))
        elif origins.is_tool(line) or (
            origins.is_library(line) and (shown or not _is_called_by_user(rest, origins))
        ):
            folded.append(line)
        else:
            entries += _fold(folded, origins)
            entries.append(line)
            shown = shown or not origins.is_library(line)
    entries += _fold(folded, origins)
    if not any(isinstance(entry, Frame) for entry in entries):
        return _nothing_folded(thread, origins)
    return _without_cycles(entries)


def _note(line: str) -> str:
    text = line.strip()
    return "… more frames, which faulthandler does not write" if text == "..." else text


def _is_called_by_user(rest: Sequence[Frame | str], origins: Origins) -> bool:
    """Whether the next frame outside of the standard library is the user's."""
    frames = (line for line in rest if isinstance(line, Frame))
    caller = next((frame for frame in frames if not origins.is_library(frame)), None)
    return caller is not None and not origins.is_tool(caller)


def _fold(folded: list[Frame], origins: Origins) -> Iterator[Fold]:
    """The frames collected so far, as one line; none are left there."""
    if folded:
        frames, folded[:] = list(folded), []
        label = "pytest" if any(map(origins.is_tool, frames)) else "Python's library"
        yield Fold(frames, label)


def _nothing_folded(thread: Thread, origins: Origins) -> list[Shown]:
    """The innermost frames, whoever's they are, of a thread in which no code of the user's runs."""
    head = [line if isinstance(line, Frame) else _note(line) for line in thread.lines[:3]]
    return [*head, *_fold([line for line in thread.lines[3:] if isinstance(line, Frame)], origins)]


def _without_cycles(entries: list[Shown]) -> list[Shown]:
    """Fold what repeats itself at least three times in a row."""
    found: list[Shown] = []
    start = 0
    while start < len(entries):
        for length in range(1, _LONGEST_CYCLE + 1):
            cycle = entries[start : start + length]
            end = start + length
            while len(cycle) == length and entries[end : end + length] == cycle:
                end += length
            times = (end - start) // length
            if times >= 3:
                frames = sum(1 for entry in cycle if isinstance(entry, Frame))
                found += [*cycle, Repeated(frames, times - 1)]
                start = end
                break
        else:
            found.append(entries[start])
            start += 1
    return found


def waits(thread: Thread, origins: Origins) -> bool:
    """Whether a thread only waits, in the standard library; or runs no Python code."""
    frames = thread.frames
    if not frames:
        return True
    return origins.is_library(frames[0]) and base_name(frames[0].path) in _WAITS


# --- the report -----------------------------------------------------------------------------------


def parts_of(
    crash: CrashReport, headline: str, style: str, everything: bool, read: Reader
) -> list[Part]:
    """The report on a crash.

    :param headline: the line that the short summary shows.
    :param style: as of pytest's ``--tb``.
    :param everything: whether nothing is folded.
    """
    if style == "line":
        return [Text(f"E   {crash.what}", red=True), Text(headline)]
    parts: list[Part] = [*map(Text, crash.before)]
    if crash.stacks:
        parts += _stacks(crash, style, everything, read)
    return [*parts, *map(Text, crash.after)]


def _stacks(crash: CrashReport, style: str, everything: bool, read: Reader) -> Iterator[Part]:
    stacks = parsed(crash.stacks)
    said = [line for line in stacks.fatal if everything or line not in _SAID]
    yield from map(Text, [*said, ""] if said else said)
    threads = list(stacks.threads)
    if threads and not any(thread.current for thread in threads):
        yield Text(f"E   {crash.what}", red=True)
        yield Text("the thread that crashed runs no Python code; where the others were:")
        threads.reverse()  # as faulthandler writes them, the main thread is the last
    waiting = []
    for number, thread in enumerate(threads):
        if number and not everything and waits(thread, crash.origins):
            waiting.append(thread)
            continue
        if number or everything or not thread.current:
            yield Text("")
            yield Text(f"thread {thread.name}:" if thread.name else _title(thread, everything))
        what = crash.what if thread.current and not number else ""
        shown = style if number == 0 or everything or style == "native" else "short"
        yield from _thread(thread, crash.origins, what, shown, everything, read)
    if waiting:
        yield Text("")
    for thread in waiting[:_NAMED_THREADS]:
        yield Text(_waiting(thread, crash.origins))
    if waiting[_NAMED_THREADS:]:
        yield Text(f"… {len(waiting) - _NAMED_THREADS} more threads that wait")
    if stacks.native:
        yield from map(Text, ["", "C functions of that thread:", *stacks.native])


def _title(thread: Thread, everything: bool) -> str:
    return thread.title if everything else "another thread:"


def _waiting(thread: Thread, origins: Origins) -> str:
    name = f" {thread.name}" if thread.name else ""
    frames = thread.frames
    if not frames:
        return f"… thread{name} runs no Python code"
    text = f"… thread{name} waits: {_short(frames[0], origins)}"
    users = next((each for each in frames if _is_of_user(each, origins)), None)
    return text if users is None else f"{text}, for {_short(users, origins)}"


def _is_of_user(frame: Frame, origins: Origins) -> bool:
    return not (origins.is_library(frame) or origins.is_tool(frame))


def _short(frame: Frame, origins: Origins) -> str:
    if origins.is_library(frame):
        path = below(frame.path, origins.library)
    else:
        path = below(joined(origins.rootdir, frame.path), origins.rootdir)
    return f"{path or frame.path}:{frame.line} in {frame.name}"


def _thread(
    thread: Thread, origins: Origins, what: str, style: str, everything: bool, read: Reader
) -> Iterator[Part]:
    entries = list(thread.lines) if everything else frames_of(thread, origins)
    frames = [entry for entry in entries if isinstance(entry, Frame)]
    full = frames[:_IN_FULL] + frames[-_IN_FULL:]
    marked = False
    for number, entry in enumerate(entries):
        if not isinstance(entry, Frame):
            yield Text(f"  {str(entry).strip()}" if style == "native" else str(entry).strip())
            continue
        users = _is_of_user(entry, origins)
        reason = ""
        if not marked and (users or number == 0 or not everything):
            reason, marked = what, True
        if style == "native":
            yield from _native(entry, read if users else None, reason)
        elif not users and everything:
            yield FrameLocation(entry.path, entry.line, f"in {entry.name}")
            yield from _reason(reason)
        elif users and (style == "long" or (style == "auto" and entry in full)):
            yield from _long(entry, reason, read)
        else:
            yield from _one_line(entry, reason, read)


def _one_line(frame: Frame, reason: str, read: Reader) -> Iterator[Part]:
    """As in pytest's style "short"."""
    yield FrameLocation(frame.path, frame.line, f"in {frame.name}")
    excerpt = read(frame, 0)
    if excerpt.lines:
        yield Source([line.strip() for line in excerpt.lines], ["    "])
    yield from _reason(reason)


def _long(frame: Frame, reason: str, read: Reader) -> Iterator[Part]:
    """The source line and some around it, marked as in pytest's style "long"."""
    excerpt = read(frame, _AROUND)
    yield FrameLocation(frame.path, frame.line, f"in {frame.name}")
    if not excerpt.lines:
        yield from (*_reason(reason), Text(""))
        return
    filled = filter(str.strip, excerpt.lines)
    margin = min((len(line) - len(line.lstrip()) for line in filled), default=0)
    lines = [line[margin:] for line in excerpt.lines]
    at = frame.line - excerpt.first
    indents = ["    " if number != at else ">   " for number in range(len(lines))]
    yield Source(lines[: at + 1], indents[: at + 1])
    if reason:
        marked = lines[at]
        yield Text(f"E   {' ' * (len(marked) - len(marked.lstrip()))}{reason}", red=True)
    if lines[at + 1 :]:
        yield Source(lines[at + 1 :], indents[at + 1 :])
    yield Text("")


def _native(frame: Frame, read: Reader | None, reason: str) -> Iterator[Part]:
    """As faulthandler writes it, with the source line, as Python writes that."""
    yield Text(f'  File "{frame.path}", line {frame.line or "???"} in {frame.name}')
    excerpt = NOTHING if read is None else read(frame, 0)
    yield from (Text(f"    {line.strip()}") for line in excerpt.lines)
    yield from _reason(reason)


def _reason(text: str) -> Iterator[Text]:
    if text:
        yield Text(f"E   {text}", red=True)
