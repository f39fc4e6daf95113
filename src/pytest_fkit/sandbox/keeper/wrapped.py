"""Tests whose process a wrapper runs, as valgrind or strace: which command, and how they ended."""

from __future__ import annotations

import re
from typing import Sequence

from ...config.folders import wrapper_program
from ...own import own_builtins, signal
from ...protocol.descriptors import Files, read_from, read_tail
from ...protocol.endings import Ending, Exited, Signaled, WrapperEnded, from_wait_status
from ...protocol.stacks import FATAL_ERROR, FATAL_ERRORS
from ...system.paths import base_name
from .jobs import HostProcess, HostStart

own_builtins(globals())

WRAPPER_LIMIT = 600.0
"""Seconds for a wrapper to end after its test, where tests have no limit: it may write much."""

_GDB = re.compile(
    rb'^(?:Program|Thread \S+ "[^"\n]*") (?:received|terminated with) signal (SIG[A-Z0-9]+)', re.M
)

_TAIL = 1 << 18
"""Bytes of output in which gdb's line is looked for."""


def command(start: HostStart, python: Sequence[str], directory: str, path: str) -> list[str]:
    """What runs the process: the program's path, and its arguments, its name the first of them.

    :param directory: to which the program is relative, if its path is given.
    """
    words = [word.replace("{artifacts}", start.artifacts) for word in start.key.wrapper]
    program = wrapper_program(words[0], directory, path)
    return [program or words[0], *words, *python]


def wrapped_ending(host: HostProcess) -> Ending | None:
    """How a host ended in the middle of its test; None if no wrapper ran it, or hides nothing."""
    if not host.key.wrapper:
        return None
    assert host.status is not None
    ended = from_wait_status(host.status)
    name = base_name(host.key.wrapper[0])
    if not host.inner:
        return WrapperEnded(name, ended.title, begun=False)
    number = _hidden_signal(host.files, name) if isinstance(ended, Exited) else 0
    return Signaled(number) if number else None


def wrapped_end_after_test(host: HostProcess) -> Ending | None:
    """How a host ended badly that had finished its test: by its wrapper, else None."""
    if not host.key.wrapper or not host.status:
        return None
    name = base_name(host.key.wrapper[0])
    return WrapperEnded(name, from_wait_status(host.status).title, begun=True)


def _hidden_signal(files: Files, wrapper: str) -> int:
    """The signal that ended a process whose wrapper only exited, 0 if none did."""
    dump = read_from(files.dump).decode("utf-8", "replace")
    found = re.search(f"^{FATAL_ERROR}(.*)$", dump, re.M)
    if found is not None and found[1] in FATAL_ERRORS:
        return int(FATAL_ERRORS[found[1]])
    if "gdb" not in wrapper:
        return 0
    for descriptor in (files.out, files.err):
        said = _GDB.findall(read_tail(descriptor, _TAIL))
        if said:
            return int(getattr(signal, said[-1].decode(), 0))
    return 0
