"""What debuggers print, as recorded on Debian 12 with CPython 3.11, and what reports show."""

from __future__ import annotations

import pytest

from pytest_fkit.protocol.crash_report import NativeStacks
from pytest_fkit.protocol.endings import Signaled
from pytest_fkit.protocol.native_frames import NativeFrame, crashed_frames, threads
from pytest_fkit.protocol.stacks import Frame
from pytest_fkit.sandbox.keeper.crashes import AskedBefore, Crash
from pytest_fkit.worker.reports.native_stacks import section, section_of

_GDB = """\
[Thread debugging using libthread_db enabled]
Using host libthread_db library "/lib/x86_64-linux-gnu/libthread_db.so.1".

Thread 2 (Thread 0x7f1c2bbff6c0 (LWP 12) "python"):
#0  0x00007f1c2c2a3f16 in __futex_abstimed_wait_common () from /lib/x86_64-linux-gnu/libc.so.6
#1  0x00007f1c2ba1c1a5 in at::wait(int&) () from /opt/libc10.so

Thread 1 (Thread 0x7fa04c605b80 (LWP 11) "python3"):
#0  0x00007fa04bef1dd0 in __libc_pause () at ../sysdeps/unix/sysv/linux/pause.c:29
#1  <signal handler called>
#2  __pthread_kill_implementation (signo=signo@entry=11) at ./nptl/pthread_kill.c:44
#3  0x00007fa04be59fb2 in __GI_raise (sig=11) at ../sysdeps/posix/raise.c:26
#4  <signal handler called>
#5  0x00007fa04b9d9155 in at::native::frob<float> (p=...) at frob.cc:4
#6  0x00007fa04b87df7a in ?? () from /lib/x86_64-linux-gnu/libffi.so.8
#7  0x00007fa04b89417a in _call_function_pointer (flags=1) at Modules/_ctypes/callproc.c:923
#8  0x00007fa04c0fd9c3 in _PyEval_EvalFrameDefault (tstate=<optimized out>) at Python/ceval.c:4769
[Inferior 1 (process 11) detached]
"""

_EU_STACK = """\
PID 11 - process
TID 11:
#0  0x00007fe7a4ef1dd0 __libc_pause
    ../sysdeps/unix/sysv/linux/pause.c:29:10
#1  0x00007fe7a4e5a050 __restore_rt
#2  0x00007fe7a4ea8eec __pthread_kill_implementation
    ./nptl/pthread_kill.c:44:76
#3  0x00007fe7a4e59fb2 __GI_raise
    ../sysdeps/posix/raise.c:26:13
#4  0x00007fe7a4e5a050 __restore_rt
#5  0x00007fe7a4929155 frob
    /src/frob.cc:4:29
#6  0x00007fe7a4a96f7a
#7  0x00007fe7a4a96b0d ffi_call
#8  0x00007fe7a4ab617a _ctypes_callproc
    /tmp/Python-3.11.7/Modules/_ctypes/callproc.c:1262:15
"""

_PYSTACK = """\
Traceback for thread 11 (python3) [] (most recent call last):
    (C) File "???", line 0, in _start (/usr/bin/python3.11)
    (C) File "Modules/main.c", line 680, in Py_RunMain (/usr/lib/libpython3.11.so.1.0)
    (Python) File "/src/_pytest/python.py", line 187, in pytest_pyfunc_call
        result = testfunction(**testargs)
    (Python) File "/src/test_frob.py", line 19, in test_frob
        lib.crash()
    (C) File "???", line 0, in ffi_call (/usr/lib/x86_64-linux-gnu/libffi.so.8.1.2)
    (C) File "/src/frob.cc", line 4, in frob (inlined) (/src/libfrob.so)
    (C) File "???", line 0, in __restore_rt (/usr/lib/x86_64-linux-gnu/libc.so.6)
    (C) File "../sysdeps/unix/sysv/linux/pause.c", line 29, in __libc_pause (/usr/lib/libc.so.6)
"""

