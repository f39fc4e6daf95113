"""What programs say on descriptor 2 before they abort: C++, glibc, Rust, GPU runtimes, Python.

The table names the source that words each message.
"""

from __future__ import annotations

import re
from typing import Callable, Sequence

from ..named_tuple import NamedTuple
from ..own import own_builtins
from .paths import base_name

own_builtins(globals())


class LastWords(NamedTuple):
    """One kind of message, by which a process says why it ends itself.

    :param reason: makes a reason of the match and of the line below.
    :param ends: whether nothing but the message, and what belongs to it, stands in the lines below.
    :param last: whether the last such line counts, else the first.
    """

    pattern: re.Pattern[str]
    reason: Callable[[re.Match[str], str], str]
    ends: Callable[[Sequence[str]], bool]
    last: bool = True


def _only(*more: str) -> Callable[[Sequence[str]], bool]:
    trailing = re.compile("|".join((r"^\s*$", "^Aborted", *more)))
    return lambda below: all(map(trailing.match, below))


_nothing = _only()


def _explained(below: Sequence[str]) -> bool:
    # what() may have many lines.
    return _nothing(below) or below[0].startswith("  what():")


_AFTER_PANICS = (
    "note: run with `RUST_BACKTRACE", "note: Some details are omitted", "stack backtrace:",
    "thread caused non-unwinding panic", "thread panicked while",
)  # fmt: skip


def _is_panic(below: Sequence[str]) -> bool:
    return _nothing(below[1:]) or any(line.startswith(_AFTER_PANICS) for line in below)


def _itself(found: re.Match[str], _: str) -> str:
    return found["what"]


def _terminated(found: re.Match[str], below: str) -> str:
    return f"{found['what']}, {below}" if below.startswith("what():") else found["what"]


def _asserted(found: re.Match[str], _: str) -> str:
    return f"{found['what']} in {base_name(found['file'])}:{found['line']}"


def _panicked(found: re.Match[str], below: str) -> str:
    return f"panicked in {base_name(found['place'])}: {found['message'] or below}"


def _faulted(found: re.Match[str], below: str) -> str:
    why = found["why"] or below
    return f"{found['what']}: {why.replace('Reason: ', '').rstrip('.')}"


