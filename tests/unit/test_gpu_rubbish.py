"""Whatever tools and files say, it is devices or a failure that says so."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_fkit.gpu.answers import FailedError
from pytest_fkit.gpu.devices import Device
from pytest_fkit.gpu.vendors import ascend, intel, kfd
from pytest_fkit.gpu.vendors import nvidia_listing as nvidia

_SAMPLES = [
    "0, GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f, 00000000:07:00.0, A100, 40960, Enabled\n",
    "GPU 0: A100 (UUID: GPU-5c89)\n  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736)\n",
    "\tNPU ID  Chip ID  Chip Logic ID  Chip Name\n\t0  0  0  Ascend 910B3\n\t0  1  -  Mcu\n",
    '{"device_list": [{"device_id": 0, "device_type": "GPU", "pci_bdf_address": "0000:4d:00.0"}]}',
]
_WORDS = [
    "index", "uuid", "pci", "name", "memory", "mig", "instances", "error", "information",
    "openable", "node", "properties", "opens", "product",
    "banks", "links", "node_to", "type",
    "heap_type", "size_in_bytes", "location_id", "domain", "unique_id",
    "gfx_target_version", "device_list", "device_type", "pci_bdf_address", "device_name", "GPU",
    "GPU-1", "0000:07:00.0", "1", "N/A",
]  # fmt: skip


# How long an example takes says something about the machine only.
_CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def _damaged(draw: st.DrawFn) -> str:
    sample = draw(st.sampled_from(_SAMPLES))
    start = draw(st.integers(0, len(sample)))
    end = draw(st.integers(start, len(sample)))
    return sample[:start] + draw(st.text(max_size=10) | st.sampled_from(_SAMPLES)) + sample[end:]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(_WORDS)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=3), inner, max_size=8)
    ),
    max_leaves=30,
)
_TEXT = st.text() | _damaged() | _JSON.map(json.dumps)


def _two_answers(text: str) -> Any:
    return nvidia.with_instances(nvidia.parse_query(text), nvidia.parse_list(text))


def _topology(value: object) -> Any:
    return kfd.as_devices(kfd.parse_nodes(value))


def _check(parse: Callable[[Any], Any], value: object) -> None:
    try:
        found = parse(value)
    except FailedError:
        return
    for device in found.devices:
        assert isinstance(device, Device)
        assert device.ordinal >= 0
        assert device.memory >= 0
        assert all(isinstance(text, str) for text in (device.uuid, device.pci, device.name))
    assert all(isinstance(line, str) for line in (*found.notes, *found.notices))


@pytest.mark.parametrize("parse", [_two_answers, intel.parse_discovery, ascend.parse_mapping])
@_CALM
@given(text=_TEXT)
def test_any_text(parse: Callable[[str], Any], text: str) -> None:
    _check(parse, text)


@pytest.mark.parametrize("parse", [nvidia.parse_nvml, nvidia.parse_proc, _topology])
@_CALM
@given(value=_JSON)
def test_any_answer_of_ours(parse: Callable[[object], Any], value: object) -> None:
    _check(parse, value)


@pytest.mark.parametrize("parse", [nvidia.parse_nvml, nvidia.parse_proc, _topology])
@_CALM
@given(value=st.lists(st.dictionaries(st.sampled_from(_WORDS), _JSON, max_size=8), max_size=4))
def test_any_answer_of_ours_in_the_right_shape(
    parse: Callable[[object], Any], value: object
) -> None:
    _check(parse, value)
