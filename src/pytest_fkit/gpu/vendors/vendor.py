"""The object that says everything particular to one vendor's GPUs, in a file of its own.

A new vendor is such a file, and its line in the table of :mod:`.detection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ..answers import MissingError
from ..devices import Device
from ..machine import Machine

own_builtins(globals())


class Vendor(NamedTuple):
    """A vendor of GPUs.

    Every controller imports these objects, so what only machines with such GPUs need is imported
    by `ways`, or named as in "pytest_fkit.gpu.vendors.cuda:probe".

    :param name: as in :class:`.devices.Device`.
    :param masks: the variables that hide GPUs from a process, the outermost first.
    :param absent: why a machine has no GPU of this vendor, "" if it may have one; called in our own
        process, so it starts nothing and wakes no driver up.
    :param ways: the ways to list the GPUs, in the order in which they are tried.
    :param visible: what the masks in an environment leave of the GPUs, as the vendor's runtime
        reads them.
    :param variables: the masks that show these GPUs only, none of them if there are none; given the
        environment that they were picked from, and the setting ``fkit_amd_mask``.
    :param makers: words before the name of a model, in lower case.
    :param sharing: what may happen to processes that share a GPU, "" for nothing.
    :param probe: the function that tries GPUs out, "" if there is none; see :mod:`.driver`.
    :param probe_arguments: more arguments for that.
    :param memory: the function that returns what finds a GPU's :data:`.driver.Counter`, "" if
        nobody counts its memory.
    """

    name: str
    title: str
    masks: tuple[str, ...]
    absent: Callable[[Machine], str]
    ways: Callable[[], Sequence[Way]]
    visible: Callable[[Sequence[Device], Mapping[str, str]], Visible]
    variables: Callable[[Sequence[Entry], Mapping[str, str], str], dict[str, str]]
    makers: frozenset[str] = frozenset()
    sharing: str = ""
    probe: str = ""
    probe_arguments: Callable[[], list[str]] = list
    memory: str = ""


# --- listing ------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The GPUs that a way found.

    :param devices: in the order in which the vendor's runtime counts them.
    :param notes: what else there is to say, a line each.
    :param notices: the same, where a user has to know.
    """

    devices: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class Prober:
    """Asks programs and libraries, each in a process of its own, on behalf of a way.

    :param run: the output of a command; raises FailedError.
    """

    def __init__(self, machine: Machine, run: Callable[[list[str]], str]) -> None:
        self.machine = machine
        self._run = run

    def tool(self, name: str, *arguments: str) -> str:
        """The output of a vendor's program.

        :raises MissingError: if there is no such program.
        :raises FailedError: if it did not answer.
        """
        path = self.machine.tool(name)
        if not path:
            raise MissingError(f"there is no {name}")
        return self._run([path, *arguments])

    def call(self, function: str) -> Any:
        """Call a function of ours in a fresh interpreter, with the machine's root; its answer.

        :param function: as in "pytest_fkit.gpu.vendors.kfd:read_nodes".
        :raises MissingError, FailedError: as the function does, or if there was no answer.
        """
        from ..interpreters import answer_of, light_interpreter

        return answer_of(self._run(light_interpreter(function, self.machine.root)))


class Way(NamedTuple):
    """One way to list a vendor's GPUs.

    :param find: raises MissingError or FailedError; an answer is final, even one without GPUs.
    """

    name: str
    find: Callable[[Prober], Found]


# --- masks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One GPU, and how a mask picks it.

    :param text: what the vendor's outermost mask variable calls it.
    :param index: AMD: what HIP_VISIBLE_DEVICES calls it, within the ROCR_VISIBLE_DEVICES that were
        inherited.
    :param tile: Intel: the number of the tile that is picked, "" for the whole GPU.
    """

    device: Device
    text: str
    index: str = ""
    tile: str = ""

    @property
    def id(self) -> str:
        """The GPU's number without a mask; the UUID of a MIG instance; device.tile at Intel."""
        if self.device.parent:
            return self.device.uuid
        return f"{self.device.ordinal}.{self.tile}" if self.tile else str(self.device.ordinal)


class Visible(NamedTuple):
    """What an environment leaves visible of a fleet.

    The caller's masks are all there is: entries are picked from them, in their order, and never
    renumbered.

    :param vendor: as in :class:`.devices.Device`, or "".
    :param entries: in the order of the masks.
    :param notices: what a user has to know about the masks.
    """

    vendor: str = ""
    entries: tuple[Entry, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def most(self) -> int:
        """How many GPUs one process can see: of MIG instances one, whatever its mask names."""
        whole = sum(not entry.device.parent for entry in self.entries)
        return whole or min(1, len(self.entries))


def unmasked(vendor: str, devices: Sequence[Device]) -> Visible:
    """All devices, by number."""
    return Visible(vendor, tuple(Entry(each, str(each.ordinal)) for each in devices))


def until_invalid(
    name: str, mask: str, find: Callable[[str], Entry | None], notices: list[str]
) -> Iterator[Entry]:
    """The entries of a mask up to the first that names nothing.

    :param name: of the variable.
    :param notices: gets a line about what is cut off.
    """
    for text in mask.split(","):
        entry = find(text)
        if entry is None:
            # "-1" is how one says that the list ends here, or that it is empty.
            if text.strip() not in ("", "-1"):
                notices.append(f"{name}={mask}: nothing from {text.strip()!r} on is visible")
            return
        yield entry


def until_repeated(entries: Iterator[Entry]) -> list[Entry]:
    """The entries up to the first whose device was named before."""
    found: list[Entry] = []
    for entry in entries:
        if entry.device in [each.device for each in found]:
            break
        found.append(entry)
    return found


def by_number(devices: Sequence[Device], text: str) -> Entry | None:
    """The device whose number without a mask a text says."""
    if text.isdigit():
        for device in devices:
            if device.ordinal == int(text):
                return Entry(device, str(int(text)))
    return None
