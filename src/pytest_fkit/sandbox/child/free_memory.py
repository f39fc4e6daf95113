"""How much memory the GPU has left that this process uses, as its driver says."""

from __future__ import annotations

import re
from typing import Any, Callable

from ...own import ctypes, own_builtins
from ...system.unforkable import CUDA_DRIVER, loaded

own_builtins(globals())

_CALLS = (  # CUDA driver API reference; HIP runtime API reference
    (CUDA_DRIVER, "cuMemGetInfo_v2"),
    (re.compile(r"/libamdhip64\.so[^/]*$"), "hipMemGetInfo"),
)


def free_share() -> Callable[[], float] | None:
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
