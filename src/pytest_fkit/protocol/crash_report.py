"""What is known of a crash, and what its report says, as values."""

from __future__ import annotations

from typing import Any

from ..named_tuple import NamedTuple
from ..own import own_builtins
from .stacks import Origins

own_builtins(globals())

PROBABLY = " probably "
"""Stands in a headline before a native function that is known of earlier crashes only."""


class NativeStacks(NamedTuple):
    """What a debugger printed of a process.

    :param thread: the thread that crashed, 0 if the process hangs.
    :param text: its standard output, cut at some length.
    :param trouble: what went wrong, or "".
    :param said: its standard error.
    :param seconds: how long it took, while the process waited.
    :param alike: whether it was not asked again: then this is what it printed of an earlier crash.
    """

    tool: str
    thread: int
    text: bytes
    trouble: str
    said: bytes
    seconds: float
    alike: bool = False


class Core(NamedTuple):
    """What became of the core of a process that died.

    :param path: where it is, "" if there is none.
    :param program: that the process ran, "" if that is not known.
    :param why_not: why there is none, or "".
    :param seconds: how long that took, while the process waited.
    """

    path: str = ""
    program: str = ""
    why_not: str = ""
    seconds: float = 0.0


class CrashReport(NamedTuple):
    """The parts of the report, in their order; the controller shows it, with source lines.

    :param what: what happened, in a few words, as "SIGSEGV"; see :func:`.deaths.what`.
    :param before: the lines that stand before the stacks.
    :param stacks: by faulthandler, see :func:`.stacks.reorder_stacks`, or "".
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
        lines = tuple(map(str, before)), str(stacks), tuple(map(str, after))
        return cls(str(what), *lines, origins)
