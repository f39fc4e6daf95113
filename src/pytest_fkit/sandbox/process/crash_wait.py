"""Has a thread that a fatal signal hit wait, so that the keeper can look at it.

The handler is a function of the C library, so nothing of ours runs in the crashed thread, and a
healthy test pays nothing: handlers are inherited by fork. faulthandler, which is enabled on top of
it, writes Python's stacks first, then puts back the handler that was there and raises the signal
again. The waiting thread blocks every signal but that one, which nothing else does, so it can be
found in /proc; that one has its default action again, so the keeper ends the process by sending it,
and the wait status, and the core file if there is to be one, are what they would be without us.
"""

from __future__ import annotations

import pytest

from ... import system
from ...own import ctypes, faulthandler, os, own_builtins, select, signal
from ...protocol.descriptors import slots
from .tree import send_signal

own_builtins(globals())

FATAL = tuple(
    int(number)
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)
)
"""The signals that faulthandler handles."""


def _bit(number: int) -> int:
    """A signal in a mask, as sigset_t and /proc have it."""
    return 1 << number - 1


# include/uapi/asm-generic/signal-defs.h, and the same on x86.
_SA_ONSTACK = 0x08000000
_SA_NODEFER = 0x40000000
_SA_RESETHAND = -0x80000000  # bit 31 of an int

_WORDS = 16  # of glibc's and musl's sigset_t, 128 bytes

_ALL = (1 << 64) - 1
_BLOCKABLE = _ALL & ~_bit(signal.SIGKILL) & ~_bit(signal.SIGSTOP)
_HANDLED = sum(map(_bit, FATAL))
_CRASHED = {_BLOCKABLE & ~_bit(number): number for number in FATAL}
"""The signal that hit a waiting thread, by the mask of signals that it blocks."""

_LOOKED_AT_BY = 15.0
"""Seconds in which the keeper has looked at a crashed thread, and ended its process."""

WAITS: pytest.StashKey[bool] = pytest.StashKey()
"""In ``config.stash``: whether crashed threads of test processes wait."""

TRACER: pytest.StashKey[int] = pytest.StashKey()
"""In ``config.stash``: the process to name in :func:`.system.let_attach`, 0 if none is to be."""

SUPPORTED = not system.PORTABLE
"""Whether there is a /proc that names the signals that a thread blocks."""


class _Action(ctypes.Structure):
    """struct sigaction of glibc and musl on Linux, but for MIPS, whose order is another."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * _WORDS),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def install() -> None:
    """Make this process, and those that it forks, wait; before faulthandler is enabled.

    Not the keeper, at whose threads nobody would look: they would wait for ever.

    Signals that somebody else handles stay his: a sanitizer, for example, prints its report then.
    Where the C library has no such functions, nobody waits.
    """
    libc = ctypes.CDLL(None)
    try:
        # pause(2), which ignores the argument, and of which only the death of the process returns:
        # after a signal that was sent, and is no fault, the test would go on and could pass.
        handler = ctypes.c_void_p.from_buffer(libc.pause).value
        sigaction = libc.sigaction
    except AttributeError:
        return
    faulthandler.disable()  # else it goes on to call the handlers that it found when it was enabled
    for number in FATAL:
        mask = (ctypes.c_uint64 * _WORDS)(*[_ALL] * _WORDS)
        mask[0] = _ALL & ~_bit(number)
        action = _Action(handler, mask, _SA_ONSTACK | _SA_NODEFER | _SA_RESETHAND, None)
        before = _Action()
        sigaction(number, None, ctypes.byref(before))
        if before.handler in (None, handler):  # None: SIG_DFL, which is 0
            sigaction(number, ctypes.byref(action), None)


def crashed(pid: int) -> tuple[int, int] | None:
    """The thread of a process that waits, and the signal that hit it; None if none waits."""
    if system.caught_signals(pid) & _HANDLED == _HANDLED:
        return None  # where one was called, it is reset
    for thread, blocked in system.blocked_signals(pid).items():
        if blocked in _CRASHED:
            return thread, _CRASHED[blocked]
    return None


def end_thread(pid: int, thread: int, number: int) -> None:
    """Send a thread that waits the signal that hit it: a core shows it as the one that crashed."""
    try:
        tgkill = ctypes.CDLL(None).tgkill
    except AttributeError:  # before glibc 2.30
        send_signal(pid, number)
    else:
        tgkill(pid, thread, number)


def await_keeper() -> None:
    """At the end of a test: if a thread crashed meanwhile, wait for the keeper to end the process.

    Without us it would have taken the main thread along.
    """
    try:
        crash = os.fstat(slots.dump).st_size and crashed(os.getpid())
    except OSError:  # the test has closed it
        return
    if crash:
        select.select([], [], [], _LOOKED_AT_BY)
        os.kill(os.getpid(), crash[1])
