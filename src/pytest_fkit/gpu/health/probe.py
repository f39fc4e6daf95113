"""Probes of the GPUs that an environment shows, each in a process of its own."""

from __future__ import annotations

import json
from typing import Any, Mapping

from ...named_tuple import NamedTuple
from ...own import os, own_builtins
from ...protocol.endings import FAULTS, Exited, Signaled, TimedOut
from ..answers import FailedError, MissingError
from ..interpreters import answer_of, light_interpreter
from ..machine import Machine
from ..throwaway import Result, Throwaway, trouble_of
from ..vendors.detection import VENDORS

own_builtins(globals())

PROBE_LIMIT = 60.0
"""Seconds. Opening a GPU takes 0.1 s to 1 s, one after the other for all processes of the machine,
up to 6.6 s where the driver keeps no GPU awake, see detection.py."""

_STATES = ("healthy", "sick", "unknown")


class Health(NamedTuple):
    """The result of a probe.

    :param state: "healthy"; "sick" if a GPU can't be used; "unknown" if that could not be found
        out: no driver library, no memory left, exclusive use by another process, no permission.
    :param reason: why it is not healthy, one line.
    """

    state: str
    reason: str = ""


def start(vendor: str, environ: Mapping[str, str], limit: float, expected: int) -> Probe:
    """Start to try out the GPUs that an environment shows; returns at once.

    :param vendor: as in :mod:`.devices`.
    :param limit: seconds from now on.
    :param expected: how many GPUs there should be, at least.
    """
    found = VENDORS[vendor]
    if not found.probe:
        return Probe(None, Health("unknown", "there is no probe for these GPUs"))
    arguments = [Machine.here().root, str(expected), str(os.getpid()), *found.probe_arguments()]
    try:
        return Probe(Throwaway(light_interpreter(found.probe, *arguments), environ, limit))
    except FailedError as error:
        return Probe(None, Health("unknown", str(error)))


class Probe:
    """A probe under way; or one that could not be started, with its result."""

    def __init__(self, process: Throwaway | None, health: Health | None = None) -> None:
        self._process = process
        self._health = health
        self.ecc: dict[str, int] = {}
        """After :meth:`result`, by PCI address: uncorrected ECC errors since the driver started."""

    def result(self) -> Health:
        """Wait for the result, within the limit, and make sure that the process is gone.

        One that survives SIGKILL is abandoned.
        """
        if self._health is None:
            assert self._process is not None
            # The result if a Ctrl-C ends the wait, and with it the process.
            self._health = Health("unknown", "the wait for its answer was interrupted")
            self._health, self.ecc = _judge(self._process.wait())
        return self._health

    def stop(self) -> None:
        """End the probe, so that :meth:`result` returns at once; called in any thread."""
        if self._process is not None:
            self._process.stop()


def _judge(result: Result) -> tuple[Health, dict[str, int]]:
    if result.ending != Exited(0):
        return Health("sick" if _is_fault(result) else "unknown", trouble_of(result)), {}
    try:
        return _read(answer_of(result.out))
    except (MissingError, FailedError) as error:
        return Health("unknown", str(error)), {}


def _is_fault(result: Result) -> bool:
    ending = result.ending
    if isinstance(ending, Signaled):
        return ending.signal in FAULTS
    return isinstance(ending, TimedOut)


def _read(answer: Any) -> tuple[Health, dict[str, int]]:
    """The health and the ECC counts from what a vendor's probe returns."""
    if not isinstance(answer, dict) or answer.get("state") not in _STATES:
        raise FailedError(f"the answer can't be understood: {json.dumps(answer)[:80]}")
    return Health(answer["state"], str(answer["reason"])), dict(answer["ecc"])
