"""Ends workers that do not end themselves."""

from __future__ import annotations

from typing import Any

from ... import system
from ...compat import xdist_controller
from ...own import os, own_builtins, signal, threading
from ..schedule.machines import host_of

own_builtins(globals())


def kill(node: Any) -> None:
    """Have a worker die; xdist will see that.

    A process is killed by its number only if that is one of this machine, below this process.
    Otherwise nothing that the worker says is heard any more, and its end follows from that.
    """
    pid = node.workerinput.get("fkit_pid", 0)
    if pid and not host_of(node) and pid in system.descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:  # it has died since, or runs as somebody else
            pass
        else:
            return
    # Asking a proxy to do it may take as long as the proxy does.
    thread = threading.Thread(
        target=xdist_controller.end_gateway, args=(node.gateway,), daemon=True
    )
    thread.start()
