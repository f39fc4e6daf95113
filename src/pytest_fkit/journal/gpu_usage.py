"""What GPUs were seen to use, and the most that they used while a test ran."""

from __future__ import annotations

from collections import deque
from typing import Dict, Iterable, Sequence, Tuple

from ..own import own_builtins
from .events import Event

own_builtins(globals())

Seen = Dict[str, Tuple[int, int]]
"""By id of a GPU: bytes of its memory in use, and per cent of the time that it was busy; -1 where
that is unknown."""

MOST = 36_000
"""Samples that are kept: those of an hour in which something changes all the time."""


class GpuUsage:
    """Samples, in the order of time; what one says holds until the next."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Seen]] = deque(maxlen=MOST)

    def add(self, wall: float, seen: Seen) -> None:
        """Take one in."""
        self._samples.append((wall, seen))

    def peak(self, gpus: Sequence[str], start: float, end: float) -> int | None:
        """The most memory that these GPUs had in use together; None if nobody looked.

        :param start: in seconds since the epoch, as `end`.
        """
        most = None
        for wall, seen in reversed(self._samples):
            known = [seen[gpu][0] for gpu in gpus if gpu in seen and seen[gpu][0] >= 0]
            if wall <= end and known:
                most = max(most or 0, sum(known))
            if wall <= start:
                break
        return most


def sample_event(wall: float, mono: float, seen: Seen) -> Event:
    """What the journal says of a sample."""
    used = {gpu: dict(_known(*figures)) for gpu, figures in seen.items()}
    return {"event": "gpus", "wall": wall, "mono": mono, "used": used}


def _known(memory: int, utilisation: int) -> Iterable[tuple[str, int]]:
    if memory >= 0:
        yield "memory", memory
    if utilisation >= 0:
        yield "utilisation", utilisation
