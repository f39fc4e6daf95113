"""Attributes of reports: those that we add, how they are shown, and those that plugins add."""

from __future__ import annotations

from typing import Any, Sequence

from ...compat.guarded_hooks import MADE
from ...own import own_builtins
from ..schedule.machines import gpu_ids

own_builtins(globals())


class DeathText(str):
    """The text of a report, with the one-line message that pytest's short summary asks for."""

    __slots__ = ("message", "path")

    lineno = 1
    message: str
    path: str

    @property
    def reprcrash(self) -> DeathText:
        """Pytest takes the message from here, and reporters the place."""
        return self


def death_text(nodeid: str, text: str, message: str) -> DeathText:
    """`text` on this test or module, with this message."""
    made = DeathText(text)
    made.message = message
    made.path = nodeid.partition("::")[0]
    return made


def death_of(report: Any) -> str | None:
    """The headline of a report on a death, None for any other report."""
    if getattr(report, "outcome", None) != "failed":
        return None
    headline = getattr(report, "fkit_death", None)
    return str(headline) if headline is not None else None


def attempts_of(report: Any) -> int:
    """Number of the attempt that the report is on, from 1."""
    return max(1 + int(getattr(report, "rerun", 0)), int(getattr(report, "fkit_attempts", 1)))


def gpus_of(report: Any, own: Sequence[str] = ()) -> Sequence[str]:
    """The ids of the GPUs that the test could use.

    :param own: those of this process, at ``-n0``.
    """
    if hasattr(report, "fkit_gpus"):
        gpus: Sequence[str] = report.fkit_gpus
        return gpus
    node = getattr(report, "node", None)
    return own if node is None else gpu_ids(node)


def place_of(report: Any, own: Sequence[str] = ()) -> str:
    """Worker, GPUs and attempt of a report on a death, as in "gw2 (GPU 4,5), attempt 2".

    :param own: see :func:`gpus_of`.
    """
    worker = getattr(report, "fkit_worker", "")
    gpus = ",".join(gpus_of(report, own))
    attempts = attempts_of(report)
    place = f"{worker} (GPU {gpus})" if gpus else worker
    return f"{place}, attempt {attempts}" if attempts > 1 else place


def count(number: int, what: str) -> str:
    """As in "1 test" or "2 tests"."""
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def scarcity(number: int, wanted: int) -> str:
    """How many tests wanted how many GPUs, and the options that give them."""
    return (
        f"{count(number, 'test')} skipped for want of {wanted} GPUs "
        f"(--fkit-gpus-per-worker={wanted} or --fkit-widen)"
    )


_OF_XDIST = ("worker_id", "testrun_uid", "item_index")
"""Say which worker made a report."""

_EMPTY = (str, bytes, bool, int, float, list, tuple, dict, set, frozenset)


class CommonAttributes:
    """The attributes that plugins add to every report of a run, in workers.

    A report that the controller makes lacks them, and reporters may rely on them.
    """

    def __init__(self) -> None:
        self._common: dict[str, Any] | None = None
        self._early: list[Any] = []

    def learn(self, report: Any) -> None:
        """Take in a report that a worker made."""
        found = vars(report)
        if self._common is None:
            self._common = {
                name: type(value)
                for name, value in found.items()
                if name not in _OF_XDIST and not name.startswith("fkit_")
            }
            for each in self._early:  # what reporters kept, they may look at in the end
                self.complete(each)
            return
        if self._common.keys() <= found.keys():
            return
        self._common = {name: kind for name, kind in self._common.items() if name in found}

    def complete(self, report: Any) -> None:
        """Give a report that the controller made the attributes that it lacks, empty.

        As soon as they are known.
        """
        setattr(report, MADE, True)
        if self._common is None:
            self._early.append(report)
        for name, kind in (self._common or {}).items():
            if name not in vars(report):
                setattr(report, name, kind() if kind in _EMPTY else None)
