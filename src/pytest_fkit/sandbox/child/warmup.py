"""Warm-up: a child forked ahead opens its GPUs while another test runs, if the user wants that."""

from __future__ import annotations

import re
import sys
from typing import Any, Callable

import pytest

from ... import system
from ...config.settings import SETTINGS
from ...gpu.slices.ownership import owned_by
from ...own import ctypes, os, own_builtins, warnings
from ...protocol.channels import Pipes
from ...protocol.messages import Message, Warm
from ...protocol.plain_values import carriable
from ...system.stack_texts import stack_text
from ...system.unforkable import CUDA_DRIVER, loaded
from ..process.relay import Relay

own_builtins(globals())

SUPPORTED = not system.PORTABLE and hasattr(os, "pidfd_open")
"""Whether a host can wait for a message and for the end of a child at once; Python 3.9."""

WARMUP_LIMIT = 30.0
"""Seconds for a GPU runtime to open; a context takes 0.3 to 1 s, the first on a machine longer.

Less than the keeper's limit for a host to begin a test.
"""

_POLL_INTERVAL = 0.05
"""Seconds between two readings of the GPU's free memory."""

_MIN_FREE_SHARE = 0.25
"""Share of the GPU's memory that must stay free; else the running test may need the child's."""

_MAX_TRACEBACK = 10_000
"""Characters of a traceback to send, few enough for a pipe's buffer."""

GAVE_BACK = 85
"""Exit status of a child that exited before its test, to free its GPU memory."""


class Warmup:
    """Opens GPUs in the children of a host, and judges in the host whether that worked.

    :param relay: the host's, for the warning if it did not.
    """

    def __init__(self, config: pytest.Config, relay: Relay) -> None:
        settings = config.stash.get(SETTINGS, None)
        self.is_on = (
            settings is not None and settings.warmup and SUPPORTED and owned_by(config) is not None
        )
        self._config = config
        self._relay = relay

    def run(self, pipes: Pipes) -> None:
        """In the child: open the GPUs, send Warm, and hold them until the order comes."""
        hook = self._config.hook.pytest_fkit_warmup
        try:
            if hook.get_hookimpls():
                hook(config=self._config)
            else:
                open_imported()
        except Exception as error:  # noqa: BLE001 (of a user's hook or a GPU: the host warns)
            pipes.send(Warm(carriable(stack_text(error)[-_MAX_TRACEBACK:])))
            os._exit(GAVE_BACK)
        pipes.send(Warm())
        free = _free_share()
        while free is not None and not pipes.has_message(_POLL_INTERVAL):
            if free() < _MIN_FREE_SHARE:
                os._exit(GAVE_BACK)

    def succeeded(self, message: Message | None) -> bool:
        """In the host: whether the child has opened its GPUs; if not, warn and turn warm-up off.

        :param message: the child's, None if it did not send any in time.
        """
        if isinstance(message, Warm) and not message.trouble:
            return True
        trouble = (
            message.trouble if isinstance(message, Warm) else "the process said nothing, or died"
        )
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
    """Return a function that reads the free share of the current GPU's memory, 0 to 1.

    None if no context is open in this thread, or the driver is neither CUDA's nor HIP's.
    """
    for pattern, name in _CALLS:
        for path in loaded(pattern):
            memory_info = getattr(ctypes.CDLL(path), name, None)
            if memory_info is not None and _read_free_share(memory_info) is not None:
                return lambda memory_info=memory_info: _read_free_share(memory_info) or 0.0  # type: ignore[misc]
    return None


def _read_free_share(memory_info: Any) -> float | None:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if memory_info(ctypes.byref(free), ctypes.byref(total)) or not total.value:
        return None
    return free.value / total.value


def open_imported() -> None:
    """Have PyTorch and CuPy, if imported, open a context on their current GPU.

    Not JAX: creating its client takes three quarters of the memory of each GPU.

    :raises Exception: whatever they raise.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.zeros(1, device="cuda")
        torch.cuda.synchronize()
    cupy: Any = sys.modules.get("cupy")
    if cupy is not None:
        cupy.zeros(1)
        cupy.cuda.runtime.deviceSynchronize()
