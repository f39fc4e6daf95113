"""AMD's compute driver: the GPU nodes of its topology in sysfs, which is what HIP counts.

``nodes/<n>/properties`` has a line "name value" for each property, ``unique_id`` in decimal,
``location_id`` as bus, device and function in its lower 16 bits (kfd_topology.c in the Linux
kernel). ROCr numbers GPUs in the order of the nodes, and leaves out those whose ``gpu_id`` can't be
read or whose render device does not open, as in a container that was not given all GPUs
(topology.c in AMD's libhsakmt).
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Iterator, NamedTuple

from ..asking.failures import FailedError, MissingError
from ..asking.machine import Machine
from ..asking.reading import mappings, number, rubbish, word

_NODES = "sys/class/kfd/kfd/topology/nodes"

# HSA_MEM_HEAP_TYPE_FB_PUBLIC and _PRIVATE in kfd_crat.h.
_FRAME_BUFFER = ("1", "2")

# CRAT_IOLINK_TYPE_XGMI in kfd_crat.h.
_XGMI = "11"


class Node(NamedTuple):
    """A GPU, or a partition of one, in the topology.

    :param number: of the node.
    :param uuid: as ROCR_VISIBLE_DEVICES takes it, "" if it has none.
    :param pci: PCI address; partitions of a GPU have the same.
    :param name: for people.
    :param memory: bytes of its own, 0 if unknown.
    :param opens: whether HIP can use it, since its render device opens.
    :param links: nodes to which it has xGMI.
    """

    number: int
    uuid: str
    pci: str
    name: str
    memory: int
    opens: bool
    links: tuple[int, ...] = ()


def read_nodes(root: str) -> list[dict[str, Any]]:
    """The GPU nodes; called in a fresh interpreter: opening a device may wake it up, or hang.

    :raises MissingError: if there is no topology.
    """
    machine = Machine(root)
    nodes = []
    names = machine.names(_NODES, r"\d{1,5}")
    if not names:
        raise MissingError("there is none")
    for name in sorted(names, key=int):
        if machine.text(f"{_NODES}/{name}/gpu_id").strip() in ("", "0"):  # forbidden, or a CPU
            continue
        properties = _pairs(machine.text(f"{_NODES}/{name}/properties"))
        device = f"sys/class/drm/renderD{properties.get('drm_render_minor')}/device"
        nodes.append(
            {
                "node": int(name),
                "properties": properties,
                "opens": _opens(machine, properties.get("drm_render_minor", "")),
                "product": machine.text(f"{device}/product_name").strip(),
                "vram": machine.text(f"{device}/mem_info_vram_total").strip(),
                "banks": _below(machine, name, "mem_banks"),
                "links": _below(machine, name, "io_links"),
            }
        )
    return nodes


def gpu_ids(root: str) -> dict[str, list[str]]:
    """By PCI address, the numbers by which the driver calls the GPU, or its partitions."""
    machine = Machine(root)
    found: dict[str, list[str]] = {}
    for name in machine.names(_NODES, r"\d{1,5}"):
        gpu = machine.text(f"{_NODES}/{name}/gpu_id").strip()
        if gpu in ("", "0"):
            continue
        properties = _pairs(machine.text(f"{_NODES}/{name}/properties"))
        pci = _pci(number(properties.get("domain")), number(properties.get("location_id")))
        found.setdefault(pci, []).append(gpu)
    return found


def _pairs(text: str) -> dict[str, str]:
    return dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)


def _opens(machine: Machine, minor: str) -> bool:
    try:
        os.close(os.open(machine.path(f"dev/dri/renderD{minor}"), os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _below(machine: Machine, node: str, what: str) -> list[dict[str, str]]:
    directory = f"{_NODES}/{node}/{what}"
    return [
        _pairs(machine.text(f"{directory}/{each}/properties"))
        for each in machine.names(directory, r"\d+")
    ]


def parse_nodes(facts: object) -> list[Node]:
    """What :func:`read_nodes` tells.

    :raises FailedError: if it is not that.
    """
    if not isinstance(facts, list) or len(mappings(facts)) != len(facts):
        raise rubbish(str(facts))
    read = [(_parse_node(entry), _frame_buffer(entry)) for entry in mappings(facts)]
    times = Counter(node.pci for node, _ in read)
    # The figure of the device is the one of the whole GPU; a partition has a share of it. (The
    # banks alone won't do: those of an integrated GPU may count main memory.)
    return [
        node._replace(memory=banks) if banks and (times[node.pci] > 1 or not node.memory) else node
        for node, banks in read
    ]


def _parse_node(entry: dict[str, Any]) -> Node:
    properties = entry.get("properties")
    node = number(entry.get("node"))
    if node is None or not isinstance(properties, dict):
        raise FailedError(f"the topology can't be understood: {str(entry)[:80]}")
    return Node(
        node,
        uuid_of(properties.get("unique_id"), 10),
        _pci(number(properties.get("domain")), number(properties.get("location_id"))),
        word(entry.get("product")) or _target(number(properties.get("gfx_target_version"))),
        number(entry.get("vram")) or 0,
        entry.get("opens") is True,
        tuple(_xgmi(mappings(entry.get("links")))),
    )


def _xgmi(links: list[dict[str, Any]]) -> Iterator[int]:
    for link in links:
        to = number(link.get("node_to"))
        if link.get("type") == _XGMI and to is not None:
            yield to


def _frame_buffer(entry: dict[str, Any]) -> int:
    return sum(
        number(bank.get("size_in_bytes")) or 0
        for bank in mappings(entry.get("banks"))
        if bank.get("heap_type") in _FRAME_BUFFER
    )


def uuid_of(unique_id: object, base: int) -> str:
    """A device for ROCR_VISIBLE_DEVICES: "GPU-" and 16 hexadecimal digits; "" for none.

    :param unique_id: text of a number to `base`.
    """
    try:
        value = int(unique_id, base) if isinstance(unique_id, str) else 0
    except ValueError:
        return ""
    return f"GPU-{value:016x}" if 0 < value < 1 << 64 else ""


def _pci(domain: int | None, location: int | None) -> str:
    if location is None:
        return ""
    bus, device, function = location >> 8 & 0xFF, location >> 3 & 0x1F, location & 7
    return f"{domain or 0:04x}:{bus:02x}:{device:02x}.{function}"


def _target(version: int | None) -> str:
    """90402 is gfx942, 90010 is gfx90a."""
    if not version:
        return ""
    major, minor, step = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{step:x}"
