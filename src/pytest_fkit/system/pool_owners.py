"""Libraries that end, or refuse to work in, a copy of a process in which they have computed."""

from __future__ import annotations

import sys
from typing import Any

from ..own import own_builtins

own_builtins(globals())


def unforkable_pool() -> str:
    """The one that has computed in this process, in words, or "".

    That none of its threads is left does not help: it compares the pid.
    """
    # numba/np/ufunc/omppool.cpp: a forked child that goes on after GNU OpenMP was used is ended by
    # SIGTERM. The other threading layers, and other vendors' OpenMP, come through a fork.
    layers: Any = sys.modules.get("numba.np.ufunc.parallel")
    pool: Any = sys.modules.get("numba.np.ufunc.omppool")
    if layers is None or pool is None:
        return ""
    layer = getattr(layers, "_threading_layer", None)
    if layer == "omp" and getattr(pool, "openmp_vendor", "GNU") == "GNU":
        return "numba's threads of GNU OpenMP, which end a forked process"
    return ""
