"""The value of ``--fkit-machines``: other machines, and how they are reached."""

from __future__ import annotations

import re
import shlex

from ..named_tuple import NamedTuple
from ..own import own_builtins

own_builtins(globals())

FORMS = "slurm, ssh:HOST,HOST or exec:NAME,NAME COMMAND"

MACHINE, PYTHON = "{machine}", "{python}"
"""What a command of ``exec:`` has in place of the name of a machine, and of the Python there."""


class Machines(NamedTuple):
    """Other machines.

    :param engine: how they are reached: "slurm", "ssh" or "exec".
    :param names: of the machines; none for slurm, which knows them.
    :param command: of exec, by words.
    """

    engine: str
    names: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As the user gives it, without the command."""
        return f"{self.engine}:{','.join(self.names)}" if self.names else self.engine


def parse_machines(text: str) -> Machines:
    """The value, parsed.

    :raises ValueError: saying what is expected.
    """
    engine, colon, rest = text.strip().partition(":")
    if engine == "slurm":
        if colon:
            raise ValueError("expected slurm alone; the machines are the nodes of the allocation")
        return Machines(engine)
    if engine == "ssh":
        return Machines(engine, _names(rest))
    if engine != "exec":
        raise ValueError(f"expected {FORMS}")
    names, _, command = rest.strip().partition(" ")
    return Machines(engine, _names(names), _command(command, len(names.split(","))))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(each.strip() for each in text.split(","))
    for name in names:
        # One that begins with a hyphen would be an option of the command.
        if not re.fullmatch(r"[A-Za-z0-9_\[][A-Za-z0-9_.@:%\[\]-]*", name):
            raise ValueError(f"{name!r}: expected the name of a machine; {FORMS}")
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice")
    return names


def _command(text: str, machines: int) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"expected a command after the names; {error}") from None
    if not any(PYTHON in word for word in words):
        raise ValueError(
            f"expected a command with {PYTHON} after the names, as in "
            "exec:pod-0,pod-1 kubectl exec -i {machine} -- {python}"
        )
    if machines > 1 and not any(MACHINE in word for word in words):
        raise ValueError(f"the command reaches one machine only; it needs {MACHINE} in it")
    if "\n" in text or "\0" in text:
        raise ValueError("expected a command in one line")
    return words
