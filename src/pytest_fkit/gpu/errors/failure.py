"""A failure, as plugins are asked about it."""

from __future__ import annotations

from ...named_tuple import NamedTuple
from ...own import own_builtins

own_builtins(globals())


class Failure(NamedTuple):
    """A phase of a test that did not pass.

    :param types: names of the exception's class and its bases, in the order of the MRO, as in
        "torch.OutOfMemoryError"; empty where there was no exception.
    :param text: the exception's message, or the reason of a skip.
    :param error_code: of a torch.AcceleratorError (PyTorch 2.8 on): the runtime's number.
    :param death: whether the test process died.
    :param stderr: what reached descriptor 2 of a process that died.
    :param skip: whether the test was skipped.
    :param printed: the output of the test, or of a subprocess that failed, where the exception only
        points there.
    :param causes: the exceptions from which this one was raised, or while it was handled.
    :param status: of the HTTP response that the exception reports.
    """

    types: tuple[str, ...] = ()
    text: str = ""
    error_code: int | None = None
    death: bool = False
    stderr: str = ""
    skip: bool = False
    printed: str = ""
    causes: tuple[Failure, ...] = ()
    status: int | None = None
