"""Imports of ours: a suite's own modules are not in their way, nor they in that of the suite's."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Iterator, Sequence

_HIDDEN = ("mmap", "pickle", "resource")
"""What we import and pytest does not, and what may be imported again: they keep no state.

Not ctypes, of which two copies do not know each other's types; ``import ctypes`` gets ours.
"""


@contextlib.contextmanager
def own_imports() -> Iterator[None]:
    """Import modules of ours within this.

    A suite may have a module of the same name as one of the standard library's that we use, say
    resource.py beside its conftest.py. Ours comes from the standard library even so, and what a
    test imports is what it would get without us.
    """
    path, modules = sys.path[:], set(sys.modules)
    sys.path[:] = standard_library_first(path)
    try:
        yield
    finally:
        sys.path[:] = path
        hide(modules)


def hide(modules: set[str]) -> None:
    """Remove our imports but for those named in `modules`; existing references stay valid."""
    for name in _HIDDEN:
        if name not in modules:
            sys.modules.pop(name, None)


def standard_library_first(path: Sequence[str]) -> list[str]:
    """The same entries, those of the standard library before all others."""
    home = os.path.dirname(os.__file__)  # noqa: PTH120 (no pathlib: sys.path has strings)
    extensions = os.path.join(home, "lib-dynload")  # noqa: PTH118
    return sorted(map(str, path), key=lambda entry: entry not in (home, extensions))
