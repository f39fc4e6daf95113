"""Fleets for tests, made by hand."""

from __future__ import annotations

from pytest_fkit.gpu.devices import Device, Fleet

GIB = 1024**3


def nvidia(number: int, name: str = "NVIDIA H100 80GB HBM3") -> Fleet:
    """Equal GPUs; UUIDs begin with the number."""
    return Fleet(
        "nvidia",
        tuple(
            Device(
                "nvidia", n, f"GPU-{n:08x}-aaaa-bbbb-cccc-dddddddddddd", name=name, memory=80 * GIB
            )
            for n in range(number)
        ),
    )


def mig(gpus: int, each: int, whole: int = 0) -> Fleet:
    """GPUs cut into MIG instances, and after these whole ones."""
    instances = tuple(
        Device(
            "nvidia", gpu, f"MIG-{gpu:04x}{instance:04x}-aaaa-bbbb-cccc-dddddddddddd",
            name="NVIDIA H100 MIG 1g.10gb", memory=10 * GIB,
            parent=f"GPU-{gpu:08x}-aaaa-bbbb-cccc-dddddddddddd",
        )
        for gpu in range(gpus)
        for instance in range(each)
    )  # fmt: skip
    return Fleet("nvidia", instances + nvidia(gpus + whole).devices[gpus:])


def amd(number: int) -> Fleet:
    """Equal GPUs; UUIDs end with the number."""
    return Fleet(
        "amd",
        tuple(
            Device("amd", n, f"GPU-{0xABC0 + n:016x}", name="AMD Instinct MI300X", memory=192 * GIB)
            for n in range(number)
        ),
    )


def intel(number: int) -> Fleet:
    """Equal GPUs."""
    return Fleet("intel", tuple(Device("intel", n) for n in range(number)))


def ascend(number: int) -> Fleet:
    """Equal GPUs."""
    return Fleet("ascend", tuple(Device("ascend", n) for n in range(number)))
