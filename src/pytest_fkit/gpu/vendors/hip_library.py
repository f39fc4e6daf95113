"""Where AMD's runtime library is: ROCm's, or the one inside a Python package."""

from __future__ import annotations

import importlib.machinery
import re
from typing import Iterator, Mapping, Sequence

from ...own import os, own_builtins
from ..asking.machine import Machine

own_builtins(globals())

LIBRARY = "libamdhip64.so"
"""Its name, to which sonames append a number."""

_MAJORS = range(9, 3, -1)
"""Of ROCm, which are those of the library's soname; 7 is the newest that is known."""

# PyTorch's wheels for ROCm have the library inside, or depend on the ROCm SDK's.
_WHEELS = (("torch", "lib"), ("_rocm_sdk_core", "lib"))


def wheel_directories(path: Sequence[str]) -> list[str]:
    """Where Python packages have the library, none of them imported.

    :param path: a ``sys.path``.
    """
    return [
        f"{location}/{directory}"
        for package, directory in _WHEELS
        for spec in [importlib.machinery.PathFinder.find_spec(package, path)]
        if spec is not None
        for location in spec.submodule_search_locations or ()
    ]


def candidates(
    machine: Machine, environ: Mapping[str, str], wheels: Sequence[str]
) -> Iterator[str]:
    """What to load, best first: the one that the user names, the loader's, those of packages.

    :param wheels: directories.
    """
    yield from _libraries(environ.get("ROCM_PATH", ""), "lib")
    for major in _MAJORS:
        if not machine.lacks_library(f"{LIBRARY}.{major}"):
            yield f"{LIBRARY}.{major}"
    yield from _libraries(machine.path("opt/rocm"), "lib")
    for directory in wheels:
        yield from _libraries(directory, "")


def _libraries(base: str, below: str) -> list[str]:
    """The libraries in a directory: the newest soname, then the name without a number."""
    if not base:
        return []
    directory = os.path.join(base, below)
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    matches = [re.fullmatch(r"libamdhip64\.so(?:\.(\d+))?", name) for name in names]
    found = [(int(match[1] or 0), match[0]) for match in matches if match]
    return [os.path.join(directory, name) for _, name in sorted(found, reverse=True)]
