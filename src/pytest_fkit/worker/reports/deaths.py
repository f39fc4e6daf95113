"""The report that explains how a test process ended."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ...gpu.slices.ownership import on_machine
from ...named_tuple import NamedTuple
from ...own import own_builtins, signal
from ...protocol.crash_report import PROBABLY, Core, CrashReport
from ...protocol.endings import (
    FAULTS,
    Ending,
    Exited,
    MemoryExceeded,
    Signaled,
    TimedOut,
    Unmet,
    Unreported,
    WrapperEnded,
)
from ...protocol.event_file import ReportData, add_facts
from ...protocol.plain_values import carriable
from ...protocol.stacks import (
    FATAL_ERROR,
    Origins,
    crashed_stack,
    fatal_error,
    innermost_frame,
    reorder_stacks,
)
from ...system.paths import joined

if TYPE_CHECKING:
    from pathlib import Path

    from ...protocol.messages import Ended
    from ...system.diagnostics import Diagnosis

own_builtins(globals())


class NativeSection(NamedTuple):
    """The part of a report on native stacks.

    :param text: of the report; "" where nobody asks for native stacks.
    :param function: the one in which it crashed, and its place, "" if unknown.
    :param inferred: whether they are those of earlier crashes like this one.
    """

    text: str = ""
    function: str = ""
    inferred: bool = False


_NO_CORE = Core()


class Death(NamedTuple):
    """Everything known about a test process that did not finish.

    :param phase: "setup", "call", "teardown" or "exit" (after the test, in exit handlers).
    :param seconds: from the beginning of the phase.
    :param wide: what the host was doing to wide fixtures ("setup", "teardown"), or "".
    :param fixture: the wide fixture that was being set up, or "".
    :param diagnosis: why it ended by its own words, if it said so.
    """

    nodeid: str
    ended: Ended
    phase: str
    seconds: float
    worker: str
    wide: str
    fixture: str
    reproduce: str
    diagnosis: Diagnosis | None = None
    native: NativeSection = NativeSection()
    core: Core = _NO_CORE
    machine: str = ""

    @property
    def when(self) -> str:
        """The phase as pytest names it in a report."""
        return "teardown" if self.phase == "exit" else self.phase

    @property
    def ending(self) -> Ending:
        return self.ended.ending

    @property
    def dump(self) -> str:
        """What faulthandler wrote, or Python itself of a fatal error of its own."""
        written = text_of(self.ended.dump)
        pythons = self.diagnosis is not None and self.diagnosis.line.startswith(FATAL_ERROR)
        return fatal_error(text_of(self.ended.err)) if pythons and not written.strip() else written


def text_of(data: bytes) -> str:
    """What a process wrote, as text."""
    return data.decode("utf-8", "replace")


def what(death: Death) -> str:
    """How it ended, as in "SIGSEGV", why, and what else than the test was at work."""
    title, why = death.ending.title, ""
    after = isinstance(death.ending, WrapperEnded)
    if death.diagnosis is not None and death.diagnosis.instead:
        title = death.diagnosis.reason
    elif death.diagnosis is not None:
        why = f": {death.diagnosis.reason}"
    if death.fixture and death.wide == "setup":
        title += f" while setting up {death.fixture}"
    elif death.wide == "teardown":
        title += " while tearing down wide fixtures"
    elif death.phase == "exit" and not after:
        title += " after the test" if _in_thread(death) else " in an exit handler"
    return title + why


def headline(death: Death, rootdir: Path) -> str:
    """One line: how it ended and where, as in "SIGSEGV at tests/test_x.py:27 in test_segv".

    With the native function before the Python function, where that is known.
    """
    frame = innermost_frame(death.dump, rootdir)
    native, inferred = "", PROBABLY if death.native.inferred else " "
    if death.native.function:
        native = f"{inferred}in {death.native.function}"
    where = f" at {frame.path}:{frame.line} in {frame.name}" if frame is not None else ""
    return what(death) + native + where


def crash_report(death: Death, origins: Origins) -> CrashReport:
    """The body of the report.

    :param origins: those of this process, see :func:`.stacks.origins`.
    """
    process = f"pid {death.ended.pid}" if death.ended.pid else "no process"
    before = [
        f"{death.nodeid}: the test process {death.ending.story}",
        (
            f"phase {_phase(death)}, {death.seconds:.2f} s after it began; "
            f"worker {on_machine(death.worker, death.machine)}, {process}"
        ),
    ]
    if death.diagnosis is not None:
        before.append(f"it said: {death.diagnosis.line}")
    before.append("")
    stacks = reorder_stacks(death.dump) if death.dump.strip() else ""
    after: list[str] = []
    if not stacks:
        advice = death.diagnosis.advice if death.diagnosis is not None else ""
        why = _why_no_stack(death.ending)
        after.append(f"no Python stack: {why}; {advice}" if advice else f"no Python stack: {why}")
    if death.native.text:
        after += ["", death.native.text]
    for title, processes in (
        ("processes that the test left running, now ended:", death.ended.leftovers),
        ("processes that survived SIGKILL, now left alone:", death.ended.survivors),
        ("processes that still have GPUs open, with memory in use:", death.ended.hold_gpus),
        ("GPU memory not given back:", death.ended.gpu_memory),
    ):
        if processes:
            after += ["", title, *(f"  {text}" for text in processes)]
    if death.core.path:
        command = shlex.join(["gdb", *filter(None, [death.core.program]), death.core.path])
        after += ["", f"core: {death.core.path}", f"open it with: {command}"]
    after += ["", f"reproduce: {death.reproduce}"]
    return CrashReport(what(death), tuple(before), stacks, tuple(after), origins)


def _phase(death: Death) -> str:
    if death.wide == "setup":
        return f"setup of {death.fixture or 'wide fixtures'}"
    if death.wide == "teardown":
        return "teardown of wide fixtures"
    if death.phase == "exit":
        after = isinstance(death.ending, WrapperEnded) or _in_thread(death)
        return "after the test" if after else "exit handlers, after the test"
    return death.phase


def _in_thread(death: Death) -> bool:
    """Whether it crashed in another thread than the one that runs exit handlers."""
    stack = crashed_stack(death.dump)
    return bool(death.dump) and (not stack or stack[-1].name == "_bootstrap")


def _why_no_stack(ending: Ending) -> str:
    if isinstance(ending, Exited):
        return "a process that exits by itself (os._exit, os.execv and the like) leaves none"
    if isinstance(ending, Signaled) and ending.title == "SIGKILL":
        return "SIGKILL ends a process at once"
    # Those that faulthandler handles, and the one for which we have it do so.
    if isinstance(ending, Signaled) and ending.signal in (*FAULTS, signal.SIGTERM):
        return (
            "the thread's stack was full, the signal handler that writes it was replaced, its "
            "descriptor closed, or a debugger kept the signal from it"
        )
    if isinstance(ending, Signaled):
        return f"Python's fault handler does not handle {ending.title}"
    if isinstance(ending, (TimedOut, MemoryExceeded)):
        return "the process did not answer within 200 ms (blocked signals, or inside the kernel)"
    if isinstance(ending, Unreported):
        return "the process had ended in order"
    if isinstance(ending, WrapperEnded):
        return "Python had left by itself" if ending.begun else "Python was not started"
    if isinstance(ending, Unmet):
        return "there was no process"
    return "Python did not crash in it"


def text_with_message(text: str, message: str, path: str, line: int) -> ReportData:
    """The "longrepr" of a failed report that shows `text`, and `message` in the short summary.

    In the format of pytest_report_to_serializable: to make the object takes pytest's private
    classes.
    """
    crash = {"path": path, "lineno": line, "message": message}

    def traceback() -> dict[str, object]:  # which pytest changes where it reads it
        return {
            "reprentries": [{"type": "ReprEntryNative", "data": {"lines": [text + "\n"]}}],
            "extraline": None,
            "style": "native",
        }

    return {
        "reprcrash": crash,
        "reprtraceback": traceback(),
        "sections": [],
        "chain": [(traceback(), crash, None)],
    }


def _sections(death: Death) -> list[tuple[str, str]]:
    ended = death.ended
    out, err, log = text_of(ended.out), text_of(ended.err), text_of(ended.log).strip()
    found = {"stdout": out, "stderr": err, "log": log}
    return [(f"Captured {name} {death.when}", text) for name, text in found.items() if text]


def report_data(
    death: Death,
    location: tuple[str, int | None, str],
    keywords: dict[str, int],
    rootdir: Path,
    crash: CrashReport,
    start: float,
    expected: str | None,
) -> ReportData:
    """The report in the format of pytest_report_to_serializable.

    :param crash: the same death, as :func:`crash_report` gives it.
    :param start: of the phase, in seconds since the epoch.
    :param expected: the reason if the death was expected (xfail), else None.
    """
    frame = innermost_frame(death.dump, rootdir)
    message = headline(death, rootdir)
    path = joined(str(rootdir), frame.path if frame is not None else location[0])
    line = frame.line if frame is not None else (location[1] or 0) + 1
    ended = death.ended
    data: ReportData = {
        "$report_type": "TestReport",
        "nodeid": death.nodeid,
        "location": location,
        "keywords": keywords,
        "outcome": "failed",
        "longrepr": text_with_message(crash.text, message, path, line),
        "when": death.when,
        "user_properties": [],
        "sections": _sections(death),
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
        crash=crash.to_wire(),
        core=death.core.path,
        no_core=death.core.why_not,
    )
    if expected is not None:
        data["outcome"] = "skipped"
        data["wasxfail"] = expected
    return data
