"""A failure, and the GPU error that it is: value types."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

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
    """

    types: tuple[str, ...] = ()
    text: str = ""
    error_code: int | None = None
    death: bool = False
    stderr: str = ""
    skip: bool = False
    printed: str = ""
    causes: tuple[Failure, ...] = ()


class GpuError(NamedTuple):
    """A failure that may be the GPU's.

    :param category: name of one of the categories of error_table.py.
    :param text: the line of the message that says so.
    :param counts: whether it counts against the slice.
    :param probe: whether the slice is to be probed before its next test.
    :param poisons: whether the process in which it was raised can't use its GPU any more.
    :param retry: whether the test gets an attempt on other GPUs.
    :param alone: whether that attempt must not share its GPU.
    :param event: equal for failures that come from one error in a cached fixture, else "".
    :param doubtful: whether it may be the test's own fault as well as the device's: an Xid decides.
    :param gpus: ids of those of the test's GPUs that it names.
    """

    category: str
    text: str
    counts: bool = False
    probe: bool = False
    poisons: bool = False
    retry: bool = True
    alone: bool = False
    event: str = ""
    doubtful: bool = False
    gpus: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """In built-in types."""
        return {**self._asdict(), "gpus": list(self.gpus)}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> GpuError:
        """The opposite of :meth:`to_wire`."""
        return cls(**{**data, "gpus": tuple(data["gpus"])})
