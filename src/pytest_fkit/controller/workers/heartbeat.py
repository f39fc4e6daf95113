"""Workers that are there but do not answer, or of whose messages one is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

from ...own import own_builtins, threading
from ...protocol.border import GAP_WAIT, Order, Ping

own_builtins(globals())

_PERIOD = GAP_WAIT / 2
"""Seconds, at most: how often workers are asked."""

_QUESTIONS = 4
"""To be asked at least, before a worker counts as one that does not answer."""


class Edges(NamedTuple):
    """What is done for it elsewhere, all in another thread.

    :param order: sends a worker a message.
    :param trouble: what is wrong with what a worker sends, "" if nothing is.
    :param distrust: ends a worker for that.
    :param silent: ends a worker that does not answer.
    :param show: writes a line to the terminal.
    """

    order: Callable[[Any, Order], None]
    trouble: Callable[[Any], str]
    distrust: Callable[[Any, str], None]
    silent: Callable[[Any], None]
    show: Callable[[str], None]


@dataclass
class _Watched:
    """A worker.

    :param unanswered: questions since it gave a sign of life.
    :param trouble: what was wrong with its messages when they were looked at last.
    """

    unanswered: int = 0
    trouble: str = ""


class Heartbeat:
    """Asks workers for a sign of life, and has those ended that give none.

    The answers have numbers, as all messages: one that was lost is noticed, in either direction.
    What follows is what follows the death of any worker.

    :param limit: seconds without a sign of life, 0 for none.
    """

    def __init__(self, limit: float, edges: Edges) -> None:
        self._limit = limit
        self._edges = edges
        self.period = min(_PERIOD, limit / _QUESTIONS) if limit else _PERIOD
        """Seconds from question to question."""
        self._watched: dict[Any, _Watched] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def add(self, node: Any) -> None:
        """A worker has collected; before that it may be in native code for as long as it takes."""
        with self._lock:
            self._watched[node] = _Watched()
        if not self._thread.is_alive() and not self._over.is_set():
            self._thread.start()

    def heard(self, node: Any) -> None:
        """A worker gave a sign of life; called in any thread."""
        with self._lock:
            if node in self._watched:
                self._watched[node].unanswered = 0

    def remove(self, node: Any) -> None:
        """It is gone."""
        with self._lock:
            self._watched.pop(node, None)

    def close(self) -> None:
        """The run is over."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self.period):
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 (nobody would watch the others)
                self._edges.show(f"fkit: a worker could not be asked for a sign of life: {error!r}")

    def tick(self) -> None:
        """Ask all, and end those that have not answered for so long.

        Count missed answers, not seconds, so that workers that were suspended with this process, as
        by Ctrl-Z, are not condemned.
        """
        with self._lock:
            watched = dict(self._watched)
        for node, state in watched.items():
            trouble = self._edges.trouble(node)
            if trouble and trouble == state.trouble:
                self.remove(node)
                self._edges.distrust(node, trouble)
            elif self._limit and state.unanswered * self.period > self._limit:
                self.remove(node)
                self._edges.silent(node)
            else:
                state.trouble = trouble
                state.unanswered += 1
                self._edges.order(node, Ping())
