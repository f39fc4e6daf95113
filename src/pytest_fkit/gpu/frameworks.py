"""Opens the GPU runtimes of imported frameworks ahead of the first test that needs them."""

from __future__ import annotations

import sys
from typing import Any

from ..own import own_builtins

own_builtins(globals())


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
