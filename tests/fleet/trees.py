"""The files of the kernel and its drivers, on a machine that does not exist."""

from __future__ import annotations

from pathlib import Path

from .description import Description, Gpu


def write(root: Path, description: Description) -> None:
    """Write /proc, /sys and /dev as the drivers of the described GPUs would."""
    for directory in ("proc", "sys", "dev"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for gpu in description.gpus:
        if gpu.state != "missing":
            _WRITERS[gpu.vendor](root, gpu)
            _file(root / f"sys/bus/pci/devices/{gpu.pci}/numa_node", f"{gpu.numa}\n")
    if description.of("amd"):
        _write_io_links(root, description.of("amd"))
        _file(root / "dev/kfd")
        _write_cpus(root, min(gpu.node for gpu in description.of("amd")))


def _write_nvidia(root: Path, gpu: Gpu) -> None:
    """The format of ``information`` is nv-procfs.c's in NVIDIA's open-gpu-kernel-modules."""
    _file(root / "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module\n")
    _file(root / "dev/nvidiactl")
    if gpu.opens:
        _file(root / f"dev/nvidia{gpu.minor}")
    _file(
        root / f"proc/driver/nvidia/gpus/{gpu.pci}/information",
        f"Model: \t\t {gpu.name}\n"
        "IRQ:   \t\t 337\n"
        f"GPU UUID: \t {gpu.uuid}\n"
        "Video BIOS: \t 96.00.74.00.01\n"
        "Bus Type: \t PCIe\n"
        "DMA Size: \t 52 bits\n"
        "DMA Mask: \t 0xfffffffffffff\n"
        f"Bus Location: \t {gpu.pci}\n"
        f"Device Minor: \t {gpu.minor}\n"
        "GPU Firmware: \t 580.65.06\n"
        "GPU Excluded:\t No\n",
    )
    for number, _ in enumerate(gpu.mig or ()):
        mig = root / f"proc/driver/nvidia/capabilities/gpu{gpu.minor}/mig"
        _file(mig / f"gi{number + 7}/access", "DeviceFileMinor: 66\nDeviceFileMode: 292\n")
    _write_render_device(root, gpu, 0x10DE)


def _write_amd(root: Path, gpu: Gpu) -> None:
    """The format is kfd_topology.c's in the Linux kernel, with the properties that are read."""
    device = _write_render_device(root, gpu, 0x1002)
    # amdgpu_vram_mgr.c; the device of a render node is that of the bus.
    for directory in (device, root / f"sys/bus/pci/devices/{gpu.pci}"):
        _file(directory / "mem_info_vram_total", f"{gpu.memory}\n")
        _file(directory / "mem_info_vram_used", "297422848\n")
    _file(device / "product_name", f"{gpu.name}\n")
    node = root / f"sys/class/kfd/kfd/topology/nodes/{gpu.node}"
    bus, _, rest = gpu.pci.partition(":")[2].partition(":")
    location = int(bus, 16) << 8 | int(rest.split(".")[0], 16) << 3
    _file(node / "gpu_id", f"{20000 + gpu.node}\n")
    _file(
        node / "properties",
        "cpu_cores_count 0\nsimd_count 1216\nmem_banks_count 1\n"
        "gfx_target_version 90402\nvendor_id 4098\ndevice_id 29857\n"
        f"location_id {location}\ndomain 0\ndrm_render_minor {gpu.render}\n"
        f"local_mem_size 0\nunique_id {int(gpu.uuid[4:] or '0', 16)}\nnum_xcc 8\n",
    )
    _file(
        node / "mem_banks/0/properties",
        f"heap_type 1\nsize_in_bytes {gpu.memory}\nflags 0\nwidth 8192\nmem_clk_max 1300\n",
    )


def _write_io_links(root: Path, gpus: list[Gpu]) -> None:
    """To the first CPU by PCI Express, to other GPUs by xGMI: CRAT_IOLINK_TYPE_* of kfd_crat.h."""
    for gpu in gpus:
        ways = [(2, 0), *((11, other.node) for other in gpus if other.pci in gpu.links)]
        for number, (kind, to) in enumerate(ways):
            _file(
                root / f"sys/class/kfd/kfd/topology/nodes/{gpu.node}/io_links/{number}/properties",
                f"type {kind}\nversion_major 0\nversion_minor 0\nnode_from {gpu.node}\n"
                f"node_to {to}\nweight 15\nmin_latency 0\nmax_latency 0\nmin_bandwidth 0\n"
                "max_bandwidth 0\nrecommended_transfer_size 0\nrecommended_sdma_engine_id_mask 0\n"
                "flags 1\n",
            )


def _write_cpus(root: Path, count: int) -> None:
    for number in range(count):
        node = root / f"sys/class/kfd/kfd/topology/nodes/{number}"
        _file(node / "gpu_id", "0\n")
        _file(node / "properties", "cpu_cores_count 96\nsimd_count 0\nmem_banks_count 1\n")


def _write_intel(root: Path, gpu: Gpu) -> None:
    _write_render_device(root, gpu, 0x8086)


def _write_ascend(root: Path, gpu: Gpu) -> None:
    _file(root / "dev/davinci_manager")
    if gpu.opens:
        _file(root / f"dev/davinci{gpu.minor}")


def _write_render_device(root: Path, gpu: Gpu, vendor: int) -> Path:
    device = root / f"sys/class/drm/renderD{gpu.render}/device"
    _file(device / "vendor", f"0x{vendor:04x}\n")
    _file(device / "uevent", f"DRIVER=fleet\nPCI_CLASS=38000\nPCI_SLOT_NAME={gpu.pci}\n")
    if gpu.opens:
        _file(root / f"dev/dri/renderD{gpu.render}")
    return device


def _file(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


_WRITERS = {
    "nvidia": _write_nvidia,
    "amd": _write_amd,
    "intel": _write_intel,
    "ascend": _write_ascend,
}
