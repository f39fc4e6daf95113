"""Machines with GPUs for tests, on machines without: files, programs and libraries in a directory.

:func:`build` makes one. With FKIT_FLEET_ROOT naming it, detection looks there instead of at the
real machine, in this process or in the inner run that gets :func:`environment`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterable, Mapping

from pytest_fkit.gpu.machine import ROOT

from . import programs, trees
from .description import Behaviour, Description, Gpu, Instance, from_json
from .fleet_state import calls_of, plan, set_state
from .vendors import (
    LIBRARIES,
    PROGRAMS,
    amd,
    amd_integrated,
    ascend,
    connected,
    intel,
    intel_integrated,
    nvidia,
)

__all__ = [
    "MASKS",
    "Behaviour",
    "Description",
    "Gpu",
    "Instance",
    "amd",
    "amd_integrated",
    "ascend",
    "build",
    "calls_of",
    "compiler",
    "connected",
    "describe",
    "environment",
    "from_json",
    "intel",
    "intel_integrated",
    "nvidia",
    "plan",
    "set_state",
]

MASKS = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "ASCEND_RT_VISIBLE_DEVICES",
)
"""Environment variables that a test on such a machine must not inherit from a real one."""

_HERE = Path(__file__).resolve().parent
_SOURCES = {
    "libnvidia-ml.so.1": "nvml.c",
    "libcuda.so.1": "cuda.c",
    "libamdhip64.so.7": "hip.c",
}


def describe(
    *groups: Iterable[Gpu],
    without: Iterable[str] = (),
    behaviours: Mapping[str, Behaviour] | None = None,
) -> Description:
    """A machine with these GPUs and what their vendors install.

    :param without: programs and libraries that are not installed.
    :param behaviours: what is wrong with a program or a library.
    """
    gpus = tuple(gpu for group in groups for gpu in group)
    vendors = {gpu.vendor: None for gpu in gpus}

    def installed(of: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(n for vendor in vendors for n in of.get(vendor, ()) if n not in set(without))

    return Description(
        gpus,
        installed(PROGRAMS),
        installed(LIBRARIES),
        behaviours or {},
    )


def build(root: Path, description: Description, cache: Path) -> Path:
    """Make the machine in a directory, and return that.

    Libraries are left out where there is no C compiler.

    :param cache: directory of the compiled libraries, which are the same for all machines.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "fleet.json").write_text(description.to_json())
    trees.write(root, description)
    programs.install(root, description.programs)
    (root / "lib").mkdir()
    (root / "suites").mkdir()
    (root / "suites" / "fleet_torch.py").symlink_to(_HERE / "framework.py")
    (root / "suites" / "fleet_state.py").symlink_to(_HERE / "fleet_state.py")
    for library in description.libraries:
        if compiler():
            shutil.copy(_compiled(library, cache), root / "lib" / library)
    return root


def environment(root: Path) -> dict[str, str]:
    """What an inner run needs in its environment to be on the machine, besides having no mask."""
    path = os.environ.get("PATH", os.defpath)
    return {
        ROOT: str(root),
        "PATH": f"{root / 'bin'}{os.pathsep}{path}",
        "LD_LIBRARY_PATH": str(root / "lib"),
    }


def with_framework(machine: Mapping[str, str]) -> dict[str, str]:
    """The environment of an inner run whose suite imports ``fleet_torch``, see framework.py."""
    root = Path(machine[ROOT])
    return {**machine, "PYTHONPATH": f"{root / 'suites'}{os.pathsep}."}


def compiler() -> str:
    """Path of a C compiler, "" if there is none."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or ""


def _compiled(library: str, cache: Path) -> Path:
    built = cache / library
    if not built.exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE")
        source, new = str(_HERE / _SOURCES[library]), f"{built}.{os.getpid()}"
        subprocess.run([compiler(), *options, "-o", new, source], check=True, timeout=120)
        os.replace(new, built)  # at once: other processes may have the same directory
    return built
