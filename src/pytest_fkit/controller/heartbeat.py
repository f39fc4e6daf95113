"""Workers that are there but do not answer: stopped, or stuck in native code."""

from __future__ import annotations

from typing import Any, Callable

from ..own import os, own_builtins, signal, threading

own_builtins(globals())

TICK = 0.25
"""Of the limit: how often workers are asked."""


class Heartbeat:
    """Asks workers of this machine for a sign of life, and kills those that give none.

    What follows is what follows the death of any worker.

    :param limit: seconds, 0 for none.
    :param order: sends a worker a message.
    :param show: writes a line to the terminal; called in another thread.
    """

    def __init__(
        self,
        limit: float,
        order: Callable[[Any, tuple[Any, ...]], None],
        show: Callable[[str], None],
    ) -> None:
        self._limit = limit
        self._order = order
        self._show = show
        self._unanswered: dict[Any, int] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def add(self, node: Any) -> None:
        """A worker has collected; before that it may be in native code for as long as it takes."""
        if self._limit and node.workerinput.get("fkit_pid") and not node.gateway.spec.ssh:
            self.answered(node)
            if not self._thread.is_alive() and not self._over.is_set():
                self._thread.start()

    def answered(self, node: Any) -> None:
        """A worker gave a sign of life; called in any thread."""
        with self._lock:
            self._unanswered[node] = 0

    def remove(self, node: Any) -> None:
        """It is gone."""
        with self._lock:
            self._unanswered.pop(node, None)

    def close(self) -> None:
        """The run is over."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._limit * TICK):
            self.tick()

    def tick(self) -> None:
        """Ask all, and kill those that have not answered for so long.

        Questions are counted, not seconds: where this process was stopped, as by Ctrl-Z, so were
        the workers, and nobody asked them.
        """
        with self._lock:
            unanswered = dict(self._unanswered)
            self._unanswered = {node: number + 1 for node, number in unanswered.items()}
        for node, number in unanswered.items():
            if number * TICK > 1.0:
                self._kill(node)
            else:
                self._order(node, ("ping",))

    def _kill(self, node: Any) -> None:
        self.remove(node)
        self._show(f"fkit: {node.gateway.id} has not answered for {self._limit:g} s, and is killed")
        try:
            os.kill(node.workerinput["fkit_pid"], signal.SIGKILL)
        except ProcessLookupError:  # it has died since
            return
