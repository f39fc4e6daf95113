"""How children ended, where a suite has the kernel forget that: it ignores SIGCHLD (waitpid(2))."""

from __future__ import annotations

from ...own import own_builtins, signal

own_builtins(globals())


class Statuses:
    """In a host, which forks tests, they are kept while tests run; tests see SIGCHLD ignored.

    A context manager, within which no code of the suite runs in this process.
    """

    def __init__(self) -> None:
        self._ignored = False

    def __enter__(self) -> None:
        """Have the kernel keep them."""
        self._ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        if self._ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def __exit__(self, *error: object) -> None:
        """As before."""
        self.leave()

    def leave(self) -> None:
        """Have SIGCHLD ignored again, if it was; in a new child, too."""
        if self._ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            self._ignored = False
