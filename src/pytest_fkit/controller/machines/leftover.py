"""What may be left on another machine of a worker whose connection is lost."""

from __future__ import annotations

from ...named_tuple import NamedTuple
from ...own import own_builtins

own_builtins(globals())


class Leftover(NamedTuple):
    """A worker's process.

    :param pid: on its machine; `began`: when it began, as that machine counts.
    :param step: of Slurm, "" for none.
    """

    pid: int
    began: str
    step: str = ""