_PY_SPY = """\
Process 11: python3 -m pytest
Python v3.11.7 (/usr/bin/python3.11)

Thread 11 (idle): "MainThread"
    pause (libc.so.6)
    0x7f56626a3f16 (libc.so.6)
    raise (libc.so.6)
    0x7f56626a8ce3 (libc.so.6)
    frob (frob.cc:4)
    test_frob (test_frob.py:19)
    pytest_pyfunc_call (_pytest/python.py:187)
"""


def _told(tool: str, text: str, thread: int = 11) -> NativeStacks:
    return NativeStacks(tool, thread, text.encode(), "", b"", 0.0)


@pytest.mark.parametrize(
    ("tool", "text"),
    [("gdb", _GDB), ("eu-stack", _EU_STACK), ("pystack", _PYSTACK), ("py-spy", _PY_SPY)],
)
def test_the_function_that_crashed(tool: str, text: str) -> None:
    told = section(_told(tool, text))
    assert told.function in (
        "at::native::frob<float> (frob.cc:4)", "frob (/src/frob.cc:4)", "frob (frob.cc:4)",
    )  # fmt: skip
    assert f"native stack of the thread that crashed, by {tool}:" in told.text
    marked = [line for line in told.text.splitlines() if line.startswith("  > ")]
    assert len(marked) == 1
    assert "frob" in marked[0]
    for hidden in ("pause", "raise", "PyEval", "_ctypes", "pytest_pyfunc_call"):
        assert hidden not in told.text


def test_python_functions_stand_among_the_native_ones() -> None:
    assert [each.function for each in crashed_frames(_told("pystack", _PYSTACK))][:3] == [
        "frob", "ffi_call", "test_frob",
    ]  # fmt: skip
    assert (
        "    test_frob at /src/test_frob.py:19 (Python)"
        in section(_told("pystack", _PYSTACK)).text.splitlines()
    )


def test_all_threads_of_a_process_that_hangs() -> None:
    told = section(_told("gdb", _GDB, thread=0))
    assert told.function == ""
    lines = told.text.splitlines()
    assert lines[:4] == [
        "native stacks of all threads, by gdb:",
        "thread 12:",
        "    __futex_abstimed_wait_common at libc.so.6",
        "  > at::wait(int&) at libc10.so",
    ]
    assert "thread 11:" in lines


def test_equal_stacks_are_shown_once() -> None:
    block = 'Thread {0} (Thread 0x7f (LWP {0}) "w"):\n#0  0x0 in wait () from /opt/libpool.so\n'
    text = "\n".join(block.format(number) for number in range(100, 164))
    told = section(_told("gdb", text, thread=0)).text
    assert told.splitlines()[1:] == ["thread 100 and 63 more:", "  > wait at libpool.so"]


def test_a_deep_stack_is_cut() -> None:
    frames = "".join(f"#{n}  0x0 in deep{n} () from /opt/libdeep.so\n" for n in range(300))
    told = section(_told("gdb", f'Thread 1 (Thread 0x7f (LWP 11) "p"):\n{frames}')).text
    assert told.splitlines()[-1] == "    … 260 more lines"


def test_a_recursion_is_shown_once() -> None:
    frames = "".join(f"#{n}  0x0 in deep (n={n}) at deep.c:7\n" for n in range(199))
    text = f'Thread 1 (Thread 0x7f (LWP 11) "p"):\n{frames}#199  0x0 in begin () at deep.c:9\n'
    assert section(_told("gdb", text)).text.splitlines()[1:] == [
        "  > deep at deep.c:7",
        "    … the same frame 198 times more",
        "    begin at deep.c:9",
    ]


def test_what_throws_is_not_marked_but_who_has_it_throw() -> None:
    names = ["__GI_abort", "", "", "", "_Unwind_RaiseException", "__cxa_throw",
             "std::__throw_out_of_range(char const*)", "frob(int)"]  # fmt: skip
    frames = "".join(f"#{n}  0x00 {name}".rstrip() + "\n" for n, name in enumerate(names))
    told = section(_told("eu-stack", f"PID 11 - process\nTID 11:\n{frames}"))
    assert told.function == "frob(int)"
    assert told.text.splitlines()[2:4] == [
        "    … 3 frames of the interpreter and pytest", "    _Unwind_RaiseException",
    ]  # fmt: skip
    unknown = "".join(f"#{n}  0x0 in ?? () from /opt/libfrob.so\n" for n in range(3))
    told = section(_told("gdb", f'Thread 1 (Thread 0x7f (LWP 11) "p"):\n{unknown}'))
    assert told.text.splitlines()[1:] == ["    ?? at libfrob.so"] * 3