_TABLE = (
    # CUDA's device code: the assert of crt/device_functions.h, as PyTorch's CUDA issues quote it.
    LastWords(
        re.compile(
            r"^(?P<file>[^\s:]+):(?P<line>\d+): .*: block: \[\d+,\d+,\d+\], "
            r"thread: \[\d+,\d+,\d+\] (?P<what>Assertion `.*` failed)\.$"
        ),
        _asserted,
        lambda _: True,
        last=False,
    ),
    # ROCR-Runtime, runtime.cpp: VMFaultHandler.
    LastWords(
        re.compile(
            r"^(?P<what>Memory access fault by GPU node-\d+)(?: \(.*?\))? on address [^ ]*?\.?"
            r"(?: (?P<why>Reason: .*))?$"
        ),
        _faulted,
        _only("^Reason: ", "^Failed to", "^GPU core dump", r"^:\d:"),
    ),
    # ROCm's clr, rocdevice.cpp: callbackQueue.
    LastWords(
        re.compile(
            r"^:0:rocdevice\.cpp.*(?:Queue \S+|callbackQueue) aborting with error : "
            r"(?P<what>HSA_STATUS_\w+.*?)\.?(?: code: 0x[0-9a-f]+)?$"
        ),
        _itself,
        _only("^Failed to", "^GPU core dump", r"^:\d:"),
    ),
    # Abseil's and glog's LOG(FATAL) and CHECK, as JAX, XLA and TensorFlow print it; without the
    # date, TensorFlow's own of before: log_format.cc, logging.cc, tsl/platform/default/logging.cc.
    LastWords(
        re.compile(
            r"^(?:F\d{4,8} [\d:.]+ +\d+|(?:[\d-]{10} [\d:.]+: )?F) "
            r"(?P<file>[^\s:]+):(?P<line>\d+)\] (?P<what>\S.*)$"
        ),
        _asserted,
        _only(r"^\*\*\* (?:Check failure|SIGABRT)", "^PC: ", r"^ +@ ", r"^\[.*\] RAW: "),
        last=False,
    ),
    # LLVM and Intel's OpenMP: kmp_i18n.cpp.
    LastWords(re.compile(r"^OMP: (?P<what>Error #\d+: .*)$"), _itself, _only("^OMP: "), last=False),
    # LLVM's ErrorHandling.cpp, and what its PrettyStackTrace.cpp and Signals.inc add.
    LastWords(
        re.compile(r"^(?P<what>LLVM ERROR: .*)$"),
        _itself,
        _only("^PLEASE submit", "^Stack dump", r"^ ?#\d+ ", r"^\d+\.\t", r"^\S+\(.*\)\[0x"),
    ),
    # libsupc++, pure.cc.
    LastWords(
        re.compile(r"^(?P<what>(?:pure|deleted) virtual method called)$"),
        _itself,
        _only("^terminate called without an active exception$"),
    ),
    # libstdc++, vterminate.cc, and libc++abi, cxa_default_handlers.cpp.
    LastWords(
        re.compile(r"^(?P<what>terminate called (?:after throwing an instance of '.*'|.*))$"),
        _terminated,
        _explained,
    ),
    LastWords(re.compile(r"^libc\+\+abi: (?P<what>terminating.*)$"), _itself, _nothing),
    # glibc, malloc.c and stack_chk_fail.c and fortify_fail.c.
    LastWords(
        re.compile(
            r"^(?P<what>(?:(?:malloc|free|realloc|calloc|munmap_chunk|malloc_consolidate|"
            r"mremap_chunk|sysmalloc|tcache_thread_shutdown)\(\)|"
            r"corrupted (?:size vs\. prev_size|double-linked list)|"
            r"double free or corruption|break adjusted to free malloc space)[^\n]*)$"
        ),
        _itself,
        _nothing,
    ),
    LastWords(
        re.compile(
            r"^\*\*\* (?P<what>(?:stack smashing|buffer overflow|.*%[nN].*) detected|"
            r"longjmp causes uninitialized stack frame) \*\*\*:.*$"
        ),
        _itself,
        _nothing,
    ),
    # glibc: callers of __libc_fatal, and from 2.35 on of __libc_assert_fail.
    LastWords(
        re.compile(
            r"^(?P<what>Fatal glibc error: .*|Fatal error: glibc detected .*|"
            r"FATAL: exception not rethrown|"
            r"The futex facility returned an unexpected error code\.)$"
        ),
        _itself,
        _nothing,
    ),
    # glibc, assert.c; macOS and musl.
    LastWords(
        re.compile(
            # What setproctitle has left of the program's name may have anything in it.
            r"^(?:.*?: )?(?P<file>[^\s:]+):(?P<line>\d+): (?:.*: )?"
            r"(?P<what>Assertion `.*' failed)\.$"
        ),
        _asserted,
        _nothing,
    ),
    LastWords(
        re.compile(r"^(?P<what>Assertion failed: .*(?:, line \d+\.|: \d+\)))$"),
        _itself,
        _nothing,
    ),
    # CPython, pylifecycle.c: fatal_error.
    LastWords(
        re.compile(r"^(?P<what>Fatal Python error: .*)$"),
        _itself,
        _only(
            r"^\s",
            "^Python runtime state",
            "^(?:Current t|T)hread ",
            "^Extension modules",
            "^[Oo]bject ",
            "^<object",
            "^Enable tracemalloc",
            "^Memory block",
            "^Debug memory",
        ),
    ),
    # Rust, std/src/alloc.rs, and the macro rtabort! of std/src/rt.rs.
    LastWords(
        re.compile(
            r"^(?P<what>memory allocation of \d+ bytes failed|fatal runtime error: .*?)"
            r"(?:, aborting)?$"
        ),
        _itself,
        _only("^stack backtrace:", "^ +"),
    ),
    # Rust, std/src/panicking.rs; up to 1.72 with the message in front of the place.
    LastWords(
        re.compile(
            r"^thread '.*?'(?: \(\d+\))? panicked at (?P<message>)(?P<place>\S+?:\d+)(?::\d+)?:$"
        ),
        _panicked,
        _is_panic,
    ),
    LastWords(
        re.compile(r"^thread '.*?' panicked at '(?P<message>.*)', (?P<place>\S+?:\d+)(?::\d+)?$"),
        _panicked,
        _only("^note: ", "^stack backtrace:", "^ +"),
    ),
)

# The panic that another one, which could not leave a function of C, became.
_SECOND_PANICS = ("panic in a function that cannot unwind", "panic in a destructor during cleanup")


def last_words(lines: Sequence[str]) -> tuple[str, str] | None:
    """Why a process aborted, in a few words, and the line that says so; None if it did not say.

    :param lines: what it wrote to its descriptor 2 last.
    """
    for words in _TABLE:
        places = [
            (at, found)
            for at, found in enumerate(map(words.pattern.match, lines))
            if found is not None
        ]
        if not places:
            continue
        at, found = places[-1] if words.last else places[0]
        below = lines[at + 1 :]
        if not words.ends(below):
            continue
        if words.reason is _panicked and len(places) > 1 and below[0] in _SECOND_PANICS:
            at, found = places[-2]
        return words.reason(found, "".join(lines[at + 1 : at + 2]).strip()), found[0]
    return None
