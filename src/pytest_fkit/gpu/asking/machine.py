"""Where on a machine detection looks: files, tools, packages, libraries."""

from __future__ import annotations

import importlib.machinery
import re
import sys
from dataclasses import dataclass

from ...config.first_environment import environment, variable
from ...own import os, own_builtins
from ...system.paths import read_text

own_builtins(globals())

ROOT = "FKIT_FLEET_ROOT"
"""Environment variable, for tests: a directory that stands for "/", as ``tests/fleet`` builds it.

Programs are then looked for in its ``bin``, shared libraries in ``lib``, vendors' Python packages
in ``python``, so that nothing of the real machine is found."""

# Masks: what is asked for are the GPUs of the machine, and some tools obey them.
_NOT_FOR_TOOLS = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR", "ASCEND_RT_VISIBLE_DEVICES",
    # These change what an interpreter of ours does.
    "PYTHONWARNINGS", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG",
)  # fmt: skip


# WSL's driver, where shells that Windows did not start don't look (microsoft/WSL issue 8794).
_OFF_THE_PATH = ("usr/lib/wsl/lib",)


@dataclass(frozen=True)
class Machine:
    """The machine this process runs on, or the fleet of tests that stands for one.

    :param root: directory of its files.
    """

    root: str = "/"

    @classmethod
    def here(cls) -> Machine:
        """What detection is to look at, as the environment says."""
        return cls(variable(ROOT) or "/")

    @property
    def _real(self) -> bool:
        return self.root == "/"

    def path(self, name: str) -> str:
        """Of a file, given as in "dev/kfd"."""
        return f"{self.root.rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file, given as in "dev/kfd"."""
        return os.path.exists(self.path(name))

    def names(self, directory: str, pattern: str) -> list[str]:
        """The names in a directory that match a regular expression, sorted; none if absent."""
        try:
            found = os.listdir(self.path(directory))
        except OSError:
            return []
        return sorted(name for name in found if re.fullmatch(pattern, name))

    def text(self, name: str) -> str:
        """What is in a file, "" if it can't be read."""
        try:
            return read_text(self.path(name))
        except OSError:
            return ""

    def tool(self, name: str) -> str:
        """Path of a program, "" if there is none."""
        path = os.environ.get("PATH", os.defpath) if self._real else self.path("bin")
        places = (*path.split(os.pathsep), *map(self.path, _OFF_THE_PATH))
        found = (f"{directory or '.'}/{name}" for directory in places)
        return next(filter(_is_program, found), "")

    def lacks_library(self, name: str) -> bool:
        """Whether a shared library is known to be absent; the loader knows more than we do."""
        return not self._real and not self.exists(f"lib/{name}")

    def has_package(self, name: str) -> bool:
        """Whether a vendor's Python package is installed; it is not imported."""
        path = None if self._real else [self.path("python")]
        return importlib.machinery.PathFinder.find_spec(name, path) is not None

    def import_path(self) -> list[str]:
        """``sys.path`` for a fresh interpreter that has to find us and the vendors' packages."""
        ours = [str(entry) for entry in sys.path]
        return ours if self._real else [self.path("python"), *ours]

    def environment(self) -> dict[str, str]:
        """Environment variables for a vendor's tool."""
        found = {name: value for name, value in environment().items() if name not in _NOT_FOR_TOOLS}
        found["LC_ALL"] = "C"
        if not self._real:
            found[ROOT] = self.root
            found["LD_LIBRARY_PATH"] = self.path("lib")
        return found


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and not os.path.isdir(path)