def test_the_function_of_the_interpreter_that_crashed() -> None:
    frames = (
        "#0  0x0 in mmap_item (i=10) at Modules/mmapmodule.c:8\n#1  0x0 in PyObject_GetItem ()\n"
    )
    told = section(_told("gdb", f'Thread 1 (Thread 0x7f (LWP 11) "p"):\n{frames}'))
    assert told.function == ""
    assert told.text.splitlines()[1:] == [
        "    mmap_item at Modules/mmapmodule.c:8",
        "    … 1 frame of the interpreter and pytest",
    ]


_LINE = (Frame("/src/test_frob.py", 19, "test_frob"),)


def test_who_is_not_asked_again_has_the_stack_of_the_crashes_before() -> None:
    asked, crash, told = AskedBefore(), Crash(11, _LINE, b"bad size"), _told("gdb", _GDB)
    for _ in range(asked.MOST_ALIKE):
        assert asked.alike(crash) is None
        asked.remember(crash, told)
    first, again = section(told), section_of(asked.alike(crash), Signaled(11))
    assert (again.function, again.inferred) == (first.function, True)
    assert again.text.startswith("native stack of an earlier crash with the same signal, Python ")
    assert again.text.splitlines()[1:] == first.text.splitlines()[1:]
    elsewhere = (Frame("/src/test_frob.py", 20, "test_frob"),)
    for other in (Crash(7, _LINE, b"bad size"), Crash(11, elsewhere, b"bad size"),
                  Crash(11, _LINE, b"bad type"), Crash(11, (), b"bad size")):  # fmt: skip
        assert asked.alike(other) is None


def test_crashes_of_one_line_in_different_functions_tell_nothing_of_the_next() -> None:
    asked, crash = AskedBefore(), Crash(11, _LINE, b"")
    for number in range(asked.MOST_THERE):
        assert (asked.alike(crash), asked.is_enough(crash)) == (None, False)
        asked.remember(crash, _told("gdb", _GDB.replace("frob", f"frob{number % 2}")))
    assert (asked.alike(crash), asked.is_enough(crash)) == (None, True)


def test_a_thread_that_the_tool_does_not_know() -> None:
    assert section(_told("py-spy", _PY_SPY, thread=12)).text == (
        "no native stack: py-spy does not show the thread that crashed"
    )


@pytest.mark.parametrize("tool", ["gdb", "eu-stack", "pystack", "py-spy"])
@pytest.mark.parametrize("text", ["", "rubbish\n#0\nThread\nTID x:\n", "\x00\xff" * 50])
def test_rubbish_is_said_in_a_line(tool: str, text: str) -> None:
    told = section(_told(tool, text))
    assert told.text.startswith(f"no native stack: {tool}: ")
    assert "\n" not in told.text
    assert list(threads(_told(tool, text))) == []


def test_what_went_wrong_is_said() -> None:
    denied = NativeStacks("gdb", 11, b"", "exit status 1", b"ptrace: Operation not permitted.", 0.0)
    assert "--cap-add=SYS_PTRACE" in section(denied).text
    slow = NativeStacks("gdb", 11, b"", "did not answer within 10 s", b"", 10.0)
    assert section(slow).text.endswith("did not answer within 10 s")


def test_a_frame_without_a_name() -> None:
    text = 'Thread 1 (Thread 0x7f (LWP 11) "p"):\n#0  0x0 in ?? () from /opt/libfrob.so\n'
    assert crashed_frames(_told("gdb", text)) == (NativeFrame("", "libfrob.so"),)
    assert "    ?? at libfrob.so" in section(_told("gdb", text)).text
