"""The time limit of a whole run."""

from __future__ import annotations

from ..own import own_builtins, time

own_builtins(globals())


class Deadline:
    """Begins when it is made.

    :param seconds: that the run may take, before the grace.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._at

    @property
    def left(self) -> float:
        """Seconds until then, not less than 0."""
        return max(0.0, self._at - time.monotonic())

    @property
    def reason(self) -> str:
        return f"the run took longer than --fkit-session-timeout={self.seconds:g}"
