"""A trace that is written while its run goes on."""

from __future__ import annotations

from typing import Sequence

from ..own import own_builtins
from .events import Event
from .files import AppendedFile
from .trace import HEAD, TAIL, Encoder, is_shown

own_builtins(globals())

_MANY = 200
_LONG = 1.0  # seconds from the first event that waits to the last


class TraceFile:
    """A sink of the recorder.

    Many events are turned into the trace together: after each test anew, with other processes on
    the processor in between, that took about twice as long.
    """

    def __init__(self, file: AppendedFile) -> None:
        self._file = file
        self._encoder = Encoder()
        self._waiting: list[Event] = []
        file.write(HEAD)

    def take(self, events: Sequence[Event]) -> None:
        """Take events in."""
        self._waiting += filter(is_shown, events)
        last = events[-1]
        if last["event"] == "end":
            self.write()
            self._file.write(TAIL)
        elif self._waiting and (
            len(self._waiting) >= _MANY or last["mono"] - self._waiting[0]["mono"] >= _LONG
        ):
            self.write()

    def write(self) -> None:
        """Write what is there."""
        waiting, self._waiting = self._waiting, []
        self._file.write(self._encoder.encode(waiting))
