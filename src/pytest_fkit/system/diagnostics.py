"""Why a process ended, by what it said on descriptor 2: sanitizers here, the rest in last_words.

A text alone is no evidence: tests print logs. Asked for is the number of the process where the
runtime writes it, how the process ended, and that nothing follows but what belongs to the text.
"""

from __future__ import annotations

import re
from typing import Iterator, Sequence

from ..named_tuple import NamedTuple
from ..own import own_builtins
from .last_words import last_words
from .paths import base_name, read_text
from .source_lines import showable

own_builtins(globals())

_LONGEST = 200
"""Characters of a reason."""

_MOST = 10
"""Reports of one phase of a test that are named."""


class Diagnosis(NamedTuple):
    """Why a process ended, by its own words.

    :param reason: in a few words, as "heap-use-after-free in frob.cc:17".
    :param instead: whether it says all that the signal or the status would.
    :param advice: what gives a Python stack the next time, or "".
    """

    reason: str
    line: str
    instead: bool
    advice: str = ""


class LastOutput(NamedTuple):
    """What a process wrote to its descriptor 2.

    :param lines: its last part.
    :param ending: the name of a signal, or a status as "exit 1".
    """

    lines: Sequence[str]
    pid: int
    ending: str

    @property
    def exited(self) -> bool:
        """Whether the process left by itself, with a status that is not 0."""
        return self.ending.startswith("exit ") and self.ending != "exit 0"


# --- where: frames of native stacks ---------------------------------------------------------------

# sanitizer_stacktrace_printer.cpp of LLVM's compiler-rt, "    #%n %p %F %L" and TSan's without %p.
_FRAME = re.compile(
    r"^ +#\d+ (?:0x[0-9a-f]+ )?(?:in )?(?P<name>.*?) ?"
    r"(?:(?P<file>[^\s():]+):(?P<line>\d+)(?::\d+)?|\(?(?P<module>/?[^\s()]+)\+0x[0-9a-f]+\))"
    r"(?: \(.*\))?$"
)

# m_errormgr.c and m_debuginfo of Valgrind.
_VALGRIND_FRAME = re.compile(
    r"^==\d+== +(?:at|by) 0x[0-9A-F]+: (?P<name>.*) "
    r"\((?:(?P<file>[^\s():]+):(?P<line>\d+)|in (?P<module>.*))\)$"
)

# Of the runtimes themselves, and of what raises a signal again: with faulthandler a sanitizer's own
# handler runs in raise(), and its stack begins there.
_RUNTIME = re.compile(
    r"libsanitizer|compiler-rt|sanitizer_common|lib[a-z]*san[._]|libclang_rt|vgpreload|"
    r"(?:^|/)(?:nptl|csu|sysdeps)/|(?:^|/)libc(?:-[\d.]+)?\.so|libpthread|"
    r"^(?:__interceptor_|___interceptor_|__asan_|__ubsan_|__tsan_|__sanitizer)|faulthandler"
)


def _where(lines: Sequence[str]) -> str:
    """The innermost frame of the first stack that is not a runtime's, as " in frob.cc:17"."""
    first = ""
    began = False
    for line in lines:
        frame = _FRAME.match(line) or _VALGRIND_FRAME.match(line)
        if frame is None:
            if began and not line.strip("=0123456789 "):
                break  # the end of the first stack
            continue
        began = True
        name, place = frame["name"], frame["file"] or frame["module"] or ""
        if frame["file"]:
            text = f" in {base_name(place)}:{frame['line']}"
        else:
            text = f" in {name} ({base_name(place)})" if name else f" in {base_name(place)}"
        if not (_RUNTIME.search(name) or _RUNTIME.search(place)):
            return text
        first = first or text
    return first


# --- the reports of sanitizers --------------------------------------------------------------------

