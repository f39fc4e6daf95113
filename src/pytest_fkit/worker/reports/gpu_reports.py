"""What the reports of a worker say about its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Generator

import pytest

from ...gpu.slices.ownership import OWNED, XIDS, XIDS_TOLD, Owned, owned_by
from ...own import os, own_builtins
from ...sandbox.process.test_process import GPU_MEMORY

if TYPE_CHECKING:
    from .xids_of_tests import TestXids

own_builtins(globals())


class GpuMasks:
    """Plugin of a worker that owns GPUs, and of pytest itself at ``-n0``.

    :param show: has a line written to the terminal.
    """

    def __init__(self, owned: Owned, name: str, show: Callable[[str], None]) -> None:
        self._owned = owned
        self._name = name
        self._show = show

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Tell the user which GPUs tests will see, if somebody else changed the masks."""
        changed = self._owned.overwritten(os.environ)
        if changed:
            self._show(
                f"fkit: a plugin, a conftest.py or a test module changed the GPUs of "
                f"{self._name}: its tests see {'; '.join(changed)}"
            )
        return (yield)


def xids_of_tests(config: pytest.Config, owned: Owned) -> TestXids | None:
    """The Xids of a worker's tests; None where they are not read on its machine."""
    here = config.stash.get(XIDS, None)
    path = here.path if here is not None else getattr(config, "workerinput", {}).get(XIDS_TOLD)
    if not path:
        return None
    from .xids_of_tests import TestXids

    return TestXids(path, owned.ids, owned.shared)


def own_gpus(config: pytest.Config, name: str, show: Callable[[str], None]) -> None:
    """Register what a worker needs that owns GPUs, if it does.

    :param show: has a line written to the terminal.
    """
    owned = owned_by(config)
    if owned is not None:
        from ...gpu.health.memory import watch_memory

        config.stash[OWNED] = owned
        config.pluginmanager.register(GpuMasks(owned, name, show), "fkit-gpus")
        memory = watch_memory(config, owned)
        if memory is not None:
            config.stash[GPU_MEMORY] = memory
