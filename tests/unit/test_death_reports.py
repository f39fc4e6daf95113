from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_fkit.config.one_test import kept_for_one_test
from pytest_fkit.protocol.crash_report import CrashReport
from pytest_fkit.protocol.endings import (
    Ending,
    Exited,
    Lost,
    MemoryExceeded,
    Signaled,
    TimedOut,
    Unmet,
)
from pytest_fkit.protocol.messages import Ended
from pytest_fkit.protocol.stacks import Frame, Origins, innermost_frame, reorder_stacks
from pytest_fkit.worker.reports.deaths import Death, crash_report, headline, report_data

_ROOT = Path("/root/of/suite")

_DUMP = """\
Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 (most recent call first):
  File "/root/of/suite/helpers.py", line 5 in wait

Current thread 0x00007f0000000002 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/root/of/suite/.venv/lib/python3.11/site-packages/lib.py", line 3 in call
  File "/root/of/suite/tests/test_x.py", line 27 in test_segv
  File "/somewhere/pytest_fkit/sandbox/steps.py", line 32 in run_steps
  File "/somewhere/else.py", line 1 in main
"""


def _death(ending: Ending, **others: Any) -> Death:
    nodeid = "tests/test_x.py::test_segv"
    names = others.keys() & {*Ended._fields} - {"wide"}
    of_process = {name: others.pop(name) for name in names}
    values: dict[str, Any] = {
        "phase": "call",
        "seconds": 1.25,
        "worker": "gw1",
        "wide": "",
        "fixture": "",
        "reproduce": f"pytest {nodeid}",
    }
    written = {name: text.encode() for name, text in of_process.items() if isinstance(text, str)}
    ended = Ended(ending, **{"pid": 42, **of_process, **written})
    return Death(nodeid, ended, **{**values, **others})


def story(death: Death) -> str:
    crash = crash_report(death, Origins(str(_ROOT), "/usr/lib/python3.11", ()))
    assert CrashReport.from_wire(crash.to_wire()) == crash
    return crash.text


def test_crashing_thread_comes_first_and_our_frames_are_left_out() -> None:
    assert reorder_stacks(_DUMP).splitlines() == [
        "Fatal Python error: Segmentation fault",
        "",
        "Current thread 0x00007f0000000002 (most recent call first):",
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at',
        '  File "/root/of/suite/.venv/lib/python3.11/site-packages/lib.py", line 3 in call',
        '  File "/root/of/suite/tests/test_x.py", line 27 in test_segv',
        "Thread 0x00007f0000000001 (most recent call first):",
        '  File "/root/of/suite/helpers.py", line 5 in wait',
    ]


# The form is that of faulthandler_fatal_error() in Modules/faulthandler.c, and of dump_traceback(),
# write_thread_id() and _Py_DumpStack() in Python/traceback.c, of CPython 3.14; nothing of this was
# seen on a 3.14 here. On a system without backtrace(3) the C stack is a line in angle brackets.
_DUMP_314 = """\
Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 [pump: a b] (most recent call first):
  File "/root/of/suite/helpers.py", line 5 in wait

Current thread 0x00007f0000000002 [python] (most recent call first):
  File "/root/of/suite/tests/test_x.py", line 27 in test_segv
  File "/somewhere/pytest_fkit/sandbox/steps.py", line 32 in run_steps
  File "/somewhere/else.py", line 1 in main

Current thread's C stack trace (most recent call first):
  Binary file "/opt/python/lib/libpython3.14.so.1.0", at _Py_DumpStack+0x42 [0x5b27f7d7147e]
  Binary file "/usr/lib/libc.so.6", at +0x3def0 [0x77b73226bef0]
  <truncated rest of calls>

Extension modules: numpy._core._multiarray_umath (total: 1)
"""


@pytest.mark.parametrize("dump", [_DUMP_314, _DUMP_314.replace("  <trunc", "  <cannot")])
def test_the_c_stack_stands_below_the_python_stack_of_its_thread(dump: str) -> None:
    lines = reorder_stacks(dump).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [
        "Fatal Python error: Segmentation fault",
        "",
        "Current thread 0x00007f0000000002 [python] (most recent call first):",
        "Current thread's C stack trace (most recent call first):",
        "Thread 0x00007f0000000001 [pump: a b] (most recent call first):",
    ]
    assert lines[3:5] == ['  File "/root/of/suite/tests/test_x.py", line 27 in test_segv', lines[4]]
    assert len([line for line in lines if "Binary file" in line]) == 2
    assert lines[7].endswith("rest of calls>")
    assert innermost_frame(dump, _ROOT) == Frame("tests/test_x.py", 27, "test_segv")


def test_last_fatal_error_counts() -> None:
    copy = "Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n"
    text = reorder_stacks(copy + '  File "/a.py", line 1 in copy\n' + _DUMP)
    assert "Aborted" not in text
    assert "in copy" not in text


def test_innermost_frame_is_under_rootdir_and_not_installed() -> None:
    assert innermost_frame(_DUMP, _ROOT) == Frame("tests/test_x.py", 27, "test_segv")
    assert innermost_frame(_DUMP, Path("/other")) is None
    assert innermost_frame("", _ROOT) is None


def test_innermost_frame_of_a_path_that_is_not_ascii() -> None:
    dump = (
        "Current thread 0x1 (most recent call first):\n"
        '  File "/root/of/suite/t\\xe4st_\\u20ac.py", line 3 in test\n'
    )
    assert innermost_frame(dump, _ROOT) == Frame("täst_€.py", 3, "test")


