"""What a test needs: what marks and plugins say about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterable, Mapping

import pytest

from ...config.marks import ALL_GPUS, answer_of_hook, arguments
from ...config.options import MARK_ARGUMENTS
from ...config.values import parse
from ...gpu.slices.ownership import KEY
from ...own import own_builtins
from ...protocol.needs import Needs
from .others_needs import wanted_by_others

own_builtins(globals())

_NEEDS: pytest.StashKey[Needs] = pytest.StashKey()

_ASKED = ("gpus", "serial", "gpu_memory")


def needs_of(item: pytest.Item) -> Needs:
    """What the test needs; our marks go before plugins, these before the marks of others.

    :raises pytest.UsageError: for wrong marks and answers; the text names the place and the fix.
    """
    found = item.stash.get(_NEEDS, None)
    if found is None:
        said = arguments(item)
        marked = {name: said[name] for name in _ASKED if name in said}
        found = Needs(**{**_others(item, said), **_answered(item), **marked})
        if found.gpu_memory and found.gpus == 0:
            found = replace(found, gpus=None)  # it does not run anywhere
        item.stash[_NEEDS] = found
    return found


def needs_to_wire(items: Iterable[pytest.Item]) -> list[list[Any]]:
    """By position what each test needs, see Needs.to_wire; nothing where marks are wrong."""
    return [_right_or_nothing(item).to_wire() for item in items]


def _right_or_nothing(item: pytest.Item) -> Needs:
    try:
        return needs_of(item)
    except pytest.UsageError:  # reported when the test is to run
        return Needs()


def _others(item: pytest.Item, said: Mapping[str, Any]) -> dict[str, Any]:
    """What other projects say; nothing where no GPUs are owned, but TPUs may be."""
    gpus = said.get("others_gpus")
    owned = item.config.stash.get(KEY, None)
    if owned is None:
        return {}
    most = max(owned.most, len(owned.ids))
    if gpus is None:
        # More than there are is left to the suite, which skips the test itself, or copes.
        wanted = wanted_by_others(item)
        return {"gpus": wanted} if 0 < wanted <= most else {}
    return {"gpus": most if gpus == ALL_GPUS else gpus}


def _answered(item: pytest.Item) -> dict[str, Any]:
    """What a plugin or a conftest.py says.

    :raises pytest.UsageError: if that makes no sense.
    """
    if not item.config.hook.pytest_fkit_requirements.get_hookimpls():
        return {}
    return answer_of_hook(item, "pytest_fkit_requirements", _checked)


def _checked(answer: object) -> dict[str, Any]:
    if answer is None:
        return {}
    if isinstance(answer, Needs):
        answer = {
            "gpus": answer.gpus, "serial": answer.serial or None, "gpu_memory": answer.gpu_memory
        }  # fmt: skip
    if not isinstance(answer, Mapping) or set(answer) - set(_ASKED):
        raise ValueError(
            "expected None, or a dict as {'gpus': 4, 'serial': 'name', 'gpu_memory': '40G'}, all "
            "optional"
        )
    return {
        name: parse(MARK_ARGUMENTS[name], value)
        for name, value in answer.items()
        if value is not None
    }
