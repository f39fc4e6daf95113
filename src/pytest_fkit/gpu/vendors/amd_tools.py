"""What AMD's tools list: the amdsmi package, amd-smi and rocm-smi."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ..asking.failures import FailedError, MissingError
from ..asking.reading import load_json, mapping, mappings, number, pci_address, rubbish, word
from .kfd import uuid_of


class Listed(NamedTuple):
    """A GPU as a tool lists it.

    :param order: by which HIP counts: its hip_id or its node; None if the tool does not tell.
    :param node: its node in the topology, None if the tool does not tell.
    """

    order: int | None
    node: int | None
    uuid: str
    pci: str
    name: str
    memory: int


def read_amdsmi(_root: str) -> list[dict[str, Any]]:
    """What AMD SMI tells, a dict for each GPU; called in a fresh interpreter.

    The functions are those of the AMD SMI Python API reference.

    :raises MissingError: if the package has no library, or one it can't use.
    :raises FailedError: if the library can't be initialised.
    """
    try:
        import amdsmi
    except Exception as error:  # noqa: BLE001 (it looks for its library in ways of its own)
        raise MissingError(f"amdsmi can't be imported: {error}") from None
    try:
        amdsmi.amdsmi_init()
        handles = amdsmi.amdsmi_get_processor_handles()
    except amdsmi.AmdSmiException as error:
        raise FailedError(str(error)) from None
    return [_read_gpu(amdsmi, handle) for handle in handles]


def _read_gpu(amdsmi: Any, handle: Any) -> dict[str, Any]:
    gpu: dict[str, Any] = {}
    readers: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("bdf", lambda: amdsmi.amdsmi_get_gpu_device_bdf(handle)),
        ("enumeration", lambda: amdsmi.amdsmi_get_gpu_enumeration_info(handle)),
        ("kfd", lambda: amdsmi.amdsmi_get_gpu_kfd_info(handle)),
        ("asic", lambda: amdsmi.amdsmi_get_gpu_asic_info(handle)),
        (
            "memory",
            lambda: amdsmi.amdsmi_get_gpu_memory_total(handle, amdsmi.AmdSmiMemoryType.VRAM),
        ),
    )
    for name, read in readers:
        try:
            gpu[name] = read()
        # The package grew: ROCm 6.4 has the enumeration. What a GPU does not know is an error.
        except (AttributeError, amdsmi.AmdSmiException):
            continue
    return gpu


def parse_amdsmi(facts: object) -> list[Listed]:
    """What :func:`read_amdsmi` tells.

    :raises FailedError: if it is not that.
    """
    if not isinstance(facts, list) or len(mappings(facts)) != len(facts):
        raise rubbish(str(facts))
    found = []
    for gpu in mappings(facts):
        enumeration, asic = mapping(gpu.get("enumeration")), mapping(gpu.get("asic"))
        node = number(mapping(gpu.get("kfd")).get("node_id"))
        hip = number(enumeration.get("hip_id"))
        found.append(
            Listed(
                node if hip is None else hip,
                node,
                _hip_uuid(enumeration.get("hip_uuid")),
                pci_address(gpu.get("bdf")),
                word(asic.get("market_name")),
                number(gpu.get("memory")) or 0,
            )
        )
    return found


def _hip_uuid(value: object) -> str:
    text = word(value)
    return uuid_of(text[len("GPU-") :], 16) if text.startswith("GPU-") else ""


def parse_amd_smi(listed: str, static: str) -> list[Listed]:
    """What ``amd-smi list -e --json`` and ``amd-smi static --asic --vram --json`` print.

    Both are lists of dicts, which later versions have in a dict as "gpu_data"; "gpu" is AMD SMI's
    own number. "list" has "bdf", "node_id", "hip_id" and "hip_uuid", "N/A" where unknown; "static"
    has "asic"/"market_name" and "vram"/"size"/"value" in MB of 2**20 bytes (amdsmi_commands.py in
    AMD's repository). A user who may not read them gets a line for people first.

    :raises FailedError: if `listed` is not that.
    """
    try:
        described = {number(gpu.get("gpu")): gpu for gpu in _gpu_data(load_json(static))}
    except FailedError:
        described = {}
    entries = _gpu_data(load_json(listed))
    if not entries:
        raise rubbish(listed)
    found = []
    for gpu in entries:
        more = mapping(described.get(number(gpu.get("gpu"))))
        node, hip = number(gpu.get("node_id")), number(gpu.get("hip_id"))
        found.append(
            Listed(
                node if hip is None else hip,
                node,
                _hip_uuid(gpu.get("hip_uuid")),
                pci_address(gpu.get("bdf")),
                word(mapping(more.get("asic")).get("market_name")),
                (number(mapping(mapping(more.get("vram")).get("size")).get("value")) or 0) << 20,
            )
        )
    return found


def _gpu_data(value: object) -> list[dict[str, Any]]:
    return mappings(value.get("gpu_data") if isinstance(value, dict) else value)


def parse_rocm_smi(text: str) -> list[Listed]:
    """What ``rocm-smi --json`` prints: a dict for each "card0", "card1", ....

    The keys are those of rocm_smi.py in AMD's repository: "PCI Bus", "Unique ID" in hexadecimal,
    "VRAM Total Memory (B)", "Card Series" ("Card series" before ROCm 6.1) and, since then,
    "Node ID". All values are texts.

    :raises FailedError: if it is not that.
    """
    cards = {
        name: card
        for name, card in mapping(load_json(text)).items()
        if name.startswith("card") and isinstance(card, dict)
    }
    if not cards:
        raise rubbish(text)
    found = []
    for card in cards.values():
        node = number(card.get("Node ID"))
        found.append(
            Listed(
                node,
                node,
                uuid_of(card.get("Unique ID"), 16),
                pci_address(card.get("PCI Bus")),
                word(card.get("Card Series")) or word(card.get("Card series")),
                number(card.get("VRAM Total Memory (B)")) or 0,
            )
        )
    return found
