"""What a vendor's file consists of: how its GPUs are found, way after way."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ...own import own_builtins
from ..devices import Device
from .failures import MissingError
from .interpreters import answer_of, interpreter
from .machine import Machine

own_builtins(globals())


class Found(NamedTuple):
    """What a way found.

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
        """What a vendor's program prints.

        :raises MissingError: if there is no such program.
        :raises FailedError: if it did not answer.
        """
        path = self.machine.tool(name)
        if not path:
            raise MissingError(f"there is no {name}")
        return self._run([path, *arguments])

    def call(self, function: str) -> Any:
        """What a function of ours returns in a fresh interpreter, given the machine's root.

        :param function: as in "pytest_fkit.gpu.vendors.nvml:read_nvml".
        :raises MissingError, FailedError: as the function does, or if there was no answer.
        """
        machine = self.machine
        return answer_of(self._run(interpreter(machine.import_path(), function, machine.root)))


class Way(NamedTuple):
    """One way to find a vendor's GPUs.

    :param name: for people.
    :param find: raises MissingError or FailedError; an answer is final, even one without GPUs.
    """

    name: str
    find: Callable[[Prober], Found]
