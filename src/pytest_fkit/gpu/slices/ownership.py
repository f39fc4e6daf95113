"""The GPUs that a worker owns, as its processes know them."""

from __future__ import annotations

import shlex
from typing import Any, Mapping, Sequence

import pytest

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ..devices import gpu_names

own_builtins(globals())

TITLE = "pytest-fkit"
"""The title of the section of a report that names worker, GPUs and attempt."""

MACHINE_TOLD = "fkit_host"
"""The item of ``config.workerinput`` with the machine of a worker, "" for the controller's."""

SEVERAL = "fkit_several_machines"
"""The item of ``config.workerinput`` that says whether there are several machines."""


def on_machine(worker: str, machine: str) -> str:
    """A worker and, if that is not the controller's, its machine, as in "gw2 on n1"."""
    return f"{worker} on {machine}" if machine else worker


IDS = "FKIT_GPU_IDS"
"""The variable that names the GPUs."""


def ids_in(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """The ids of the GPUs that variables name, None if they don't say."""
    said = environ.get(IDS)
    return None if said is None else tuple(filter(None, said.split(",")))


class Owned(NamedTuple):
    """The GPUs of a worker.

    :param masks: the variables by which they are visible.
    :param vendor: as in :mod:`.devices`.
    :param most: how many GPUs one process on this machine can see.
    :param views: by a number of GPUs, the variables that show so many: the first ones of these, or
        these and others that nobody owns.
    :param named: by id, UUID and PCI address of the GPUs that tests of this worker may see, "" if
        unknown.
    :param memory: by id, bytes of memory of these; none where that is unknown.
    :param shared: whether another worker owns its GPUs as well.
    :param slots: how many workers may share them, each getting tests by what these need.
    :param machine: of the worker, "" for the controller's.
    """

    worker: int
    ids: tuple[str, ...]
    masks: Mapping[str, str] = {}
    vendor: str = ""
    most: int = 0
    views: Mapping[int, Mapping[str, str]] = {}
    named: Mapping[str, Sequence[str]] = {}
    memory: Mapping[str, int] = {}
    shared: bool = False
    slots: int = 1
    machine: str = ""

    def to_wire(self) -> dict[str, Any]:
        """The same in types that execnet carries."""
        return self._asdict()

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Owned:
        """The opposite of :meth:`to_wire`."""
        return cls(**{**data, "ids": tuple(data["ids"])})

    @property
    def shown(self) -> int:
        """How many GPUs a process with these masks sees; of MIG instances it is one."""
        return 1 if any(each.startswith("MIG-") for each in self.ids) else len(self.ids)

    def showing(self, number: int | None, environ: Mapping[str, str]) -> Mapping[str, str]:
        """The variables to set for a test that is to see so many GPUs.

        None where that changes nothing, or can't be had: for as many as these, for 0 (it runs
        anywhere), and where somebody else has changed the masks, which stay as they are.
        """
        found = self.views.get(number or 0)
        return {} if found is None or self.overwritten(environ) else found

    def seen(self, changed: Mapping[str, str]) -> tuple[str, ...]:
        """The ids of the GPUs that a test sees.

        :param changed: variables in which its process differs from its worker.
        """
        said = ids_in(changed)
        return self.ids if said is None else said

    def section(self, name: str, reruns: int, ids: Sequence[str] = ()) -> tuple[str, str]:
        """The section that names these GPUs in the report on a failed test.

        :param name: of the worker, as in "gw0".
        :param reruns: how often pytest-rerunfailures has run it before, here.
        :param ids: of the GPUs that the test saw, where these are not the worker's.
        """
        worker = f"worker {on_machine(name, self.machine)}"
        rerun = f"rerun {reruns}" if reruns else ""
        return TITLE, ", ".join(filter(None, (worker, gpu_names(ids or self.ids), rerun))) + "\n"

    def assignments(self, changed: Mapping[str, str]) -> str:
        """The masks as assignments in front of a shell command, with a space at the end.

        :param changed: variables in which the test's process differed from its worker.
        """
        masks = {name: changed.get(name, text) for name, text in self.masks.items()}
        return "".join(f"{name}={shlex.quote(text)} " for name, text in masks.items())

    def overwritten(self, environ: Mapping[str, str]) -> list[str]:
        """A text for each mask that somebody else has changed."""
        return [
            f"{name}={environ[name]}, not {text}"
            if name in environ
            else f"{name} unset, not {text}"
            for name, text in self.masks.items()
            if environ.get(name) != text
        ]


OWNED: pytest.StashKey[Owned] = pytest.StashKey()
"""In ``config.stash`` of a worker that owns GPUs, or of pytest itself at ``-n0``."""

GPUS_TOLD = "fkit_gpus"
"""The item of ``config.workerinput`` from which workers and fresh interpreters get it."""


class XidsHere(NamedTuple):
    """The file to which the readers of Xids write, in the process that made it; see xids.py."""

    path: str
    descriptor: int


XIDS: pytest.StashKey[XidsHere] = pytest.StashKey()
"""In ``config.stash`` of the process that made the file."""

XIDS_TOLD = "fkit_xids"
"""The item of ``config.workerinput`` with its path."""


def owned_by(config: pytest.Config) -> Owned | None:
    """The GPUs of the worker to which this process belongs.

    Modules that only owners of GPUs need, such as the table of errors, are imported after this
    check, so that other workers fork their tests without them.
    """
    told = getattr(config, "workerinput", {}).get(GPUS_TOLD)
    return config.stash.get(OWNED, None) if told is None else Owned.from_wire(told)


def one_of_several(config: pytest.Config) -> bool:
    """Whether workers of this run are on other machines than this process."""
    told: Mapping[str, object] = getattr(config, "workerinput", {})
    return bool(told.get(SEVERAL))


def may_retry(config: pytest.Config) -> bool:
    """Whether a controller can have another worker run a test of this process again.

    Not at ``-n0``, whose fresh interpreters have the worker id "master".
    """
    told: Mapping[str, object] = getattr(config, "workerinput", {})
    return bool(told.get("workerid", "master") != "master")
