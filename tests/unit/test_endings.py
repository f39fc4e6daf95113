from __future__ import annotations

import os
import signal
from typing import get_args

import pytest

from pytest_fkit.protocol.endings import (
    ITS_END,
    Ending,
    Exited,
    Finished,
    ForkUnsafe,
    Lost,
    MemoryExceeded,
    Signaled,
    TimedOut,
    Unmet,
    Unreported,
    WrapperEnded,
    format_size,
    from_wait_status,
    signal_name,
)
from pytest_fkit.protocol.messages import Ended
from pytest_fkit.protocol.wire import Packer, unpack

_ALL: list[Ending] = [
    Finished(),
    Signaled(11),
    Signaled(9, core_dumped=True, out_of_memory=True),
    Exited(0),
    TimedOut(4.0, "T"),
    MemoryExceeded(1 << 20, 2 << 20),
    Lost("its host died"),
    Unmet("needs 4 GiB"),
    ForkUnsafe("a thread"),
    Unreported(ITS_END),
    WrapperEnded("valgrind", "exit status 99", begun=True),
]


def test_each_ending_is_here() -> None:
    assert {type(each) for each in _ALL} == {*get_args(Ending)}


@pytest.mark.parametrize("ending", _ALL, ids=lambda ending: type(ending).__name__)
def test_ending_survives_the_wire(ending: Ending) -> None:
    (message,) = unpack(Packer().pack(Ended(ending)))
    assert isinstance(message, Ended)
    assert (type(message.ending), message.ending) == (type(ending), ending)


@pytest.mark.parametrize(
    ("ending", "title", "story"),
    [
        (Signaled(11), "SIGSEGV", "was ended by SIGSEGV (signal 11)"),
        (
            Signaled(6, core_dumped=True),
            "SIGABRT",
            "was ended by SIGABRT (signal 6); a core file was written",
        ),
        (
            Signaled(9, out_of_memory=True),
            "SIGKILL (out of memory)",
            (
                "was ended by SIGKILL (signal 9); "
                "the kernel's out-of-memory killer was at work at that moment"
            ),
        ),
        (Exited(0), "exit status 0", "exited with status 0 before the test had finished"),
        (TimedOut(4.0), "timed out after 4 s", "timed out after 4 s and was ended"),
        (
            TimedOut(0.5, "T"),
            "timed out after 0.5 s",
            "timed out after 0.5 s and was ended; it had been stopped (SIGSTOP or the like)",
        ),
        (
            MemoryExceeded(1 << 20, 3 << 19),
            "memory limit 1 MiB exceeded (1.5 MiB)",
            "took 1.5 MiB of memory since its start, more than the limit of 1 MiB, and was ended",
        ),
        (Lost("its host died"), "lost: its host died", "was lost: its host died"),
        (Unmet("needs 4 GiB"), "not begun: needs 4 GiB", "was not begun: it needs 4 GiB"),
        (
            WrapperEnded("valgrind", "exit status 99", begun=True),
            "valgrind: exit status 99",
            "had finished the test; then its wrapper, valgrind, ended by exit status 99",
        ),
    ],
)
def test_ending_says_what_happened(ending: Ending, title: str, story: str) -> None:
    assert (ending.title, ending.story) == (title, story)


@pytest.mark.parametrize(
    ("command", "ending"),
    [("exit 0", Exited(0)), ("exit 3", Exited(3)), ("kill -KILL $$", Signaled(signal.SIGKILL))],
)
def test_ending_from_a_real_wait_status(command: str, ending: Ending) -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], {})
    assert from_wait_status(os.waitpid(pid, 0)[1]) == ending


def test_ending_from_a_status_with_a_core_file() -> None:
    assert from_wait_status(signal.SIGSEGV | 0x80) == Signaled(signal.SIGSEGV, core_dumped=True)


def test_signals_without_a_name_of_their_own() -> None:
    assert signal_name(signal.SIGTERM) == "SIGTERM"
    assert signal_name(999) == "signal 999"


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no real-time signals")
def test_real_time_signals_are_counted_from_the_first() -> None:
    assert signal_name(signal.SIGRTMIN) == "SIGRTMIN"
    assert signal_name(signal.SIGRTMIN + 3) == "SIGRTMIN+3"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5 MiB"), (7 << 40, "7168 GiB")],
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text