def test_innermost_frame_without_a_line_number_is_passed_over() -> None:
    dump = (
        "Current thread 0x1 (most recent call first):\n"
        '  File "/root/of/suite/a.py", line ??? in lost\n'
        '  File "/root/of/suite/b.py", line 2 in found\n'
    )
    assert innermost_frame(dump, _ROOT) == Frame("b.py", 2, "found")


_NO_PYTHON = 'Thread 0x1 (most recent call first):\n  File "/usr/lib/a.py", line 1 in main\n'
_PYTHON_THREAD = (
    "Current thread 0x2 (most recent call first):\n"
    '  File "/usr/lib/python3.11/threading.py", line 982 in run\n'
    '  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap\n'
)


@pytest.mark.parametrize(
    ("others", "line"),
    [
        ({"dump": _DUMP}, "SIGSEGV at tests/test_x.py:27 in test_segv"),
        ({}, "SIGSEGV"),
        ({"phase": "exit"}, "SIGSEGV in an exit handler"),
        (
            {"phase": "exit", "dump": _DUMP},
            "SIGSEGV in an exit handler at tests/test_x.py:27 in test_segv",
        ),
        ({"phase": "exit", "dump": _NO_PYTHON}, "SIGSEGV after the test"),
        ({"phase": "exit", "dump": _PYTHON_THREAD}, "SIGSEGV after the test"),
        ({"wide": "teardown", "phase": "teardown"}, "SIGSEGV while tearing down wide fixtures"),
        (
            {"wide": "setup", "phase": "setup", "fixture": "module-scoped fixture 'db'"},
            "SIGSEGV while setting up module-scoped fixture 'db'",
        ),
    ],
)
def test_headline(others: dict[str, Any], line: str) -> None:
    assert headline(_death(Signaled(11), **others), _ROOT) == line


@pytest.mark.parametrize(
    ("ending", "why"),
    [
        (Exited(0), "a process that exits by itself (os._exit, os.execv and the like) leaves none"),
        (Signaled(9), "SIGKILL ends a process at once"),
        (Signaled(10), "Python's fault handler does not handle SIGUSR1"),
        (
            Signaled(11),
            (
                "the thread's stack was full, the signal handler that writes it was replaced, its "
                "descriptor closed, or a debugger kept the signal from it"
            ),
        ),
        (
            TimedOut(4.0),
            "the process did not answer within 200 ms (blocked signals, or inside the kernel)",
        ),
        (
            MemoryExceeded(1, 2),
            "the process did not answer within 200 ms (blocked signals, or inside the kernel)",
        ),
        (Lost("x"), "Python did not crash in it"),
        (Unmet("x"), "there was no process"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_story_says_why_there_is_no_stack(ending: Ending, why: str) -> None:
    assert f"no Python stack: {why}" in story(_death(ending)).splitlines()


def test_story_is_complete() -> None:
    text = story(
        _death(
            Signaled(11),
            dump=_DUMP,
            leftovers=["pid 7 (S): sleep"],
            survivors=["pid 8 (D): x"],
            hold_gpus=["pid 9 (D): y"],
        )
    )
    lines = text.splitlines()
    assert lines[:2] == [
        "tests/test_x.py::test_segv: the test process was ended by SIGSEGV (signal 11)",
        "phase call, 1.25 s after it began; worker gw1, pid 42",
    ]
    assert "Python stacks at that moment:" in lines
    assert lines[lines.index("  pid 7 (S): sleep") - 1].startswith("processes that the test left")
    assert lines[lines.index("  pid 9 (D): y") - 1] == (
        "processes that still have GPUs open, with memory in use:"
    )
    assert lines[lines.index("  pid 8 (D): x") - 1].startswith("processes that survived SIGKILL")
    assert lines[-1] == "reproduce: pytest tests/test_x.py::test_segv"


def test_what_runs_one_test_again_has_one_process_here() -> None:
    given = ["--fkit", "-d", "--tx", "2*popen", "-n4", "--fkit-machines=ssh:a,b", "-s", "tests"]
    assert list(kept_for_one_test(given, {"tests"}.__contains__)) == ["--fkit", "-s"]


def _data(death: Death, expected: str | None = None) -> dict[str, Any]:
    location = ("tests/test_x.py", 25, "test_segv")
    crash = crash_report(death, Origins(str(_ROOT), "", ()))
    return report_data(death, location, {"test_segv": 1}, _ROOT, crash, 1000.0, expected)


def test_report_is_a_failure_of_its_phase() -> None:
    data = _data(_death(Signaled(11), dump=_DUMP, out="o\n", log="l"))
    assert (data["outcome"], data["when"]) == ("failed", "call")
    assert data["longrepr"]["reprcrash"] == {
        "path": "/root/of/suite/tests/test_x.py",
        "lineno": 27,
        "message": "SIGSEGV at tests/test_x.py:27 in test_segv",
    }
    assert data["sections"] == [("Captured stdout call", "o\n"), ("Captured log call", "l")]
    assert (data["start"], data["stop"], data["duration"]) == (1000.0, 1001.25, 1.25)


def test_report_without_a_frame_points_to_the_test() -> None:
    crash = _data(_death(Exited(3)))["longrepr"]["reprcrash"]
    assert (crash["path"], crash["lineno"]) == ("/root/of/suite/tests/test_x.py", 26)


def test_report_of_an_exit_handler_belongs_to_the_teardown() -> None:
    assert _data(_death(Signaled(6), phase="exit"))["when"] == "teardown"


def test_expected_death_is_skipped_with_a_reason() -> None:
    data = _data(_death(Signaled(11)), expected="known")
    assert (data["outcome"], data["wasxfail"]) == ("skipped", "known")
