"""What is on a machine that does not exist: the description that all its parts read.

``fleet.json`` has a line for each GPU, so that a few lines of C can read it, too:

``gpus``
    - ``vendor``: as in :mod:`pytest_fkit.gpu.devices`.
    - ``ordinal``: in the runtime's order without a mask, CUDA's in PCI order.
    - ``fastest``: CUDA's without CUDA_DEVICE_ORDER, the fastest GPU first.
    - ``smi``: in the order of the vendor's tools.
    - ``minor``: of the device file; ``node``: in AMD's topology; ``render``: of the render device.
    - ``opens``: whether this process may use it (a container, a device cgroup).
    - ``state``: "healthy"; "missing" (not on the bus), "lost" (fell off it), "busy" (somebody else
      has it alone), "full" (no memory left), "sick" (every context fails), "corrupt" (what is read
      is not what was written), "hung" (it never finishes, and SIGTERM does not help). It may
      change during a run, see fleet_state.py.
    - ``numa``: the NUMA node that it hangs on; ``links``: PCI addresses of those to which it has
      NVLink or xGMI, in both directions.
    - ``recovery``: the recovery action that NVML names; ``ecc``: uncorrected errors it counts.
    - ``mig``: null, or a list of instances, if it is in MIG mode.
``behaviours``
    By program or library, what is wrong with it: ``seconds`` it sleeps first, ``stubborn`` (it
    ignores SIGTERM), ``prints`` (instead of an answer), ``exits`` (status; of a library, its
    error), ``dies`` (signal), ``endless`` (it prints without end), ``also`` (what a program prints
    after its answer; it ends with status ``exits`` then).
``programs``, ``libraries``
    What is installed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Mapping


@dataclass(frozen=True)
class Instance:
    """A MIG instance; the names differ from a GPU's, for readers that look for text."""

    mig_uuid: str
    mig_name: str
    mig_memory: int


@dataclass(frozen=True)
class Gpu:
    """See above. `mig` comes last, for readers that look for text."""

    vendor: str
    ordinal: int
    fastest: int
    smi: int
    minor: int
    node: int
    render: int
    pci: str
    uuid: str
    name: str
    memory: int
    opens: bool = True
    state: str = "healthy"
    recovery: int = 0
    ecc: int = 0
    numa: int = -1
    links: tuple[str, ...] = ()
    mig: tuple[Instance, ...] | None = None


@dataclass(frozen=True)
class Behaviour:
    """See above."""

    seconds: float = 0.0
    stubborn: bool = False
    prints: str | None = None
    exits: int = 0
    dies: int = 0
    endless: bool = False
    also: str = ""


@dataclass(frozen=True)
class Description:
    """See above."""

    gpus: tuple[Gpu, ...] = ()
    programs: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)

    def of(self, vendor: str) -> list[Gpu]:
        """The GPUs of a vendor that are on the bus, in the runtime's order."""
        found = [gpu for gpu in self.gpus if gpu.vendor == vendor and gpu.state != "missing"]
        return sorted(found, key=lambda gpu: gpu.ordinal)

    def to_json(self) -> str:
        """The text of ``fleet.json``."""
        gpus = ",\n".join(json.dumps(asdict(gpu)) for gpu in self.gpus)
        behaviours = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(asdict(behaviour))}"
            for name, behaviour in self.behaviours.items()
        )
        installed = "".join(
            f'"{name}": {json.dumps(getattr(self, name))},\n' for name in ("programs", "libraries")
        )
        return f'{{{installed}"gpus": [\n{gpus}\n],\n"behaviours": {{\n{behaviours}\n}}}}\n'


def from_json(text: str) -> Description:
    """The description that :meth:`Description.to_json` wrote."""
    read: dict[str, Any] = json.loads(text)
    return Description(
        tuple(_gpu(entry) for entry in read["gpus"]),
        tuple(read["programs"]),
        tuple(read["libraries"]),
        {name: Behaviour(**entry) for name, entry in read["behaviours"].items()},
    )


def _gpu(entry: dict[str, Any]) -> Gpu:
    mig, links = entry.pop("mig"), tuple(entry.pop("links"))
    instances = None if mig is None else tuple(Instance(**each) for each in mig)
    return Gpu(**entry, links=links, mig=instances)
