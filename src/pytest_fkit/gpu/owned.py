"""What a worker knows of the GPUs that it owns."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any, Mapping

import pytest

from .slices import Place

TITLE = "pytest-fkit"
"""Of the section of a report that names worker, GPUs and attempt."""


@dataclass(frozen=True)
class Owned:
    """The GPUs of a worker.

    :param worker: its number.
    :param ids: of its GPUs.
    :param masks: the variables by which they are visible.
    :param vendor: as in :mod:`.devices`.
    """

    worker: int
    ids: tuple[str, ...]
    masks: Mapping[str, str] = field(default_factory=dict)
    vendor: str = ""

    @classmethod
    def of(cls, place: Place, masks: Mapping[str, str]) -> Owned:
        """What belongs to a place."""
        return cls(place.worker, place.ids, masks, place.vendor)

    def to_wire(self) -> dict[str, Any]:
        """In types that execnet carries."""
        return {
            "worker": self.worker,
            "ids": list(self.ids),
            "masks": dict(self.masks),
            "vendor": self.vendor,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Owned:
        """The opposite of :meth:`to_wire`."""
        return cls(data["worker"], tuple(data["ids"]), data["masks"], data["vendor"])

    @property
    def shown(self) -> int:
        """How many GPUs a process sees that has these masks; of MIG instances it is one."""
        return 1 if any(each.startswith("MIG-") for each in self.ids) else len(self.ids)

    def section(self, name: str, attempt: int) -> tuple[str, str]:
        """The section of a report on a test that did not pass.

        :param name: of the worker, as in "gw0".
        :param attempt: the first is 1.
        """
        what = "GPU" if len(self.ids) == 1 else "GPUs"
        return TITLE, f"worker {name}, {what} {','.join(self.ids)}, attempt {attempt}\n"

    @property
    def assignments(self) -> str:
        """The masks as they are written before a command, with a space at the end."""
        return "".join(f"{name}={shlex.quote(text)} " for name, text in self.masks.items())

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

TOLD = "fkit_gpus"
"""Where a worker, and a fresh interpreter, is told, in ``config.workerinput``."""


def owned_by(config: pytest.Config) -> Owned | None:
    """The GPUs of the worker to which this process belongs."""
    told = getattr(config, "workerinput", {}).get(TOLD)
    return config.stash.get(KEY, None) if told is None else Owned.from_wire(told)


def may_retry(config: pytest.Config) -> bool:
    """Whether there is a controller who can have a test of this process run by another worker.

    Not at ``-n0``, of whose fresh interpreters xdist's fixtures say that they are the master.
    """
    told: Mapping[str, Any] = getattr(config, "workerinput", {})
    return bool(told.get("workerid", "master") != "master")
