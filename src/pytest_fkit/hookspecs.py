"""What other plugins can answer."""

from __future__ import annotations

from typing import Sequence

import pytest

from .gpu.devices import Device


@pytest.hookspec(firstresult=True)
def pytest_fkit_gpus(config: pytest.Config, host: str) -> Sequence[Device | int | str] | None:
    """The GPUs for the workers of a machine, where ``--fkit-gpus`` does not say them.

    Devices are taken as they are, ids (numbers and UUIDs) as if ``--fkit-gpus`` had named them; an
    empty answer means no GPUs. In both cases only what the masks in the environment leave counts.
    None leaves it to detection.

    At ``-n0`` it is called before conftest files are loaded, so that only installed plugins and
    those of ``-p`` can answer.

    :param host: "" for the machine of the pytest process, else the address in ``--tx``, as in
        "me@node7" or "192.168.1.102:8888".
    """
