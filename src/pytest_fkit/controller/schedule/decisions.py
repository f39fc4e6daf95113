"""What the schedule decides: messages to workers, and tests that nobody can run."""

from __future__ import annotations

from typing import NamedTuple, Union

from ...own import own_builtins

own_builtins(globals())


class Send(NamedTuple):
    """Have the worker run these, after what it has."""

    worker: str
    tests: tuple[int, ...]


class Recall(NamedTuple):
    """Ask the worker for those of these back that it has not begun.

    :param whole: whether it is to give back all or none.
    """

    worker: str
    tests: tuple[int, ...]
    whole: bool = False


class Settle(NamedTuple):
    """There is nothing for the worker now: it is to tear down."""

    worker: str


class Lend(NamedTuple):
    """Have the worker run the test with these GPUs, which nobody else uses now."""

    worker: str
    test: int
    gpus: tuple[str, ...]


class Unrunnable(NamedTuple):
    """Nobody is left who could run the test."""

    test: int


class Retry(NamedTuple):
    """The test at `position` of a worker's collection, which took so long there, has no verdict
    yet: another worker tries it again.
    """

    position: int
    seconds: float


Decision = Union[Send, Recall, Settle, Lend, Unrunnable]
