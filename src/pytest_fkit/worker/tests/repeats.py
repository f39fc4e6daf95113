"""Repetitions of tests in a worker: which process each has, and which seed."""

from __future__ import annotations

from typing import Callable

import pytest

from ...config.marks import Limits, limits
from ...config.settings import Settings
from ...own import own_builtins
from ...protocol.process_keys import APART, ProcessKey
from ...protocol.repetitions import (
    HASH_SEED,
    is_fresh,
    item_at,
    repetition_of,
    seed_of,
    test_of,
)
from .connected import Connections

own_builtins(globals())


class Repeats:
    """Knows what becomes of the limits of a test when it is repeated.

    :param connections: of the tests of the session, when all are collected.
    """

    def __init__(
        self, session: pytest.Session, settings: Settings, connections: Callable[[], Connections]
    ) -> None:
        self._session = session
        self._settings = settings
        self._connections = connections
        self.on = settings.repeat is not None
        """Whether tests are repeated."""

    def seed(self, position: int) -> int:
        """The seed of a repetition, -1 where tests are not repeated."""
        first = self._settings.repeat_seed
        return -1 if not self.on or first is None else seed_of(first, repetition_of(position))

    def limits(self, position: int, wanted: Limits | str) -> Limits | str:
        """The limits of a repetition, given its test's: not forked, it has its own interpreter."""
        if not self.on or not isinstance(wanted, Limits) or self.why_once(position):
            return wanted
        if not (wanted.key.is_spawned or is_fresh(repetition_of(position))):
            return wanted
        return wanted._replace(key=self.fresh_key(position, wanted.key), isolation="function")

    def fresh_key(self, position: int, key: ProcessKey) -> ProcessKey:
        """The key of a fresh interpreter for this repetition alone, with a hash seed of its own."""
        if not self.on:
            return key
        item = item_at(self._session.items, position)
        environ = {**dict(key.environ), HASH_SEED: str(self.seed(position))}
        return key._replace(
            method="spawn",
            scope=APART if key.scope == APART else "function",
            name=f"{item.nodeid} ({repetition_of(position)})",
            environ=tuple(sorted(environ.items())),
        )

    def why_once(self, position: int) -> str:
        """Why a test is not repeated: it is to share a process with others; or ""."""
        test = test_of(position)
        connection = self._connections().of.get(test)
        if connection is not None:
            return connection.cause
        try:
            key = limits(item_at(self._session.items, test), self._settings).key
        except pytest.UsageError:
            return ""
        return f"isolation {key.scope}" if key.is_shared and key.scope != APART else ""

    @property
    def once(self) -> dict[int, str]:
        """By position, why a test is not repeated; empty where none is."""
        if not self.on:
            return {}
        why = {each: self.why_once(each) for each in range(len(self._session.items))}
        return {each: reason for each, reason in why.items() if reason}
