"""The report that explains how a test process ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ...own import own_builtins
from ...protocol.endings import (
    Ending,
    Exited,
    MemoryExceeded,
    Signaled,
    TimedOut,
    Unmet,
    Unreported,
)
from ...protocol.event_file import ReportData, add_facts
from ...protocol.plain_values import carriable
from ...system.paths import below, joined

if TYPE_CHECKING:
    from pathlib import Path

    from ...protocol.messages import Ended

own_builtins(globals())

_FRAME = re.compile(r'^  File "(?P<path>.*)", line (?P<line>\d+|\?\?\?) in (?P<name>.*)$')

# As traceback.c of CPython writes it; from 3.14 on the thread's name may be there, in brackets.
_THREAD = re.compile(r"^(Current t|T)hread 0x.*:$")

# The C functions of the crashing thread, from Python 3.14 on: _Py_DumpStack in traceback.c, which
# faulthandler calls after the stacks of all threads and before the line "Extension modules: ...".
_C_STACK = "Current thread's C stack trace ("

# Our functions that call pytest in test processes; stacks end where they begin.
_OURS = {
    "run_steps",
    "set_up",
    "fill_in",
    "fill_once",
    "tear_down",
    "_tear_down_quietly",
    "run_own",
    "_collect_and_leave",
}

# Signals for which faulthandler, or our use of it, writes the stacks.
_WITH_STACK = {"SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL", "SIGTERM"}


class Frame(NamedTuple):
    """One line of a stack as faulthandler writes it."""

    path: str
    line: int
    name: str


class Death(NamedTuple):
    """Everything known about a test process that did not finish.

    :param phase: "setup", "call", "teardown" or "exit" (after the test, in exit handlers).
    :param seconds: from the beginning of the phase.
    :param wide: what the host was doing to wide fixtures ("setup", "teardown"), or "".
    :param fixture: the wide fixture that was being set up, or "".
    """

    nodeid: str
    ended: Ended
    phase: str
    seconds: float
    worker: str
    wide: str
    fixture: str
    reproduce: str

    @property
    def when(self) -> str:
        """The phase as pytest names it in a report."""
        return "teardown" if self.phase == "exit" else self.phase

    @property
    def ending(self) -> Ending:
        return self.ended.ending

    @property
    def dump(self) -> str:
        """What faulthandler wrote."""
        return text_of(self.ended.dump)


def text_of(data: bytes) -> str:
    """What a process wrote, as text."""
    return data.decode("utf-8", "replace")


def reorder_stacks(dump: str) -> str:
    """Faulthandler's text, with the stack of the crashing thread first.

    Only the last fatal error counts: processes that the test forked write into the same file.
    """
    _, fatal, rest = dump.rpartition("Fatal Python error: ")
    blocks: list[list[str]] = [[]]
    for line in (fatal + rest).splitlines():
        if _THREAD.match(line) or line.startswith(_C_STACK):
            blocks.append([])
        blocks[-1].append(line)
    head, stacks = blocks[0], blocks[1:]
    # The C functions stand below the Python functions of their thread.
    order = ("Current thread 0x", _C_STACK, "Thread 0x")
    stacks.sort(key=lambda block: [block[0].startswith(each) for each in order].index(True))
    stacks = [_without_our_frames(block) for block in stacks]
    return "\n".join(
        line for block in (head, *stacks) for line in block if line.strip() or block is head
    ).strip()


def _without_our_frames(block: list[str]) -> list[str]:
    """The stack without our frames below pytest's."""
    if block[0].startswith(_C_STACK):
        return [block[0], *(line for line in block[1:] if line.startswith("  "))]
    for number, line in enumerate(block):
        match = _FRAME.match(line)
        if match is not None and match["name"] in _OURS and "pytest_fkit" in match["path"]:
            return block[:number]
    return block


def innermost_frame(dump: str, rootdir: Path) -> Frame | None:
    """The innermost frame under `rootdir`: of the crashing thread, else of any other.

    Installed packages don't count, though a virtual environment may lie under `rootdir`.
    """
    for line in reorder_stacks(dump).splitlines():
        match = _FRAME.match(line)
        if match is None or not match["line"].isdigit():
            continue
        if match["path"].startswith("<"):  # frozen, or made by exec()
            continue
        relative = below(joined(str(rootdir), _unescaped(match["path"])), str(rootdir))
        if relative is None:
            continue
        if not {"site-packages", "dist-packages"} & set(relative.split("/")):
            return Frame(relative, int(match["line"]), match["name"])
    return None


def _unescaped(text: str) -> str:
    # faulthandler writes non-ASCII characters of file names as \xhh, \uhhhh and \Uhhhhhhhh.
    return re.sub(
        r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))",
        lambda match: chr(int(match[1] or match[2] or match[3], 16)),
        text,
    )


