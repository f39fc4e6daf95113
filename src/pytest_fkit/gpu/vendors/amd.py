"""AMD's GPUs: the amdsmi package, else amd-smi, else rocm-smi, else the compute driver's topology.

No tool's numbers are HIP's: HIP counts the GPUs of the compute driver's topology, in its order, and
only those it can open (see :mod:`.kfd`). AMD SMI's ``hip_id`` is the number of a GPU's node minus
the number of the first GPU's (amdsmi_get_gpu_enumeration_info in amd_smi.cc), which is HIP's where
all can be opened. So what a tool lists is matched with the topology, by node, PCI address or UUID,
and numbered in the order of the nodes.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

from ..asking.failures import FailedError, MissingError
from ..asking.ways import Found, Prober, Way
from ..devices import Device
from .amd_tools import Listed, parse_amd_smi, parse_amdsmi, parse_rocm_smi
from .drm import LEAST_MEMORY
from .kfd import Node, parse_nodes


def ask_amdsmi(prober: Prober) -> Found:
    """AMD SMI's Python package."""
    if not prober.machine.has_package("amdsmi"):
        raise MissingError("the package amdsmi is not installed")
    listed = parse_amdsmi(prober.call("pytest_fkit.gpu.vendors.amd_tools:read_amdsmi"))
    nodes, troubles = _topology(prober)
    return _with_notices(matched(listed, nodes), troubles)


def ask_amd_smi(prober: Prober) -> Found:
    """The program of AMD SMI."""
    listed = prober.tool("amd-smi", "list", "-e", "--json")
    parse_amd_smi(listed, "[]")
    nodes, troubles = _topology(prober)
    try:
        static = prober.tool("amd-smi", "static", "--asic", "--vram", "--json")
    except FailedError as error:  # names and sizes are for people
        static = "[]"
        troubles = [*troubles, f"static: {error}"]
    return _with_notices(matched(parse_amd_smi(listed, static), nodes), troubles)


def ask_rocm_smi(prober: Prober) -> Found:
    """The program of ROCm SMI, which AMD SMI replaces."""
    options = ("--showproductname", "--showuniqueid", "--showbus", "--showmeminfo", "vram")
    listed = parse_rocm_smi(prober.tool("rocm-smi", *options, "--json"))
    nodes, troubles = _topology(prober)
    return _with_notices(matched(listed, nodes), troubles)


def ask_topology(prober: Prober) -> Found:
    """The topology alone."""
    nodes = _nodes(prober)
    return matched([_of_node(node) for node in nodes], nodes)


def _nodes(prober: Prober) -> list[Node]:
    return parse_nodes(prober.call("pytest_fkit.gpu.vendors.kfd:read_nodes"))


def _topology(prober: Prober) -> tuple[list[Node] | None, list[str]]:
    try:
        return _nodes(prober), []
    except (FailedError, MissingError) as error:
        return None, [f"the topology: {error}"]


def _with_notices(found: Found, notices: list[str]) -> Found:
    return found._replace(notices=(*found.notices, *notices))


def _of_node(node: Node) -> Listed:
    return Listed(node.number, node.number, node.uuid, node.pci, node.name, node.memory)


def matched(listed: list[Listed], nodes: list[Node] | None) -> Found:
    """What a tool lists, as far as HIP can use it, in HIP's order.

    :param nodes: of the topology, None if it can't be read: then `listed` is left as it is.
    """
    if nodes is None:
        return as_devices(listed)
    known = []
    rest = list(nodes)
    for gpu in listed:
        node = next((node for node in rest if _same(gpu, node)), None)
        if node is not None:
            rest.remove(node)
            known.append((gpu, node))
    found = as_devices([_merged(gpu, node) for gpu, node in known if node.opens])
    found = found._replace(devices=tuple(_linked(device, nodes) for device in found.devices))
    left_out = []
    closed = [str(node.number) for node in nodes if not node.opens]
    if closed:
        left_out.append(f"left out, /dev/dri/renderD* does not open: node {', '.join(closed)}")
    if len(known) < len(listed):
        left_out.append(f"left out, not in the topology: {len(listed) - len(known)}")
    if found.devices or found.notes:
        return found._replace(notes=(*found.notes, *left_out))
    return _with_notices(found, left_out)


def _linked(device: Device, nodes: list[Node]) -> Device:
    """With the addresses of those to which it has xGMI."""
    links = {to for node in nodes if node.pci and node.pci == device.pci for to in node.links}
    addresses = {node.pci for node in nodes if node.number in links and node.pci}
    return replace(device, links=tuple(sorted(addresses)))


def _merged(gpu: Listed, node: Node) -> Listed:
    return Listed(
        node.number,
        node.number,
        gpu.uuid or node.uuid,
        gpu.pci or node.pci,
        gpu.name or node.name,
        gpu.memory or node.memory,
    )


def _same(gpu: Listed, node: Node) -> bool:
    if gpu.node is not None:
        return gpu.node == node.number
    if gpu.pci:
        return gpu.pci == node.pci
    return bool(gpu.uuid) and gpu.uuid == node.uuid


def as_devices(listed: list[Listed]) -> Found:
    """Devices numbered as HIP counts them, without those that are not there to compute on."""
    last = sys.maxsize  # what has no number keeps its place, after those that have one
    ordered = sorted(listed, key=lambda gpu: last if gpu.order is None else gpu.order)
    times = Counter(gpu.uuid for gpu in ordered)
    devices = [
        Device(
            "amd",
            ordinal,
            # Partitions of a GPU had one in common before Linux 6.18.
            gpu.uuid if times[gpu.uuid] == 1 else "",
            gpu.pci,
            gpu.name,
            gpu.memory,
        )
        for ordinal, gpu in enumerate(ordered)
    ]
    notes = tuple(
        f"GPU {device.ordinal} is left out: an integrated one, with {device.memory >> 20} MiB"
        for device in devices
        if _integrated(device)
    )
    kept = tuple(device for device in devices if not _integrated(device))
    if any(gpu.order is None for gpu in ordered):
        return Found(kept, notes, ("HIP's order is unknown, its own is taken",))
    return Found(kept, notes)


def _integrated(device: Device) -> bool:
    return 0 < device.memory < LEAST_MEMORY


WAYS = (
    Way("amdsmi", ask_amdsmi),
    Way("amd-smi", ask_amd_smi),
    Way("rocm-smi", ask_rocm_smi),
    Way("KFD topology", ask_topology),
)
