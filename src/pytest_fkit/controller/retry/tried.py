"""Where a test was tried, and how often: what reports say of it."""

from __future__ import annotations

from typing import Any, Sequence

from ...own import own_builtins

own_builtins(globals())


def attempts_of(report: Any) -> int:
    """How many attempts there were, with the one that the report is on."""
    return max(1 + int(getattr(report, "rerun", 0)), int(getattr(report, "fkit_attempts", 1)))


def gpus_of(report: Any, own: Sequence[str] = ()) -> Sequence[str]:
    """The ids of the GPUs that the test could use.

    :param own: those of this process, at ``-n0``.
    """
    if hasattr(report, "fkit_gpus"):
        gpus: Sequence[str] = report.fkit_gpus
        return gpus
    node = getattr(report, "node", None)
    if node is None:
        return own
    ids: Sequence[str] = node.workerinput.get("fkit_gpus", {}).get("ids", ())
    return ids


def place_of(report: Any, own: Sequence[str] = ()) -> str:
    """Worker, GPUs and attempt of a report on a death, as in "gw2 (GPU 4,5), attempt 2".

    :param own: see :func:`gpus_of`.
    """
    worker = getattr(report, "fkit_worker", "")
    gpus = ",".join(gpus_of(report, own))
    attempts = attempts_of(report)
    place = f"{worker} (GPU {gpus})" if gpus else worker
    return f"{place}, attempt {attempts}" if attempts > 1 else place
