"""Looks at the process that runs a test, which goes on."""

from __future__ import annotations

from ... import system
from ...own import os, own_builtins
from ...protocol.descriptors import Files
from ...protocol.messages import Inspected
from ..process.tree import DUMP_SIGNAL, Until
from .enforcing import dump_stacks
from .jobs import Job

own_builtins(globals())

_TAIL = 4096
"""Bytes of output in which its last line is looked for."""


def inspect(job: Job, until: Until) -> Inspected:
    """What the process that runs the test does now."""
    source = job.test_process
    pid, line, dump = source.pid, _last_line(source.files), b""
    # By default the signal would end a process: one that has become another program, for example.
    if system.catches(pid, DUMP_SIGNAL):
        before, dump = dump_stacks(pid, source.files, (DUMP_SIGNAL,), until, lambda: False)
        source.dump_read = before + len(dump)
    return Inspected(pid, line, dump)


def _last_line(files: Files) -> str:
    """The last line of output and error output; of that which was written later."""
    descriptors = sorted((files.out, files.err), key=lambda each: os.fstat(each).st_mtime_ns)
    for descriptor in reversed(descriptors):
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL)).decode("utf-8", "replace")
        lines = [line.strip() for line in tail.splitlines() if line.strip(" \0\t")]
        if lines:
            return lines[-1]
    return ""