def headline(death: Death, rootdir: Path) -> str:
    """One line: how it ended and where, as in "SIGSEGV at tests/test_x.py:27 in test_segv"."""
    frame = innermost_frame(death.dump, rootdir)
    text = death.ending.title
    if death.fixture and death.wide == "setup":
        text += f" while setting up {death.fixture}"
    elif death.wide == "teardown":
        text += " while tearing down wide fixtures"
    elif death.phase == "exit":
        text += " in an exit handler"
    if frame is not None:
        text += f" at {frame.path}:{frame.line} in {frame.name}"
    return text


def story(death: Death) -> str:
    """The body of the report."""
    process = f"pid {death.ended.pid}" if death.ended.pid else "no process"
    lines = [
        f"{death.nodeid}: the test process {death.ending.story}",
        (
            f"phase {_phase(death)}, {death.seconds:.2f} s after its begin; "
            f"worker {death.worker}, {process}"
        ),
        "",
        _stacks(death),
    ]
    for title, processes in (
        ("processes that the test left running, now ended:", death.ended.leftovers),
        ("processes that not even SIGKILL ended, now left alone:", death.ended.survivors),
        ("processes that still have GPUs open, and memory there:", death.ended.hold_gpus),
        ("GPU memory not given back:", death.ended.gpu_memory),
    ):
        if processes:
            lines += ["", title, *(f"  {text}" for text in processes)]
    lines += ["", f"reproduce: {death.reproduce}"]
    return "\n".join(lines)


def _phase(death: Death) -> str:
    if death.wide == "setup":
        return f"setup of {death.fixture or 'wide fixtures'}"
    if death.wide == "teardown":
        return "teardown of wide fixtures"
    if death.phase == "exit":
        return "exit handlers, after the test"
    return death.phase


def _stacks(death: Death) -> str:
    if death.dump.strip():
        return f"Python stacks at that moment:\n{reorder_stacks(death.dump)}"
    return f"no Python stack: {_why_no_stack(death.ending)}"


def _why_no_stack(ending: Ending) -> str:
    if isinstance(ending, Exited):
        return "a process that exits by itself (os._exit, os.execv and the like) leaves none"
    if isinstance(ending, Signaled) and ending.title == "SIGKILL":
        return "SIGKILL ends a process at once"
    if isinstance(ending, Signaled) and ending.title in _WITH_STACK:
        return "the signal handler that writes it was replaced, or its descriptor closed"
    if isinstance(ending, Signaled):
        return f"Python's fault handler does not handle {ending.title}"
    if isinstance(ending, (TimedOut, MemoryExceeded)):
        return "the process did not answer within 200 ms (blocked signals, or inside the kernel)"
    if isinstance(ending, Unreported):
        return "the process had ended in order"
    if isinstance(ending, Unmet):
        return "there was no process"
    return "the process was not the one that failed"


def text_with_message(text: str, message: str, path: str, line: int) -> ReportData:
    """The "longrepr" of a failed report that shows `text`, and `message` in the short summary.

    In the format of pytest_report_to_serializable: to make the object takes pytest's private
    classes.
    """
    crash = {"path": path, "lineno": line, "message": message}
    traceback = {
        "reprentries": [{"type": "ReprEntryNative", "data": {"lines": [text + "\n"]}}],
        "extraline": None,
        "style": "native",
    }
    return {
        "reprcrash": crash,
        "reprtraceback": traceback,
        "sections": [],
        "chain": [(traceback, crash, None)],
    }


def report_data(
    death: Death,
    location: tuple[str, int | None, str],
    keywords: dict[str, int],
    rootdir: Path,
    start: float,
    expected: str | None,
) -> ReportData:
    """The report in the format of pytest_report_to_serializable.

    :param start: of the phase, in seconds since the epoch.
    :param expected: the reason if the death was expected (xfail), else None.
    """
    frame = innermost_frame(death.dump, rootdir)
    message = headline(death, rootdir)
    path = joined(str(rootdir), frame.path if frame is not None else location[0])
    line = frame.line if frame is not None else (location[1] or 0) + 1
    ended = death.ended
    out, err, log = text_of(ended.out), text_of(ended.err), text_of(ended.log).strip()
    sections = [
        (f"Captured {name} {death.when}", text)
        for name, text in (("stdout", out), ("stderr", err), ("log", log))
        if text
    ]
    data: ReportData = {
        "$report_type": "TestReport",
        "nodeid": death.nodeid,
        "location": location,
        "keywords": keywords,
        "outcome": "failed",
        "longrepr": text_with_message(story(death), message, path, line),
        "when": death.when,
        "user_properties": [],
        "sections": sections,
        "duration": death.seconds,
        "start": start,
        "stop": start + death.seconds,
    }
    add_facts(
        data,
        death=carriable(message),
        worker=death.worker,
        leftovers=carriable(ended.leftovers),
        gpu_memory=carriable(ended.gpu_memory),
    )
    if expected is not None:
        data["outcome"] = "skipped"
        data["wasxfail"] = expected
    return data
