"""Forwards to the worker what a test process writes, while the test runs."""

from __future__ import annotations

from typing import Callable

from ...own import os, own_builtins
from ...protocol.descriptors import read_from
from ...protocol.event_file import Completed
from ...protocol.messages import Events, Message, Output
from ...protocol.wire import unpack
from ..process.excerpts import chunks, free_middle, free_until
from .jobs import HostProcess, Job

own_builtins(globals())


class Forwarder:
    """Reads the files of test processes, and forwards reports and output.

    :param hold: queues a message for the worker, to be sent with the next one.
    :param stream: whether output is forwarded while it is written.
    """

    def __init__(
        self, hold: Callable[[Message], None], send: Callable[[Message], None], stream: bool
    ) -> None:
        self._hold = hold
        self._send = send
        self._stream = stream

    def forward(self, job: Job, end: int | None = None) -> None:
        """Forward what the test process wrote since the last call.

        :param end: offset in its event file up to which it is read; None for its end.
        """
        if job.verdict is not None:
            return
        source = job.test_process
        data = read_from(source.files.events, source.events_read)
        if end is not None:
            data = data[: max(0, end - source.events_read)]
        source.events_read += len(data)
        frames = source.events.feed(data)
        if frames:
            last = unpack(frames[-1])[-1]
            source.completed = last if isinstance(last, Completed) else None
            # Held, since Ended most often follows at once.
            self._hold(Events(b"".join(frames), source.pid))
        if self._stream:
            for position, descriptor in enumerate((source.files.out, source.files.err)):
                begin = source.output_read[position]
                end = source.output_read[position] = os.fstat(descriptor).st_size
                for text in chunks(descriptor, begin, end):
                    self._send(Output(position + 1, text))

    def free(self, job: Job) -> None:
        """Give back the memory of output that will not be read any more."""
        source = job.test_process
        if self._stream:
            for descriptor, end in zip((source.files.out, source.files.err), source.output_read):
                free_until(descriptor, end)
        else:
            free_middle(source.files.out)
            free_middle(source.files.err)
        free_middle(source.files.log)

    def reset(self, host: HostProcess) -> None:
        """Empty the files of a host after its test, for the next one."""
        os.ftruncate(host.files.events, 0)
        host.events_read = 0
        if self._stream:
            for position, descriptor in enumerate((host.files.out, host.files.err)):
                os.ftruncate(descriptor, 0)
                host.output_read[position] = 0
