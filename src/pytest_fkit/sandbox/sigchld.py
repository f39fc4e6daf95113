"""How children ended, where a suite has the kernel forget that: it ignores SIGCHLD (waitpid(2))."""

from __future__ import annotations

from typing import Iterator

from ..own import contextmanager, own_builtins, signal

own_builtins(globals())


class Statuses:
    """In a host, which forks tests, they are kept while tests run; tests see SIGCHLD ignored."""

    def __init__(self) -> None:
        self._ignored = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within this, no code of the suite runs in this process."""
        self._ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        if self._ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Have SIGCHLD ignored again, if it was; in a new child, too."""
        if self._ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            self._ignored = False
