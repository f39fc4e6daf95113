"""The machine as detection sees it: files, tools, libraries, render devices."""

from __future__ import annotations

import re

from ..config.first_environment import environment, variable
from ..named_tuple import NamedTuple
from ..own import os, own_builtins
from ..system.paths import program, read_text
from .answers import number, pci_address

own_builtins(globals())

ROOT = "FKIT_FLEET_ROOT"
"""Environment variable, for tests: a directory that stands for "/", as ``tests/fleet`` builds it.

Programs are then looked for in its ``bin``, shared libraries in ``lib``, so that nothing of the
real machine is found."""

# Masks: detection wants all GPUs of the machine, and some tools obey these.
_NOT_FOR_TOOLS = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR", "ASCEND_RT_VISIBLE_DEVICES",
)  # fmt: skip

# WSL's driver, where shells that Windows did not start don't look (microsoft/WSL issue 8794).
_OFF_THE_PATH = ("usr/lib/wsl/lib",)


class RenderDevice(NamedTuple):
    """A render device of the kernel's, as far as it can be told without asking its driver.

    :param vendor: PCI's number for its maker.
    :param pci: PCI address as in "0000:41:00.0", "" if it has none.
    :param memory: bytes of its own (amdgpu only; Documentation/gpu/amdgpu/driver-misc.rst), 0 if
        unknown.
    """

    vendor: int
    pci: str
    memory: int


class Machine(NamedTuple):
    """The machine this process runs on, or the fleet of tests that stands for one.

    :param root: directory of its files.
    """

    root: str = "/"

    @classmethod
    def here(cls) -> Machine:
        """The machine that the environment names."""
        return cls(variable(ROOT) or "/")

    @property
    def _real(self) -> bool:
        return self.root == "/"

    def path(self, name: str) -> str:
        """The path of a file, given as in "dev/kfd"."""
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
        """The content of a file, "" if it can't be read."""
        try:
            return read_text(self.path(name))
        except OSError:
            return ""

    def tool(self, name: str) -> str:
        """Path of a program, "" if there is none."""
        path = os.environ.get("PATH", os.defpath) if self._real else self.path("bin")
        return program(name, (*path.split(os.pathsep), *map(self.path, _OFF_THE_PATH)))

    def lacks_library(self, name: str) -> bool:
        """Whether a shared library is known to be absent; the loader knows more than we do."""
        return not self._real and not self.exists(f"lib/{name}")

    def render_devices(self, vendor: int) -> list[RenderDevice]:
        """A vendor's render devices in sysfs.

        The kernel has in memory what is read here: no driver is woken up.
        """
        found = map(self._render_device, self.names("sys/class/drm", r"renderD\d{1,5}"))
        return [device for device in found if device.vendor == vendor]

    def _render_device(self, name: str) -> RenderDevice:
        directory = f"sys/class/drm/{name}/device"
        vendor = self.text(f"{directory}/vendor").strip()
        lines = self.text(f"{directory}/uevent").splitlines()
        event = dict(line.split("=", 1) for line in lines if "=" in line)
        return RenderDevice(
            int(vendor, 16) if vendor.startswith("0x") and len(vendor) == len("0x1002") else 0,
            pci_address(event.get("PCI_SLOT_NAME")),
            number(self.text(f"{directory}/mem_info_vram_total").strip()) or 0,
        )

    def environment(self) -> dict[str, str]:
        """Environment variables for a vendor's tool."""
        found = {name: value for name, value in environment().items() if name not in _NOT_FOR_TOOLS}
        found["LC_ALL"] = "C"
        if not self._real:
            found[ROOT] = self.root
            found["LD_LIBRARY_PATH"] = self.path("lib")
        return found
