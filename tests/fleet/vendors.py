"""Machines as vendors build them, with numbers that no two orders share."""

from __future__ import annotations

from dataclasses import replace
from typing import Iterable, Sequence

from .description import Gpu, Instance

GIB = 1 << 30

PROGRAMS = {
    "nvidia": ("nvidia-smi",),
    "intel": ("xpu-smi",),
    "ascend": ("npu-smi",),
}
LIBRARIES = {
    "nvidia": ("libnvidia-ml.so.1", "libcuda.so.1"),
    "amd": ("libamdhip64.so.7",),
}


def connected(
    gpus: list[Gpu], links: Sequence[tuple[int, int]] = (), sockets: Sequence[int] = ()
) -> list[Gpu]:
    """The same GPUs with links of their own.

    :param links: pairs of ordinals.
    :param sockets: NUMA nodes of all, by ordinal.
    """
    pairs = [*links, *((other, one) for one, other in links)]
    return [
        replace(
            gpu,
            numa=sockets[gpu.ordinal] if sockets else -1,
            links=tuple(gpus[to].pci for one, to in pairs if one == gpu.ordinal),
        )
        for gpu in gpus
    ]


def nvidia(
    count: int = 8,
    *,
    mig: Iterable[int] = (),
    instances: int = 7,
    states: dict[int, str] | None = None,
    recovery: dict[int, int] | None = None,
    ecc: dict[int, int] | None = None,
) -> list[Gpu]:
    """H100s. CUDA's default order and the device files count them backwards.

    :param mig: ordinals of those in MIG mode, with `instances` each.
    :param states: of those that are not healthy, by ordinal.
    :param recovery: actions that NVML names, by ordinal; `ecc`: errors that it counts.
    """
    return [
        Gpu(
            "nvidia",
            ordinal=i,
            fastest=count - 1 - i,
            smi=i,
            minor=count - 1 - i,
            node=0,
            render=128 + i,
            pci=_pci(i),
            uuid=f"GPU-{i:08x}-0a0b-4c0d-8e0f-{0xABCDEF + i:012x}",
            name="NVIDIA H100 80GB HBM3",
            memory=81559 << 20,
            state=(states or {}).get(i, "healthy"),
            recovery=(recovery or {}).get(i, 0),
            ecc=(ecc or {}).get(i, 0),
            mig=tuple(_instance(i, number) for number in range(instances)) if i in mig else None,
        )
        for i in range(count)
    ]


def _instance(gpu: int, number: int) -> Instance:
    return Instance(
        f"MIG-{gpu:08x}-{number:04x}-5c0d-8e0f-{0xFEDCBA + number:012x}",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        9984 << 20,
    )


def amd(
    count: int = 8,
    *,
    closed: Iterable[int] = (),
    cpus: int = 2,
    states: dict[int, str] | None = None,
) -> list[Gpu]:
    """MI300Xs. PCI addresses, the tools' numbers and HIP's are in three different orders.

    :param closed: ordinals, as if all were open, of those whose render device does not open.
    :param cpus: nodes of the topology before the first GPU.
    """
    gpus = [
        Gpu(
            "amd",
            ordinal=i,
            fastest=i,
            smi=(i + 1) % count,
            minor=i,
            node=cpus + i,
            render=128 + count - 1 - i,
            pci=_pci((i * 3 + 1) % count if count % 3 else count - 1 - i),
            uuid=f"GPU-{0xF00D0000ABCD0000 + i:016x}",
            name="AMD Instinct MI300X",
            memory=196592 << 20,
            opens=i not in set(closed),
            state=(states or {}).get(i, "healthy"),
        )
        for i in range(count)
    ]
    usable = [gpu for gpu in gpus if gpu.opens]
    return [
        replace(gpu, ordinal=usable.index(gpu) if gpu.opens else count + gpu.ordinal)
        for gpu in gpus
    ]


def amd_integrated(node: int = 1) -> list[Gpu]:
    """The GPU of a Ryzen processor, which HIP counts and nobody computes on."""
    return [
        Gpu(
            "amd", ordinal=64 + node, fastest=64, smi=64, minor=64, node=node, render=200,
            pci="0000:0e:00.0", uuid="", name="AMD Radeon Graphics", memory=512 << 20,
        )
    ]  # fmt: skip


def intel(count: int = 4) -> list[Gpu]:
    """Data Center GPUs Max."""
    return [
        Gpu(
            "intel", ordinal=i, fastest=i, smi=i, minor=i, node=0, render=128 + i, pci=_pci(i),
            uuid=f"01000000-0000-00{i:02x}-0000-002f0bd58086",
            name="Intel(R) Data Center GPU Max 1550", memory=131072 << 20,
        )
        for i in range(count)
    ]  # fmt: skip


def intel_integrated() -> list[Gpu]:
    """The GPU of an office PC."""
    return [
        Gpu(
            "intel", ordinal=64, fastest=64, smi=64, minor=64, node=0, render=201,
            pci="0000:00:02.0", uuid="00000000-0000-0002-0000-000c46a68086",
            name="Intel(R) UHD Graphics 770", memory=0,
        )
    ]  # fmt: skip


def ascend(count: int = 8) -> list[Gpu]:
    """910B NPUs."""
    return [
        Gpu(
            "ascend", ordinal=i, fastest=i, smi=i, minor=i, node=0, render=0, pci=_pci(i), uuid="",
            name="Ascend 910B3", memory=64 * GIB,
        )
        for i in range(count)
    ]  # fmt: skip


def _pci(number: int) -> str:
    return f"0000:{0x07 + 3 * number:02x}:00.0"
