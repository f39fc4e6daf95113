"""Which process runs a test."""

from __future__ import annotations

from ..named_tuple import NamedTuple
from ..own import own_builtins
from .repetitions import HASH_SEED

own_builtins(globals())

CONNECTED = "connected"
"""The scope of tests that plugins connect, which may have others in between."""

APART = "apart"
"""The scope of a test beside whose process the worker has no other."""


class ProcessKey(NamedTuple):
    """Names a process: tests with equal keys run in the same one, and share its wide fixtures.

    :param method: the start method, "fork" or "spawn".
    :param scope: how long it lives: an isolation scope, "fkit_skip", CONNECTED or APART.
    :param name: the node id of what it lives for, "" where the scope says it.
    :param last: position of the last of CONNECTED tests.
    :param environ: variables in which it differs from the worker, in pairs of name and text.
    :param wrapper: the words of the command by which it is run, if there is one.
    """

    method: str = "fork"
    scope: str = "function"
    name: str = ""
    last: int = -1
    environ: tuple[tuple[str, str], ...] = ()
    wrapper: tuple[str, ...] = ()

    @property
    def is_spawned(self) -> bool:
        """Whether it is a fresh interpreter."""
        return self.method == "spawn"

    @property
    def is_shared(self) -> bool:
        """Whether tests run in it, and not each in a child of it."""
        return self.scope != "function" or self.method == "spawn"

    @property
    def is_of_one(self) -> bool:
        """Whether it is made for one run of one test."""
        return self.scope == APART or HASH_SEED in dict(self.environ)

    @property
    def collects_all(self) -> bool:
        """Whether it is a fresh interpreter that collects everything, not one file."""
        return self.scope == "session" and self.method == "spawn"

    def ends_before(self, other: ProcessKey, position: int) -> bool:
        """Whether it ends after the test at `position`, if the next one has this key."""
        if self.scope == CONNECTED:
            return position >= self.last
        scoped = self.scope in ("class", "module") or self.is_spawned
        changes = self._replace(environ=other.environ) != other
        return scoped and not self.collects_all and changes


OWN = ProcessKey()
"""The key of tests that each have a process of their own."""

SESSION = ProcessKey(scope="session")
"""The key of the process that all tests share."""
