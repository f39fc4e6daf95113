"""What a test needs of the machine."""

from __future__ import annotations

from ..named_tuple import NamedTuple
from ..own import own_builtins

own_builtins(globals())


class Needs(NamedTuple):
    """What one test needs.

    :param gpus: how many GPUs it is to see, 0 if it runs anywhere, None for what its worker has.
    :param serial: a name; no two tests that have it run at the same time. "" for none.
    :param gpu_memory: bytes that have to be free on each of the GPUs that it sees, 0 for none.
    """

    gpus: int | None = None
    serial: str = ""
    gpu_memory: int = 0
