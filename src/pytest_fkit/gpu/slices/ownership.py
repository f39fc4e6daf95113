"""What a worker knows of the GPUs that it owns."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Sequence

import pytest

from ...own import own_builtins

if TYPE_CHECKING:
    from ..health.memory import GpuMemory

own_builtins(globals())

TITLE = "pytest-fkit"
"""Of the section of a report that names worker, GPUs and attempt."""


IDS = "FKIT_GPU_IDS"
"""The variable that names the GPUs."""


@dataclass(frozen=True)
class Owned:
    """The GPUs of a worker.

    :param worker: its number.
    :param ids: of its GPUs.
    :param masks: the variables by which they are visible.
    :param vendor: as in :mod:`.devices`.
    :param most: how many GPUs one process on this machine can see.
    :param views: by a number of GPUs, the variables that show so many: the first ones of these, or
        these and others that nobody else has.
    :param named: by id, UUID and PCI address of the GPUs that tests of this worker may see, "" if
        unknown.
    :param memory: by id, bytes of memory of these; none where that is unknown.
    :param shared: whether another worker has its GPUs as well.
    :param slots: how many workers may share them, which are given tests by what these need.
    """

    worker: int
    ids: tuple[str, ...]
    masks: Mapping[str, str] = field(default_factory=dict)
    vendor: str = ""
    most: int = 0
    views: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    shared: bool = False
    slots: int = 1

    def to_wire(self) -> dict[str, Any]:
        """In types that execnet carries."""
        return {
            "worker": self.worker,
            "ids": list(self.ids),
            "masks": dict(self.masks),
            "vendor": self.vendor,
            "most": self.most,
            "views": {number: dict(variables) for number, variables in self.views.items()},
            "named": {gpu: list(names) for gpu, names in self.named.items()},
            "memory": dict(self.memory),
            "shared": self.shared,
            "slots": self.slots,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Owned:
        """The opposite of :meth:`to_wire`."""
        return cls(
            data["worker"], tuple(data["ids"]), data["masks"], data["vendor"], data["most"],
            data["views"], data["named"], data["memory"], data["shared"],
            data["slots"],
        )  # fmt: skip

    @property
    def shown(self) -> int:
        """How many GPUs a process sees that has these masks; of MIG instances it is one."""
        return 1 if any(each.startswith("MIG-") for each in self.ids) else len(self.ids)

    def showing(self, number: int | None, environ: Mapping[str, str]) -> Mapping[str, str]:
        """What has to be set for a test that is to see so many GPUs.

        Nothing where it can't, or is as it is: for as many as these, for 0 (it runs anywhere), and
        where somebody has changed the masks, who has his way.
        """
        found = self.views.get(number or 0)
        return {} if found is None or self.overwritten(environ) else found

    def seen(self, changed: Mapping[str, str]) -> tuple[str, ...]:
        """The ids of the GPUs that a test sees.

        :param changed: variables in which its process differs from its worker.
        """
        said = changed.get(IDS)
        return self.ids if said is None else tuple(filter(None, said.split(",")))

    def section(self, name: str, attempt: int, ids: Sequence[str] = ()) -> tuple[str, str]:
        """The section of a report on a test that did not pass.

        :param name: of the worker, as in "gw0".
        :param attempt: the first is 1.
        :param ids: of the GPUs that the test saw, where these are not the worker's.
        """
        seen = ids or self.ids
        what = "GPU" if len(seen) == 1 else "GPUs"
        return TITLE, f"worker {name}, {what} {','.join(seen)}, attempt {attempt}\n"

    def assignments(self, changed: Mapping[str, str]) -> str:
        """The masks as they are written before a command, with a space at the end.

        :param changed: variables in which the test's process differed from its worker.
        """
        masks = {name: changed.get(name, text) for name, text in self.masks.items()}
        return "".join(f"{name}={shlex.quote(text)} " for name, text in masks.items())

    def overwritten(self, environ: Mapping[str, str]) -> list[str]:
        """For each mask that is not what it was set to: what became of it."""
        return [
            f"{name}={environ[name]}, not {text}"
            if name in environ
            else f"{name} unset, not {text}"
            for name, text in self.masks.items()
            if environ.get(name) != text
        ]


KEY: pytest.StashKey[Owned] = pytest.StashKey()
"""Where it is, in ``config.stash`` of a worker that owns GPUs, or of pytest itself at ``-n0``."""

MEMORY: pytest.StashKey[GpuMemory] = pytest.StashKey()
"""Where the one is that can be asked about their memory, in the same place."""

TOLD = "fkit_gpus"
"""Where a worker, and a fresh interpreter, is told, in ``config.workerinput``."""


class XidsHere(NamedTuple):
    """The file to which the readers of Xids write, in the process that made it; see xids.py.

    :param path: by which others open it.
    """

    path: str
    descriptor: int


XIDS: pytest.StashKey[XidsHere] = pytest.StashKey()
"""Where it is, in ``config.stash`` of the process that made it."""

XIDS_TOLD = "fkit_xids"
"""Where a worker is told its path, in ``config.workerinput``."""


def owned_by(config: pytest.Config) -> Owned | None:
    """The GPUs of the worker to which this process belongs.

    What is of use to owners of GPUs only is imported where this was asked: the table of errors, the
    probe. Others are forked for each test without it.
    """
    told = getattr(config, "workerinput", {}).get(TOLD)
    return config.stash.get(KEY, None) if told is None else Owned.from_wire(told)


def may_retry(config: pytest.Config) -> bool:
    """Whether there is a controller who can have a test of this process run by another worker.

    Not at ``-n0``, of whose fresh interpreters xdist's fixtures say that they are the master.
    """
    told: Mapping[str, Any] = getattr(config, "workerinput", {})
    return bool(told.get("workerid", "master") != "master")
