"""pytest-rerunfailures in a test process: its counts go on where an earlier process died."""

from __future__ import annotations

from typing import Any

import pytest

from ...own import own_builtins

own_builtins(globals())


class Counts:
    """Takes the place of pytest-rerunfailures' ``config.failures_db``.

    The plugin asks it how often a test failed when it begins to loop, and begins to count there.
    """

    def __init__(self, db: Any) -> None:
        self._db = db
        self._attempts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def begin(self, attempts: int, suite_reruns: int) -> None:
        """Before a test; see :class:`pytest_fkit.protocol.messages.Run`."""
        self._attempts = attempts
        # Without workers this process has a copy of the count.
        while suite_reruns and self._db.get_suite_reruns() < suite_reruns:
            self._db.increment_suite_reruns()

    def get_test_failures(self, crashitem: str) -> int:
        """How often the test died: with its process, and before that with a worker."""
        return self._attempts + int(self._db.get_test_failures(crashitem))


def install(config: pytest.Config) -> Counts | None:
    """Put it into its place; None where the plugin is not active."""
    db = getattr(config, "failures_db", None)
    if db is None:
        return None
    counts = Counts(db)
    config.failures_db = counts  # type: ignore[attr-defined]
    return counts
