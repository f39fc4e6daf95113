"""Opens the GPU runtimes of frameworks that are imported, so that what runs next need not wait."""

from __future__ import annotations

import sys
from typing import Any

from ..own import own_builtins

own_builtins(globals())


def open_imported() -> None:
    """Have PyTorch and CuPy open a context on their current GPU, each if it was imported.

    Not JAX: its client takes three quarters of the memory of each GPU when it is made.

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