# asan_errors.cpp, lsan_common.cpp, msan_report.cpp, and sanitizer_symbolizer_report.cpp.
_ADDRESS = re.compile(
    r"^==(?P<pid>\d+)==(?:ERROR|WARNING): (?P<tool>\w+Sanitizer): (?P<what>\S.*)$"
)

# sanitizer_termination.cpp: the runtime itself finds something wrong.
_CHECK = re.compile(r"^(?:==\d+==)?(?P<tool>\w+Sanitizer): (?P<what>CHECK failed: \S+ \".*?\")")

# tsan_report.cpp.
_THREAD = re.compile(r"^WARNING: ThreadSanitizer: (?P<what>.+?) \(pid=(?P<pid>\d+)\)$")

# ubsan_diag.cpp; the location may be unknown: "<unknown>".
_UNDEFINED = re.compile(
    r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?:\d+:)? runtime error: (?P<what>\S.*)$"
)

# mc_errors.c of Valgrind, and m_signals.c for the last one.
_MEMCHECK = re.compile(
    r"^==(?P<pid>\d+)== (?P<what>Invalid (?:read|write) of size \d+|Invalid free\(\).*|"
    r"Mismatched free\(\).*|Conditional jump or move depends on uninitialised value\(s\)|"
    r"Use of uninitialised value of size \d+|Source and destination overlap in .*|"
    r"Syscall param .* points to .*|Jump to the invalid address stated on the next line|"
    r"Possible data race during .*|Process terminating with default action of signal .*)$"
)

# Compute Sanitizer, "Understanding Memcheck Errors" in its documentation.
_COMPUTE = re.compile(
    r"^========= (?P<what>Invalid __\w+__ (?:read|write|atomic) of size \d+ bytes|"
    r"(?:Race|Potential \w+ hazard) .*|Uninitialized __\w+__ memory read of size \d+ bytes|"
    r"Barrier error detected.*|Program hit \w+ .*)$"
)
_COMPUTE_PLACE = re.compile(
    r"^========= +at (?:0x[0-9a-f]+ in )?(?P<name>.*?)(?:\+?:?0x[0-9a-f]+)?"
    r"(?: in (?P<file>[^\s:]+):(?P<line>\d+)(?::.*)?)?$"
)


# asan_rtl.cpp: the runtime itself died, in the midst of its report.
_NESTED = "AddressSanitizer: nested bug in the same thread, aborting."


class _Report(NamedTuple):
    at: int
    reason: str
    line: str
    halts: bool
    advice: str = ""


def _sanitizers(said: LastOutput) -> Iterator[_Report]:
    """The reports of this process, in their order."""
    for at, line in enumerate(said.lines):
        if line.startswith("==") or "Sanitizer: " in line:
            found = _ADDRESS.match(line) or _THREAD.match(line) or _MEMCHECK.match(line)
            if found is not None and int(found["pid"]) == said.pid:
                yield _with_pid(said, at, found)
            check = _CHECK.match(line)
            if check is not None:
                yield _Report(at, check["what"], line, said.exited or said.ending == "SIGABRT")
        elif ": runtime error: " in line:
            undefined = _UNDEFINED.match(line)
            if undefined is not None:
                place = f"{base_name(undefined['file'])}:{undefined['line']}"
                halts = said.exited or said.ending in ("SIGABRT", "SIGTRAP", "SIGILL")
                last = all(map(_belongs, said.lines[at + 1 :]))
                yield _Report(
                    at, f"{undefined['what']} in {place}", line, halts and last, _ABORT["UBSAN"]
                )


_ABORT = {
    tool: f"with {tool}_OPTIONS=abort_on_error=1 there is one"
    for tool in ("ASAN", "LSAN", "MSAN", "TSAN", "UBSAN", "HWASAN")
}

_OPTIONS = {
    "AddressSanitizer": "ASAN", "LeakSanitizer": "LSAN", "MemorySanitizer": "MSAN",
    "ThreadSanitizer": "TSAN", "UndefinedBehaviorSanitizer": "UBSAN",
    "HWAddressSanitizer": "HWASAN",
}  # fmt: skip


