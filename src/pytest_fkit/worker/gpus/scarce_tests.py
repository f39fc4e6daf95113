"""Tests that skip themselves because their worker has too few GPUs."""

from __future__ import annotations

from typing import Any, Mapping

import pytest

from ...gpu.slices.ownership import KEY
from ...own import own_builtins
from .declared_needs import needs_of

own_builtins(globals())


def note_wanted_gpus(item: pytest.Item, data: dict[str, Any], changed: Mapping[str, str]) -> None:
    """Note in a report how many GPUs the test would have wanted, if that is why it was skipped.

    Only where the machine has as many: else no option helps.

    :param data: the report, as pytest_report_to_serializable gives it.
    :param changed: the variables in which the test's process differs from its worker.
    """
    owned = item.config.stash.get(KEY, None)
    if owned is None or data.get("outcome") != "skipped" or "wasxfail" in data:
        return
    ids = changed.get("FKIT_GPU_IDS", "")
    seen = len(ids.split(",")) if ids else len(owned.ids)
    said = needs_of(item).gpus
    if said is not None and said <= seen:
        return  # it has what it asked for
    from ...gpu.errors.scarcity import wanted_gpus

    wanted = wanted_gpus(str(data.get("longrepr")), seen)
    if wanted is not None and wanted <= owned.most:
        data["fkit_wanted_gpus"] = wanted
