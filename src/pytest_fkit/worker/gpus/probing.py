"""The probes of a worker's GPUs: one while it collects, others whenever they are in doubt."""

from __future__ import annotations

from typing import Callable, Generator, Mapping

import pytest

from ...config.first_environment import environment
from ...config.settings import KEY as SETTINGS
from ...gpu.health.probe import LIMIT, Health, Probe, start
from ...gpu.slices.ownership import KEY as OWNED
from ...gpu.slices.ownership import Owned
from ...own import own_builtins

own_builtins(globals())


class Probing:
    """Plugin of a worker that owns GPUs; the first probe is started with it.

    Called in the main thread: a probe ends with the thread that started it.

    :param name: of the worker, as in "gw0".
    :param show: has a line written to the terminal; None where somebody else says what is wrong.
    """

    def __init__(self, owned: Owned, name: str, show: Callable[[str], None] | None) -> None:
        self._owned = owned
        self._name = name
        self._show = show
        self._ecc: dict[str, int] = {}
        self._answer: Health | None = None
        self._running = self._start()

    def first(self) -> Health:
        """What the probe says that was started when the worker was; waits for it."""
        if self._answer is None:
            self._answer = self._wait()
        return self._answer

    def again(self) -> Health:
        """What a probe says that is started now; waits for it, :data:`.gpu.probe.LIMIT` at most."""
        self.first()
        self._running = self._start()
        return self._wait()

    def stop(self) -> None:
        """Have who waits for a probe wait no longer; the answer is "unknown". In any thread."""
        self._running.stop()

    def _start(self) -> Probe:
        # The GPUs of the slice, whatever a conftest.py makes its tests see.
        environ = {**environment(), **self._owned.masks}
        return start(self._owned.vendor, environ, LIMIT, self._owned.shown)

    def _wait(self) -> Health:
        health = self._running.result()
        grown = new_errors(self._ecc, self._running.ecc)
        self._ecc = {**self._ecc, **self._running.ecc}
        return Health("sick", grown) if grown and health.state != "sick" else health

    # Before a keeper is forked, whose worker is not to have other children.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Before the first test: say what is wrong."""
        errors = session.testsfailed and not session.config.option.continue_on_collection_errors
        if session.items and not errors:
            self._tell(self.first())
        return (yield)

    def _tell(self, health: Health) -> None:
        if health.state == "sick" and self._show is not None:
            ids = ",".join(self._owned.ids)
            self._show(f"fkit: {self._name} (GPU {ids}): probe: sick: {health.reason}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        """End a probe that nobody waited for, as when collection failed."""
        self.stop()
        self.first()


def new_errors(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """What there is to say of uncorrected ECC errors that came between two probes, or "".

    :param before: by PCI address, how many there were.
    """
    grown = {pci: now.get(pci, 0) - number for pci, number in before.items()}
    return "; ".join(
        f"{pci}: {number} new uncorrected ECC error{'' if number == 1 else 's'}"
        for pci, number in grown.items()
        if number > 0
    )


def probe_gpus(
    config: pytest.Config, name: str, show: Callable[[str], None] | None
) -> Probing | None:
    """Start the first probe where there are GPUs, unless probes are off.

    Not at ``-n0``, where nobody else could run the tests, nor in a spawned interpreter, whose
    worker has done so.

    :param name: of the worker, as in "gw0".
    :param show: see :class:`Probing`.
    """
    owned = config.stash.get(OWNED, None)
    if owned is None or not config.stash[SETTINGS].probe:
        return None
    probing = Probing(owned, name, show)
    config.pluginmanager.register(probing, "fkit-probing")
    return probing
