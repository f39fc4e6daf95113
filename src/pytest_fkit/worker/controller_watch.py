"""Ends a worker that does not hear of its controller, on another machine, any more."""

from __future__ import annotations

from ..own import os, own_builtins, threading
from ..protocol.border import GAP_WAIT

own_builtins(globals())

TIMES_LONGER = 5
"""How many times longer than the controller for a worker this waits for the controller.

Whoever is suspended by Ctrl-Z for a while is to find workers again.
"""


class ControllerWatch:
    """Watches the controller, which pings each worker from the collection on.

    A connection that is lost without a word, as when a cable is pulled, has no end here.

    :param limit: seconds after which the controller gives a silent worker up, 0 for never.
    """

    def __init__(self, limit: float) -> None:
        self._limit = TIMES_LONGER * limit
        self._period = min(GAP_WAIT, limit)
        self._missed = 0
        self._status = 1
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def begin(self) -> None:
        """Begin to watch: the controller pings from now on."""
        if self._limit:
            self._thread.start()

    def heard(self) -> None:
        """The controller has sent something; called in any thread."""
        self._missed = 0

    def rest(self) -> None:
        """The session is over: the process is not needed any more, and may end by itself."""
        self._missed = self._status = 0

    def close(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        # Periods are counted, not seconds: this process hears nothing while it is suspended.
        while not self._over.wait(self._period):
            self._missed += 1
            if self._missed * self._period > self._limit:
                os._exit(self._status)  # the keeper notices, and ends everything below
