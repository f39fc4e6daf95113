"""SIGTERM as a Ctrl-C, for the process that the user started."""

from __future__ import annotations

from typing import Any

from ..own import own_builtins, signal, threading

own_builtins(globals())


def interrupt_on_sigterm() -> Any:
    """Have SIGTERM raise KeyboardInterrupt, unless somebody handles it already.

    :return: what :func:`restore_sigterm` needs.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        return None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return before


def restore_sigterm(before: Any) -> None:
    """Undo :func:`interrupt_on_sigterm`."""
    if before is not None:
        signal.signal(signal.SIGTERM, before)
