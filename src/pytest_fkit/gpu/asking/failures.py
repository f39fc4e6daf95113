"""Why a way of finding GPUs gave no answer."""

from __future__ import annotations

from ...own import own_builtins

own_builtins(globals())


class MissingError(Exception):
    """A way is not to be had on this machine, which is nobody's fault. Its text says why."""


class FailedError(Exception):
    """A way is there and did not work: it hung, crashed, or gave rubbish. Its text says how.

    :param printed: what a program printed that left with a status other than 0.
    :param lost: PCI addresses of GPUs that it can't reach: no other way is to bring them back.
    """

    def __init__(self, text: str, printed: str = "", lost: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.printed = printed
        self.lost = lost
