"""The variables by which a worker's processes see its GPUs and no others."""

from __future__ import annotations

from typing import Iterable, Mapping, Sequence

from ...config.values import TEMPLATE_FIELDS, fields_of
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ..vendors.detection import MASKS, VENDORS
from ..vendors.vendor import Entry
from .distribution import Place
from .ownership import Owned

own_builtins(globals())

# Where GPUs are shared, no framework may allocate nearly all memory at once: JAX's documentation,
# "GPU memory allocation"; TensorFlow's, "Limiting GPU memory growth".
_NO_PREALLOCATION = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}


def mask_variables(place: Place, inherited: Mapping[str, str], amd_mask: str) -> dict[str, str]:
    """The masks that show a slice, or hide all GPUs; none for a worker where there is none.

    :param inherited, amd_mask: see :class:`Environment`.
    """
    if not place.slice and not place.hidden:
        return {}
    return VENDORS[place.vendor].variables(place.slice, inherited, amd_mask)


class Environment(NamedTuple):
    """What the variables of one worker depend on.

    :param inherited: the environment that its slice was picked from.
    :param amd_mask: see :func:`.amd.variables`.
    :param port: the first of its ports, 0 for none.
    :param templates: names and values of the ini list ``fkit_env``; see config/values.py.
    :param most: how many GPUs one process on this machine can see, those of all workers together.
    """

    place: Place
    inherited: Mapping[str, str]
    amd_mask: str = "rocr"
    port: int = 0
    cpus: int = 1
    templates: Sequence[tuple[str, str]] = ()
    most: int = 0

    def variables(self, place: Place | None = None) -> dict[str, str]:
        """All variables.

        :param place: instead of the worker's own.
        """
        place = place or self.place
        ids = ",".join(place.ids)
        found = mask_variables(place, self.inherited, self.amd_mask)
        found.update(FKIT_WORKER_ID=str(place.worker), FKIT_GPU_IDS=ids)
        if self.port:
            found["FKIT_PORT_BASE"] = str(self.port)
        told = map(str, (place.worker, ids, self.port, self.cpus))
        values = dict(zip(TEMPLATE_FIELDS, told))
        offered = {name: template.format_map(values) for name, template in self.templates}
        if place.shared:
            offered = {**_NO_PREALLOCATION, **offered}
        found.update({name: text for name, text in offered.items() if name not in self.inherited})
        return found


def gang_variables(worker: Environment, entries: Sequence[Entry]) -> dict[str, str]:
    """The variables to set in a process of a worker so that it sees other GPUs than the worker.

    :param entries: the GPUs, picked from the same list as the worker's, in any order.
    :raises ValueError: for several MIG instances: a process sees only one, whatever its mask names.
    """
    if len(entries) > 1 and any(entry.device.parent for entry in entries):
        raise ValueError("a process sees one MIG instance, whatever its mask names")
    own = worker.variables()
    there = worker.variables(worker.place._replace(slice=tuple(entries)))
    return {name: text for name, text in there.items() if own.get(name) != text}


def owned_gpus(
    worker: Environment, spare: Sequence[Entry] = (), visible: Sequence[Entry] = ()
) -> Owned:
    """The GPUs of a worker with this environment.

    :param spare: GPUs that nobody owns, available whenever a test needs them.
    :param visible: the GPUs of its machine that this run may use.
    """
    place = worker.place
    entries = (*place.slice, *spare)
    whole = [each for each in entries if not each.device.parent]
    # A process sees one MIG instance.
    views = {1: entries[:1]}
    views.update({number: tuple(whole[:number]) for number in range(2, 1 + len(whole))})
    return Owned(
        place.worker,
        place.ids,
        mask_variables(place, worker.inherited, worker.amd_mask),
        place.vendor,
        worker.most,
        {
            number: gang_variables(worker, shown)
            for number, shown in views.items()
            if number <= worker.most and worker.most > 1 and shown != place.slice
        },
        {entry.id: (entry.device.uuid, entry.device.pci) for entry in visible},
        {entry.id: entry.device.memory for entry in visible if entry.device.memory},
        place.shared,
        place.slots,
    )


def names_read(templates: Iterable[tuple[str, str]]) -> list[str]:
    """The inherited variables on which :meth:`Environment.variables` depends."""
    names = (name for name, _ in templates)
    return [*sorted(MASKS), "CUDA_DEVICE_ORDER", *_NO_PREALLOCATION, *names]


def wants_port(templates: Iterable[tuple[str, str]]) -> bool:
    """Whether a template asks for ports."""
    return any("port" in fields_of(template) for _, template in templates)
