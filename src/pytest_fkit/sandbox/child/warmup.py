"""A child that waits opens its GPUs while another test runs, if the user wants that."""

from __future__ import annotations

import re
from typing import Any, Callable

import pytest

from ...config.settings import KEY
from ...gpu.frameworks import open_imported
from ...gpu.slices.ownership import owned_by
from ...own import ctypes, os, own_builtins, warnings
from ...protocol.channels import Pipes
from ...protocol.messages import Message, Warm
from ...protocol.plain_values import carriable
from ...system.stack_texts import stack_text
from ...system.unforkable import CUDA_DRIVER, loaded
from ..process.relay import Relay
from . import early_end

own_builtins(globals())

LIMIT = 30.0
"""Seconds for a GPU runtime to open; a context takes 0.3 to 1, the first on a machine more.

Less than the keeper grants a host until it has begun a test.
"""

_LOOK = 0.05
"""Seconds between looks at the memory of the GPU."""

_SHORT = 0.25
"""Share of the GPU's memory: with less of it free, the test that runs may want the child's."""

_MOST = 10_000
"""Characters of a traceback; a pipe has room for them."""

GAVE_BACK = 85
"""Exit status of a child that did not run its test, to have its GPU memory be free."""


class Warmup:
    """Of a host.

    :param relay: that of the host.
    """

    def __init__(self, config: pytest.Config, relay: Relay) -> None:
        settings = config.stash.get(KEY, None)
        self.is_on = (
            settings is not None
            and settings.warmup
            and early_end.SUPPORTED
            and owned_by(config) is not None
        )
        self._config = config
        self._relay = relay

    def run(self, pipes: Pipes) -> None:
        """In the child: open the GPUs, say so, and keep them until there is an order."""
        hook = self._config.hook.pytest_fkit_warmup
        try:
            if hook.get_hookimpls():
                hook(config=self._config)
            else:
                open_imported()
        except Exception as error:  # noqa: BLE001 (of a user's hook, or of a GPU: the host tells)
            pipes.send(Warm(carriable(stack_text(error)[-_MOST:])))
            os._exit(GAVE_BACK)
        pipes.send(Warm())
        free = _free_share()
        while free is not None and not pipes.has_message(_LOOK):
            if free() < _SHORT:
                os._exit(GAVE_BACK)

    def succeeded(self, said: Message | None) -> bool:
        """In the host: whether the child is warm. If it never will be, no other is tried.

        :param said: what it said, None if it did not say anything in time.
        """
        if isinstance(said, Warm) and not said.trouble:
            return True
        trouble = said.trouble if isinstance(said, Warm) else "the process said nothing, or died"
        self.is_on = False
        warning = pytest.PytestWarning(f"pytest-fkit: pytest_fkit_warmup failed: {trouble}")
        self._relay.pytest_warning_recorded(
            warnings.WarningMessage(warning, type(warning), __file__, 0), "runtest", "", None
        )
        return False


_CALLS = (  # CUDA driver API reference; HIP runtime API reference
    (CUDA_DRIVER, "cuMemGetInfo_v2"),
    (re.compile(r"/libamdhip64\.so[^/]*$"), "hipMemGetInfo"),
)


def _free_share() -> Callable[[], float] | None:
    """What says the share of the current GPU's memory that is free, between 0 and 1.

    None where no context is open in this thread, or the driver is another.
    """
    for pattern, name in _CALLS:
        for path in loaded(pattern):
            ask = getattr(ctypes.CDLL(path), name, None)
            if ask is not None and _share(ask) is not None:
                return lambda ask=ask: _share(ask) or 0.0  # type: ignore[misc]
    return None


def _share(ask: Any) -> float | None:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if ask(ctypes.byref(free), ctypes.byref(total)) or not total.value:
        return None
    return free.value / total.value
