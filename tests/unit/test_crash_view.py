"""Which frames of a crash are shown, and how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_fkit.controller.reports.crash_shown import ShownCrash, show_crash
from pytest_fkit.controller.reports.crash_view import FrameLocation, Source, parts_of
from pytest_fkit.protocol.crash_report import CrashReport
from pytest_fkit.protocol.event_file import add_facts, facts_of
from pytest_fkit.protocol.stacks import Frame, Origins, origins, parsed
from pytest_fkit.system.source_lines import NOTHING, Excerpt, Sources

_PACKAGES = "/env/lib/python3.11/site-packages"
_ORIGINS = Origins(
    "/root", "/env/lib/python3.11", (f"{_PACKAGES}/_pytest/", f"{_PACKAGES}/plug/plugin.py")
)
_MAIN = "Current thread 0x0000000000000001 (most recent call first):"
_OTHER = "Thread 0x0000000000000002 (most recent call first):"


def _stack(title: str, *frames: str) -> str:
    lines: list[str] = []
    for frame in frames:
        path, line, name = frame.split(":")
        path = path.replace("PKG", _PACKAGES).replace("LIB", _ORIGINS.library)
        lines.append(f'  File "{path}", line {line} in {name}')
    return "\n".join([title, *lines, ""])


def _shown(*stacks: str, style: str = "short", everything: bool = False) -> list[str]:
    crash = CrashReport("SIGSEGV", ("first", ""), "\n".join(stacks), ("last",), _ORIGINS)
    lines: list[str] = []
    for part in parts_of(crash, "the headline", style, everything, _read):
        if isinstance(part, Source):
            lines += map("".join, zip(part.indents, part.lines))
        elif isinstance(part, FrameLocation):
            lines.append(f"{part.path}:{part.line}: {part.text}")
        else:
            lines.append(f"!{part.text}" if part.red else part.text)
    assert (lines[:2], lines[-1]) == (["first", ""], "last")
    return lines[2:-1]


def _read(frame: Frame, around: int) -> Excerpt:
    if "lost" in frame.path:
        return NOTHING
    numbers = range(max(1, frame.line - around), frame.line + around + 1)
    return Excerpt(numbers[0], [f"  line {number}" for number in numbers], 0.0)


def test_frames_of_tools_are_folded_and_those_of_the_user_shown() -> None:
    stack = _stack(
        _MAIN,
        "LIB/ctypes/__init__.py:9:string_at",
        "PKG/library/core.py:7:forward",
        "LIB/asyncio/runners.py:3:run",
        "PKG/library/core.py:5:apply",
        "PKG/_pytest/fixtures.py:1:getfixturevalue",
        "LIB/contextlib.py:2:inner",
        "PKG/plug/plugin.py:2:wrapper",
        "/root/tests/test_x.py:8:test_x",
        "LIB/unittest/case.py:2:run",
        "PKG/_pytest/runner.py:4:call",
    )
    assert _shown(stack) == [
        f"{_ORIGINS.library}/ctypes/__init__.py:9: in string_at",
        "    line 9",
        "!E   SIGSEGV",
        f"{_PACKAGES}/library/core.py:7: in forward",
        "    line 7",
        "… 1 frame of Python's library",
        f"{_PACKAGES}/library/core.py:5: in apply",
        "    line 5",
        "… 3 frames of pytest",
        "/root/tests/test_x.py:8: in test_x",
        "    line 8",
        "… 2 frames of pytest",
    ]
    whole = _shown(stack, everything=True)
    assert len([line for line in whole if ": in " in line]) == 10
    assert not any(line.startswith("…") for line in whole)


def test_lines_around_a_frame_are_marked_as_pytest_marks_them() -> None:
    stack = _stack(_MAIN, "/root/a.py:8:f", "/root/lost.py:3:g")
    for style in ("auto", "long"):
        assert _shown(stack, style=style) == [
            "/root/a.py:8: in f",
            "    line 6",
            "    line 7",
            ">   line 8",
            "!E   SIGSEGV",
            "    line 9",
            "    line 10",
            "",
            "/root/lost.py:3: in g",
            "",
        ]
    assert _shown(stack, style="native") == [
        '  File "/root/a.py", line 8 in f',
        "    line 8",
        "!E   SIGSEGV",
        '  File "/root/lost.py", line 3 in g',
    ]
    crash = CrashReport("SIGSEGV", ("first",), stack, ("last",), _ORIGINS)
    texts = [part.text for part in parts_of(crash, "the headline", "line", False, _read)]  # type: ignore[union-attr]
    assert texts == ["E   SIGSEGV", "the headline"]


def test_of_many_frames_those_in_the_middle_are_short() -> None:
    stack = _stack(_MAIN, *(f"/root/a.py:{number}:f" for number in range(10, 30)))
    marked = [line for line in _shown(stack, style="auto") if line.startswith(">")]
    assert len(marked) == 10
    assert len([line for line in _shown(stack, style="long") if line.startswith(">")]) == 20


def test_a_recursion_is_shown_once() -> None:
    cycle = ["/root/a.py:2:even", "/root/a.py:4:odd"] * 40
    stack = _stack(_MAIN, "/root/a.py:1:end", *cycle, "/root/a.py:9:test") + "  ...\n"
    assert [line for line in _shown(stack) if not line.startswith(" ")] == [
        "/root/a.py:1: in end",
        "!E   SIGSEGV",
        "/root/a.py:2: in even",
        "/root/a.py:4: in odd",
        "… the same 2 frames 39 times more",
        "/root/a.py:9: in test",
        "… more frames, which faulthandler does not write",
    ]


def test_where_no_code_of_the_user_runs_the_innermost_frames_are_shown() -> None:
    stack = _stack(_MAIN, *(f"PKG/_pytest/a.py:{number}:f" for number in range(1, 9)))
    assert _shown(stack)[0] == f"{_PACKAGES}/_pytest/a.py:1: in f"
    assert _shown(stack)[-1] == "… 5 frames of pytest"


def test_threads_that_only_wait_are_one_line_each() -> None:
    waits = ("LIB/threading.py:31:wait", "LIB/queue.py:2:get", "/root/a.py:7:consumer")
    stacks = [
        _stack(_MAIN, "/root/a.py:1:crash"),
        _stack(_OTHER, *waits, "LIB/threading.py:9:_bootstrap"),
        _stack(_OTHER.replace("2 (", "2 [pump] ("), "LIB/selectors.py:3:select"),
        _stack(_OTHER, "/root/a.py:3:works", "LIB/threading.py:9:_bootstrap"),
        *[_stack(_OTHER, "LIB/concurrent/futures/thread.py:8:_worker")] * 5,
        _stack(_OTHER) + "  <no Python frame>\n",
    ]
    assert _shown(*stacks) == [
        "/root/a.py:1: in crash",
        "    line 1",
        "!E   SIGSEGV",
        "",
        "another thread:",
        "/root/a.py:3: in works",
        "    line 3",
        "… 1 frame of Python's library",
        "",
        "… thread waits: threading.py:31 in wait, for a.py:7 in consumer",
        "… thread pump waits: selectors.py:3 in select",
        *["… thread waits: concurrent/futures/thread.py:8 in _worker"] * 2,
        "… 4 more threads that wait",
    ]
    assert len([line for line in _shown(*stacks, everything=True) if "Thread 0x" in line]) == 8


def test_a_thread_without_python_code_crashed() -> None:
    stacks = [_stack(_OTHER, "/root/a.py:3:works"), _stack(_OTHER, "/root/a.py:1:test")]
    assert _shown("Fatal Python error: Segmentation fault\n", *stacks) == [
        "!E   SIGSEGV",
        "the thread that crashed runs no Python code; where the others were:",
        "",
        "another thread:",
        "/root/a.py:1: in test",
        "    line 1",
        "",
        "another thread:",
        "/root/a.py:3: in works",
        "    line 3",
    ]


def test_a_fatal_error_that_says_more_than_the_signal_is_kept() -> None:
    stack = _stack(_MAIN, "/root/a.py:1:f")
    said = "Fatal Python error: PyThreadState_Get: the GIL is released"
    assert _shown(f"{said}\n\n{stack}")[:2] == [said, ""]
    native = "Current thread's C stack trace (most recent call first):\n  Binary file x\n"
    assert _shown("Fatal Python error: Aborted\n\n" + stack, native)[-2:] == [
        "C functions of that thread:",
        "  Binary file x",
    ]


def test_values_of_a_dump() -> None:
    dump = _stack(_OTHER, "/root/a.py:3:works") + _stack(_MAIN, "/root/t\\xe4.py:???:f")
    main, other = parsed(dump).threads
    assert (main.current, other.current) == (True, False)
    assert main.frames == [Frame("/root/tä.py", 0, "f")]


def test_tools_are_where_this_process_has_them(pytestconfig: pytest.Config) -> None:
    found = origins(pytestconfig)
    here = Frame(__file__, 1, "f")
    assert not found.is_tool(here)
    assert not found.is_library(here)
    assert found.is_library(Frame(os.__file__, 1, "f"))
    assert found.is_library(Frame("<frozen importlib._bootstrap>", 1, "f"))
    for module in (pytest, Sources):
        path = __import__(module.__module__ if module is Sources else "_pytest").__file__
        assert found.is_tool(Frame(str(path), 1, "f"))


# --- sources --------------------------------------------------------------------------------------


def test_sources_of_any_kind(tmp_path: Path) -> None:
    def lines(name: str, data: bytes, line: int = 1) -> list[str]:
        (tmp_path / name).write_bytes(data)
        return list(Sources().around(str(tmp_path / name), line, 0).lines)

    assert lines("latin", b"# coding: latin-1\nx = '\xe4'\n", 2) == ["x = 'ä'"]
    assert lines("bom", b"\xef\xbb\xbfx = 1\r\ny\n") == ["x = 1"]
    assert lines("unknown", b"# coding: no-such\n\xff\n", 2) == ["\N{REPLACEMENT CHARACTER}"]
    assert lines("not text", b"# coding: zip\nx\n", 2) == ["x"]
    assert lines("escapes", b"\x1b[2Jx\x0c\xc2\x85\n") == ["\ufffd[2Jx\ufffd\ufffd"]
    assert lines("binary", b"\0x\n") == []
    assert lines("short", b"x\n", 3) == []
    assert lines("empty", b"") == [""]
    assert len(lines("wide", b"x" * 9999)[0]) == 201
    with open(tmp_path / "huge", "wb") as file:
        file.write(b"x\n")
        file.truncate(9 << 20)
    os.mkfifo(tmp_path / "pipe")
    for name in ("huge", "pipe", ".", "gone", "nul\0"):
        assert Sources().around(f"{tmp_path}/{name}", 1, 2) == NOTHING


def test_lines_around_end_with_the_file_and_begin_with_text(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("\n\na\nb\n\n\n")
    assert Sources().around(str(tmp_path / "a.py"), 4, 3)[:2] == (3, ["a", "b"])
    assert Sources().around(str(tmp_path / "a.py"), 2, 1)[:2] == (2, ["", "a"])


# --- the object in the report ---------------------------------------------------------------------


def _report(crash: CrashReport, text: str = "") -> Any:
    location = ("a.py", 0, "test")
    report = pytest.TestReport("a.py::test", location, {}, "failed", text or crash.text, "call")
    add_facts(vars(report), crash=crash.to_wire())
    return report


def test_report_shows_less_on_the_terminal_than_as_text(pytestconfig: pytest.Config) -> None:
    stack = _stack(_MAIN, f"{__file__}:1:f", "PKG/_pytest/a.py:2:g")
    origins = _ORIGINS._replace(rootdir=str(pytestconfig.rootpath))
    crash = CrashReport("SIGSEGV", ("first",), stack, ("last",), origins)
    report = _report(crash)
    show_crash(pytestconfig, report, began=0.0)
    assert not facts_of(report).crash
    assert "… 1 frame of pytest" in report.longreprtext
    assert "the file was changed after this run began" in report.longreprtext
    assert f"{_PACKAGES}/_pytest/a.py:2: in g" in str(report.longrepr)
    assert '>   """Which frames' in str(report.longrepr)
    again = _report(crash)
    show_crash(pytestconfig, again, began=float("inf"))
    assert "was changed" not in again.longreprtext
    assert report.longrepr != again.longrepr


@pytest.mark.parametrize("data", [["x"], None, 3, ["", "", "", "", ("", "")]])
def test_report_that_a_plugin_changed_is_left_alone(
    pytestconfig: pytest.Config, data: object
) -> None:
    crash = CrashReport("SIGSEGV", ("first",), "", ("last",), _ORIGINS)
    changed = _report(crash, "said by a plugin")
    show_crash(pytestconfig, changed, 0.0)
    assert changed.longrepr == "said by a plugin"
    add_facts(vars(changed), crash=data)
    show_crash(pytestconfig, changed, 0.0)
    assert changed.longrepr == "said by a plugin"
    assert not isinstance(changed.longrepr, ShownCrash)