def _with_pid(said: LastOutput, at: int, found: re.Match[str]) -> _Report:
    what = re.split(r" on (?:unknown )?address| \(|: ", found["what"])[0]
    what = what.replace("attempting ", "").replace("detected ", "")
    below = said.lines[at + 1 :]
    pattern = found.re
    if pattern is _ADDRESS:
        tool = found["tool"]
        halts = f"=={said.pid}==ABORTING" in below or _NESTED in below
        halts = halts or said.ending in ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL")
        halts = halts or (said.exited and all(map(_belongs, below)))
    elif pattern is _THREAD:
        tool = "ThreadSanitizer"
        halts = (said.exited or said.ending == "SIGABRT") and all(map(_belongs, below))
    else:
        tool, what = "", found["what"]
        prefix = f"=={said.pid}=="
        halts = all(line.startswith(prefix) or not line.strip() for line in below)
        halts = halts and (said.exited or found["what"].startswith("Process terminating"))
    advice = _ABORT.get(_OPTIONS.get(tool, ""), "")
    return _Report(at, what + _where(below), found[0], halts, advice)


# Lines in the body of a sanitizer's report.
_BODY = re.compile(
    r"^(?:\s|=|SUMMARY: |Shadow byte|ThreadSanitizer: reported|.*Sanitizer:DEADLYSIGNAL|\[|"
    r"0x[0-9a-f]+ is located|(?:freed|previously allocated|allocated|Thread T\d+|Address 0x|"
    r"Hint:|HINT:|WARNING: (?:Thread|Address)Sanitizer|Indirect leak|Direct leak|Objects leaked)|"
    r".*: (?:runtime error|note): )"
)


def _belongs(line: str) -> bool:
    return not line or _BODY.match(line) is not None


def sanitizer_reports(stderr: str, pid: int) -> list[str]:
    """What sanitizers reported in a process that goes on, as in "data race in frob.c:23".

    UBSan's lines name no process, so one of the sanitizers' libraries has to be there.

    :param stderr: of this process, whose number is `pid`.
    """
    said = LastOutput(stderr.splitlines(), pid, "")
    found: dict[str, None] = {}
    for report in _sanitizers(said):
        if _UNDEFINED.match(report.line) is None or _has_runtime():
            found[_short(report.reason)] = None
    return list(found)[:_MOST]


def _has_runtime() -> bool:
    try:
        maps = read_text("/proc/self/maps")
    except OSError:
        return False
    return re.search(r"/lib(?:ub|a|t|hwa)san\.so|/libclang_rt\.\w*san", maps) is not None


# --- why a process ended --------------------------------------------------------------------------


def diagnosis(stderr: str, pid: int, ending: str) -> Diagnosis | None:
    """Why the process ended, if it said so.

    :param stderr: what it wrote to its descriptor 2 last.
    :param ending: the name of a signal, or a status as "exit 1".
    """
    said = LastOutput(stderr.splitlines(), pid, ending)
    for report in _sanitizers(said):
        if report.halts:
            return Diagnosis(_short(report.reason), _short(report.line), True, report.advice)
    for at, line in enumerate(said.lines):
        compute = _COMPUTE.match(line) if line.startswith("=========") else None
        place = _COMPUTE_PLACE.match("".join(said.lines[at + 1 : at + 2]))
        if compute is not None and place is not None and ending != "exit 0":
            text = f"{base_name(place['file'])}:{place['line']}" if place["file"] else place["name"]
            return Diagnosis(_short(f"{compute['what']} in {text}"), _short(line), True)
    found = last_words(said.lines) if ending == "SIGABRT" else None
    return None if found is None else Diagnosis(_short(found[0]), _short(found[1]), False)


def _short(text: str) -> str:
    text = showable(text)
    return f"{text[:_LONGEST]}…" if len(text) > _LONGEST else text
