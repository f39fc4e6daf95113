"""What faulthandler writes of the stacks of a process, as text and as values."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Iterable, Sequence

from ..named_tuple import NamedTuple
from ..own import os, own_builtins, signal
from ..system.paths import below, joined

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

own_builtins(globals())

_FRAME = re.compile(r'^  File "(?P<path>.*)", line (?P<line>\d+|\?\?\?) in (?P<name>.*)$')

# As traceback.c of CPython writes it; from 3.14 on the thread's name may be there, in brackets.
_THREAD = re.compile(r"^(?P<current>Current t|T)hread 0x[0-9a-f]*(?: \[(?P<name>.*)\])?.*:$")

FATAL_ERROR = "Fatal Python error: "

FATAL_ERRORS = {
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Illegal instruction": signal.SIGILL,
    "Floating point exception": signal.SIGFPE,
    "Floating-point exception": signal.SIGFPE,
}
"""What follows that, and the signal it stands for."""

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


class Frame(NamedTuple):
    """One line of a stack as faulthandler writes it.

    :param line: its number, 0 where that is not known.
    """

    path: str
    line: int
    name: str


class Thread(NamedTuple):
    """The stack of one thread.

    :param name: of the thread, "" if that is not known.
    :param current: whether it is the one that crashed, or took the signal.
    :param lines: its frames, the innermost first, and what else stands between them.
    """

    title: str
    name: str
    current: bool
    lines: Sequence[Frame | str]

    @property
    def frames(self) -> list[Frame]:
        """Its frames alone."""
        return [line for line in self.lines if isinstance(line, Frame)]


class Stacks(NamedTuple):
    """The stacks of a process.

    :param fatal: what stands before them: "Fatal Python error: …" and what belongs to it.
    :param threads: the crashing one first.
    :param native: the C functions of that one, where Python writes them.
    """

    fatal: Sequence[str]
    threads: Sequence[Thread]
    native: Sequence[str]


def reorder_stacks(dump: str) -> str:
    """Faulthandler's text, with the stack of the crashing thread first.

    Only the last fatal error counts: processes that the test forked write into the same file.
    """
    head, stacks = _blocks(dump)
    return "\n".join(
        line for block in (head, *stacks) for line in block if line.strip() or block is head
    ).strip()


def fatal_error(stderr: str) -> str:
    """What Python wrote when it ended itself, if that has stacks; "" if it did not.

    pylifecycle.c, fatal_error: it has no fault handler any more, and writes to descriptor 2.

    :param stderr: the last part of what a process wrote there, which was ended by SIGABRT.
    """
    _, fatal, rest = f"\n{stderr}".rpartition(f"\n{FATAL_ERROR}")
    return fatal[1:] + rest if fatal and any(map(_THREAD.match, rest.splitlines())) else ""


def parsed(dump: str) -> Stacks:
    """Faulthandler's text as values, in the order of :func:`reorder_stacks`."""
    head, blocks = _blocks(dump)
    threads, native = [], []
    for block in blocks:
        title = _THREAD.match(block[0])
        lines = [line for line in block[1:] if line.strip()]
        if title is None:
            native += lines
        else:
            current = title["current"] != "T"
            threads.append(Thread(block[0], title["name"] or "", current, list(map(_line, lines))))
    return Stacks([line for line in head if line.strip()], threads, native)


def crashed_stack(dump: str) -> tuple[Frame, ...]:
    """The frames of the thread that crashed, the innermost first; none if it runs no Python."""
    threads = (thread for thread in parsed(dump).threads if thread.current)
    return next((tuple(thread.frames) for thread in threads), ())


def _line(text: str) -> Frame | str:
    match = _FRAME.match(text)
    if match is None:
        return text
    number = int(match["line"]) if match["line"].isdigit() else 0
    return Frame(_unescaped(match["path"]), number, match["name"])


def _blocks(dump: str) -> tuple[list[str], list[list[str]]]:
    """What stands before the stacks, and the stacks, without frames of ours below pytest's."""
    _, fatal, rest = dump.rpartition(FATAL_ERROR)
    blocks: list[list[str]] = [[]]
    for line in (fatal + rest).splitlines():
        if _THREAD.match(line) or line.startswith(_C_STACK):
            blocks.append([])
        blocks[-1].append(line)
    head, stacks = blocks[0], blocks[1:]
    # The C functions stand below the Python functions of their thread.
    order = ("Current thread 0x", _C_STACK, "Thread 0x")
    stacks.sort(key=lambda block: [block[0].startswith(each) for each in order].index(True))
    return head, [_without_our_frames(block) for block in stacks]


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
    for frame in (each for thread in parsed(dump).threads for each in thread.frames):
        if not frame.line or frame.path.startswith("<"):  # frozen, or made by exec()
            continue
        relative = below(joined(str(rootdir), frame.path), str(rootdir))
        if relative is not None and not _is_installed(relative):
            return frame._replace(path=relative)
    return None


def _is_installed(path: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.split("/"))


def _unescaped(text: str) -> str:
    # faulthandler writes non-ASCII characters of file names as \xhh, \uhhhh and \Uhhhhhhhh.
    return re.sub(
        r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))",
        lambda match: chr(int(match[1] or match[2] or match[3], 16)),
        text,
    )


# --- whose code a frame runs ----------------------------------------------------------------------

_TOOLS = ("_pytest", "pytest", "pluggy", "xdist", "execnet", "pytest_fkit")


class Origins(NamedTuple):
    """Tells whose code a frame runs, in the process that collected the tests.

    :param rootdir: of that process.
    :param library: the directory of the standard library.
    :param tools: the directories, ending with a slash, and files that run tests.
    """

    rootdir: str
    library: str
    tools: tuple[str, ...]

    def is_tool(self, frame: Frame) -> bool:
        """Whether it is pytest's, ours, or that of what both stand on."""
        return any(
            frame.path.startswith(tool) if tool.endswith("/") else frame.path == tool
            for tool in self.tools
        )

    def is_library(self, frame: Frame) -> bool:
        """Whether it is of the standard library."""
        path = below(frame.path, self.library)
        return frame.path.startswith("<frozen ") or (path is not None and not _is_installed(path))


def origins(config: pytest.Config) -> Origins:
    """Tell whose code a frame of this process runs.

    The developers of pytest, pluggy and the like have these under their root directory: there they
    are the code under test. Of plugins that are installed it is the module by which pytest loads
    them: the rest of the package may be what is tested.
    """
    rootdir = str(config.rootpath)
    modules = [sys.modules.get(name) for name in _TOOLS]
    plugins = (plugin for plugin, _ in config.pluginmanager.list_plugin_distinfo())
    installed = [path for path in _files(plugins) if _is_installed(path)]
    tools = []
    for path in _files(modules):
        package = path[: -len("__init__.py")] if path.endswith("/__init__.py") else path
        inside = below(package, rootdir)
        if inside is None or _is_installed(inside) or package.endswith("/pytest_fkit/"):
            tools.append(package)
    library = str(os.__file__).rpartition("/")[0]
    return Origins(rootdir, library, (*tools, *installed))


def _files(modules: Iterable[Any]) -> list[str]:
    found = (getattr(module, "__file__", None) for module in modules)
    return [path for path in found if isinstance(path, str)]
