"""Whether the test loop is to stop, and why."""

from __future__ import annotations

import pytest

from ..config.deadline import Deadline
from ..own import own_builtins, threading, time
from ..protocol.event_file import Interrupted
from ..protocol.interruptions import interruption
from .keeper_link import KeeperClient

own_builtins(globals())


class Stopping:
    """The order to stop, which comes from the user, a test, the controller, or the deadline.

    :param grace: seconds in which tests and wide fixtures are to end.
    :param deadline: of the run, where nobody else watches it.
    """

    def __init__(
        self, session: pytest.Session, keeper: KeeperClient, grace: float, deadline: Deadline | None
    ) -> None:
        self._session = session
        self._keeper = keeper
        self._grace = grace
        self._deadline = deadline
        self._began = threading.Event()
        self._over: BaseException | None = None
        self._drained = 0.0
        self.said: Interrupted | None = None
        """What a test said that stops the run."""

    @property
    def has_begun(self) -> bool:
        """Whether no other test is to begin."""
        return self._began.is_set()

    @property
    def drains(self) -> bool:
        """Whether the running test may still end by itself."""
        return time.monotonic() < self._drained

    def begin(self) -> None:
        """Begin no other test; the caller ends the running one."""
        self._began.set()

    def order(self, drain: float = 0.0) -> None:
        """End the running test and tear down, within the grace; called in any thread.

        :param drain: the part of it in which a test may end by itself.
        """
        self._drained = time.monotonic() + drain
        self._began.set()
        self._keeper.request_stop(self._grace, drain)

    def look(self) -> None:
        """Order it if the deadline is over."""
        deadline = self._deadline
        if deadline is not None and deadline.is_over and not self.has_begun:
            self._over = self._session.Interrupted(deadline.reason)
            self.order(self._grace / 2)

    def wait(self, seconds: float) -> None:
        """Wait for the order, so long at most."""
        self._began.wait(seconds)

    def check(self) -> None:
        """Stop here, if the order has come.

        :raises KeyboardInterrupt, Session.Interrupted: then.
        """
        if self.has_begun:
            raise KeyboardInterrupt if self._over is None else self._over

    def reason(self, error: BaseException) -> Interrupted:
        """The reason from which the controller stops the run as `error` would stop plain pytest."""
        return self.said or interruption(error)
