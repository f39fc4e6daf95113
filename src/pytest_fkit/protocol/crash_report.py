"""What the report on a crash says, as values: the controller shows it, with source lines."""

from __future__ import annotations

from typing import Any

from ..named_tuple import NamedTuple
from ..own import own_builtins
from .stacks import Origins

own_builtins(globals())


class CrashReport(NamedTuple):
    """Its parts, in their order.

    :param what: what happened, in a few words, as "SIGSEGV"; see :func:`.deaths.what`.
    :param before: the lines that stand before the stacks.
    :param stacks: by faulthandler, see :func:`.stacks.reorder_stacks`, or "".
    :param after: the lines that stand below them.
    :param origins: tell whose code a frame runs.
    """

    what: str
    before: tuple[str, ...]
    stacks: str
    after: tuple[str, ...]
    origins: Origins

    @property
    def text(self) -> str:
        """The whole, without source lines."""
        stacks = ("Python stacks at that moment:", self.stacks) if self.stacks else ()
        return "\n".join((*self.before, *stacks, *self.after))

    def to_wire(self) -> tuple[Any, ...]:
        """As built-in values."""
        return (*self[:-1], tuple(self.origins))

    @classmethod
    def from_wire(cls, data: Any) -> CrashReport:
        """Undo :meth:`to_wire`.

        :raises TypeError, ValueError: if it is something else.
        """
        what, before, stacks, after, (rootdir, library, tools) = data
        origins = Origins(str(rootdir), str(library), tuple(map(str, tools)))
        return cls(str(what), _texts(before), str(stacks), _texts(after), origins)


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(str, values))
