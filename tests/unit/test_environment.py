"""The variables of a worker."""

from __future__ import annotations

from typing import Any, Mapping

import pytest
from gpu_values import amd, ascend, intel, mig, nvidia

from pytest_fkit.config.values import parse_template
from pytest_fkit.gpu.devices import Fleet
from pytest_fkit.gpu.slices.distribution import Place, assign
from pytest_fkit.gpu.slices.environment import (
    Environment,
    gang_variables,
    mask_variables,
    owned_gpus,
    wants_port,
)
from pytest_fkit.gpu.slices.ownership import Owned
from pytest_fkit.gpu.vendors.detection import visible


def variables(place: Place, inherited: Mapping[str, str], **more: Any) -> dict[str, str]:
    return Environment(place, inherited, **more).variables()


def place_of(
    fleet: Fleet, environ: Mapping[str, str], worker: int = 1, workers: int = 2, size: int = 2
) -> Place:
    return assign(visible(fleet, environ), range(workers), size).places[worker]


@pytest.mark.parametrize(
    ("fleet", "inherited", "amd_mask", "expected"),
    [
        (nvidia(4), {}, "", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "2,3"}),
        (nvidia(8), {"CUDA_VISIBLE_DEVICES": "4,5,7,6"}, "", {"CUDA_VISIBLE_DEVICES": "7,6"}),
        (
            nvidia(4),
            {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"},
            "",
            {"CUDA_VISIBLE_DEVICES": "2,3"},
        ),
        (
            nvidia(4),
            {"CUDA_VISIBLE_DEVICES": "GPU-00000003,GPU-00000001,GPU-00000000,GPU-00000002"},
            "",
            {
                "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
                "CUDA_VISIBLE_DEVICES": "GPU-00000000,GPU-00000002",
            },
        ),
        (nvidia(4), {"CUDA_VISIBLE_DEVICES": ""}, "", {}),
        (
            amd(4),
            {},
            "rocr",
            {
                "ROCR_VISIBLE_DEVICES": "2,3",
                "HIP_VISIBLE_DEVICES": "0,1",
                "CUDA_VISIBLE_DEVICES": "0,1",
            },
        ),
        (
            amd(8),
            {"ROCR_VISIBLE_DEVICES": "4,5,6,7", "HIP_VISIBLE_DEVICES": "3,2,1,0"},
            "rocr",
            {
                "ROCR_VISIBLE_DEVICES": "5,4",
                "HIP_VISIBLE_DEVICES": "0,1",
                "CUDA_VISIBLE_DEVICES": "0,1",
            },
        ),
        (amd(4), {}, "hip", {"HIP_VISIBLE_DEVICES": "2,3", "CUDA_VISIBLE_DEVICES": "2,3"}),
        (
            amd(8),
            {"ROCR_VISIBLE_DEVICES": "4,5,6,7"},
            "hip",
            {"HIP_VISIBLE_DEVICES": "2,3", "CUDA_VISIBLE_DEVICES": "2,3"},
        ),
        (
            amd(8),
            {"ROCR_VISIBLE_DEVICES": "4,5,6,7", "HIP_VISIBLE_DEVICES": "3,2,1,0"},
            "hip",
            {"HIP_VISIBLE_DEVICES": "1,0", "CUDA_VISIBLE_DEVICES": "1,0"},
        ),
        (intel(4), {}, "", {"ZE_AFFINITY_MASK": "2,3"}),
        (intel(4), {"ZE_AFFINITY_MASK": "0.0,0.1,1.0,1.1"}, "", {"ZE_AFFINITY_MASK": "1.0,1.1"}),
        (ascend(4), {}, "", {"ASCEND_RT_VISIBLE_DEVICES": "2,3"}),
        (
            ascend(12),
            {"ASCEND_RT_VISIBLE_DEVICES": "1,2,11,9"},
            "",
            {"ASCEND_RT_VISIBLE_DEVICES": "9,11"},
        ),
        (Fleet(), {}, "rocr", {}),
    ],
)
def test_masks(fleet: Fleet, inherited: Any, amd_mask: str, expected: Any) -> None:
    assert mask_variables(place_of(fleet, inherited), inherited, amd_mask) == expected


def test_a_mig_instance_by_uuid() -> None:
    place = place_of(mig(1, 7), {}, worker=3, workers=7, size=1)
    assert mask_variables(place, {}, "")["CUDA_VISIBLE_DEVICES"] == mig(1, 7).devices[3].uuid


@pytest.mark.parametrize(
    ("fleet", "inherited", "amd_mask", "names"),
    [
        (nvidia(4), {}, "", {"CUDA"}),
        (amd(4), {}, "rocr", {"ROCR", "HIP", "CUDA"}),
        (amd(4), {"ROCR_VISIBLE_DEVICES": "2,3"}, "hip", {"HIP", "CUDA"}),
        (intel(4), {}, "", {"ZE_AFFINITY_MASK"}),
        (ascend(4), {}, "", {"ASCEND_RT"}),
    ],
)
def test_a_worker_without_gpus_sees_none(
    fleet: Fleet, inherited: Any, amd_mask: str, names: set[str]
) -> None:
    worker = Environment(Place(7, fleet.vendor, hidden=True), inherited, amd_mask)
    told = worker.variables()
    assert (told.pop("FKIT_WORKER_ID"), told.pop("FKIT_GPU_IDS")) == ("7", "")
    assert {name.replace("_VISIBLE_DEVICES", "") for name in told} == names
    assert set(told.values()) == {"-1"}
    assert not visible(fleet, {**inherited, **told}).entries
    assert owned_gpus(worker).ids == ()


def worker_of(fleet: Fleet, inherited: Mapping[str, str], amd_mask: str = "rocr") -> Environment:
    return Environment(
        place_of(fleet, inherited), inherited, amd_mask,
        port=12000, templates=(parse_template("MINE={gpus} {port}"),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fleet", "inherited", "amd_mask", "expected"),
    [
        # CUDA_DEVICE_ORDER is the worker's already.
        (nvidia(8), {}, "", {"CUDA_VISIBLE_DEVICES": "1,2,3,4"}),
        (
            nvidia(8),
            {"CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2"},
            "",
            {"CUDA_VISIBLE_DEVICES": "6,5,4,3"},
        ),
        (
            nvidia(8),
            {"CUDA_VISIBLE_DEVICES": ",".join(f"GPU-{n:08x}" for n in range(8))},
            "",
            {"CUDA_VISIBLE_DEVICES": ",".join(f"GPU-{n:08x}" for n in range(1, 5))},
        ),
        (
            amd(8),
            {},
            "rocr",
            {
                "ROCR_VISIBLE_DEVICES": "1,2,3,4",
                "HIP_VISIBLE_DEVICES": "0,1,2,3",
                "CUDA_VISIBLE_DEVICES": "0,1,2,3",
            },
        ),
        (
            amd(8),
            {"ROCR_VISIBLE_DEVICES": "2,3,4,5,6,7", "HIP_VISIBLE_DEVICES": "5,4,3,2,1,0"},
            "rocr",
            {
                "ROCR_VISIBLE_DEVICES": "6,5,4,3",
                "HIP_VISIBLE_DEVICES": "0,1,2,3",
                "CUDA_VISIBLE_DEVICES": "0,1,2,3",
            },
        ),
        (
            amd(8),
            {"ROCR_VISIBLE_DEVICES": "2,3,4,5,6,7", "HIP_VISIBLE_DEVICES": "5,4,3,2,1,0"},
            "hip",
            {"HIP_VISIBLE_DEVICES": "4,3,2,1", "CUDA_VISIBLE_DEVICES": "4,3,2,1"},
        ),
        (intel(8), {}, "", {"ZE_AFFINITY_MASK": "1,2,3,4"}),
        (
            ascend(8),
            {"ASCEND_RT_VISIBLE_DEVICES": "7,1,6,2,5,0"},
            "",
            {"ASCEND_RT_VISIBLE_DEVICES": "1,2,5,6"},
        ),
    ],
)
def test_a_gang_sees_the_gpus_that_it_is_lent(
    fleet: Fleet, inherited: Any, amd_mask: str, expected: Any
) -> None:
    entries = visible(fleet, inherited).entries[1:5]
    found = gang_variables(worker_of(fleet, inherited, amd_mask), entries)
    ids = ",".join(entry.id for entry in entries)
    assert found == {**expected, "FKIT_GPU_IDS": ids, "MINE": f"{ids} 12000"}
    # What is set there has to be what makes them visible, read as the vendor's runtime does.
    worker = worker_of(fleet, inherited, amd_mask)
    there = {**inherited, **worker.variables(), **found}
    assert {entry.device for entry in visible(fleet, there).entries} == {
        entry.device for entry in entries
    }


def test_a_gang_of_what_a_worker_has_changes_nothing() -> None:
    worker = worker_of(nvidia(4), {})
    assert gang_variables(worker, worker.place.slice) == {}


def test_mig_instances_form_no_gang() -> None:
    fleet = mig(1, 3)
    worker = Environment(place_of(fleet, {}, size=1), {})
    assert gang_variables(worker, visible(fleet, {}).entries[:1])
    with pytest.raises(ValueError, match="a process sees one MIG instance"):
        gang_variables(worker, visible(fleet, {}).entries[:2])


def test_a_worker_knows_how_fewer_or_more_gpus_are_seen() -> None:
    fleet = nvidia(8)
    place = assign(visible(fleet, {}), range(2), 3).places[1]
    owned = owned_gpus(Environment(place, {}, most=8))
    assert Owned.from_wire(owned.to_wire()) == owned
    assert owned.most == 8
    environ = dict(owned.masks)
    assert owned.showing(1, environ) == {"CUDA_VISIBLE_DEVICES": "3", "FKIT_GPU_IDS": "3"}
    assert owned.showing(2, environ) == {"CUDA_VISIBLE_DEVICES": "3,4", "FKIT_GPU_IDS": "3,4"}
    for number in (None, 0, 3, 4):
        assert owned.showing(number, environ) == {}
    spare = visible(fleet, {}).entries[6:]
    found = owned_gpus(Environment(place, {}, most=8), spare).showing(5, environ)
    assert found == {"CUDA_VISIBLE_DEVICES": "3,4,5,6,7", "FKIT_GPU_IDS": "3,4,5,6,7"}
    assert owned.showing(1, {**environ, "CUDA_VISIBLE_DEVICES": "0"}) == {}
    assert owned.assignments(owned.showing(1, environ)) == (
        "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=3 "
    )


def test_of_a_worker_with_a_mig_instance_more_gpus_are_whole_ones() -> None:
    fleet = mig(1, 2, whole=3)
    entries = visible(fleet, {}).entries
    worker = Environment(place_of(fleet, {}, worker=0, workers=2, size=1), {}, most=3)
    owned = owned_gpus(worker, entries[2:])
    for number, shown in ((2, entries[2:4]), (3, entries[2:5])):
        assert owned.showing(number, dict(owned.masks)) == gang_variables(worker, shown)
    assert not owned.showing(1, dict(owned.masks))
    assert not owned.showing(4, dict(owned.masks))


def test_ours() -> None:
    told = variables(place_of(nvidia(4), {}), {}, port=12000)
    assert told["FKIT_WORKER_ID"] == "1"
    assert told["FKIT_GPU_IDS"] == "2,3"
    assert told["FKIT_PORT_BASE"] == "12000"


def test_without_gpus_only_the_number_is_told() -> None:
    told = variables(place_of(Fleet(), {"CUDA_VISIBLE_DEVICES": "0"}), {})
    assert told == {"FKIT_WORKER_ID": "1", "FKIT_GPU_IDS": ""}


def test_the_inherited_values_of_ours_are_another_runs() -> None:
    outer = {"FKIT_WORKER_ID": "7", "FKIT_GPU_IDS": "7", "FKIT_PORT_BASE": "1"}
    told = variables(place_of(nvidia(4), {}), outer, port=2)
    assert [told[name] for name in outer] == ["1", "2,3", "2"]


def test_templates() -> None:
    templates = [
        parse_template("MASTER_PORT={port}"),
        parse_template(" OMP_NUM_THREADS = {cpus}"),
        parse_template("CACHE=/tmp/w{worker}-{gpus}={{x}}"),
        parse_template("GIVEN={worker}"),
        parse_template("EMPTY="),
    ]
    told = variables(
        place_of(nvidia(4), {}), {"GIVEN": "mine"}, port=12000, cpus=3, templates=templates
    )
    assert told["MASTER_PORT"] == "12000"
    assert told["OMP_NUM_THREADS"] == "3"
    assert told["CACHE"] == "/tmp/w1-2,3={x}"
    assert told["EMPTY"] == ""
    assert "GIVEN" not in told
    assert wants_port(templates)
    assert not wants_port(templates[1:])


@pytest.mark.parametrize(
    "line",
    ["", "=x", "NAME", "A B=x", "A={", "A={0}", "A={nobody}", "A={worker.real}", "A={gpus!x}"],
)
def test_wrong_templates(line: str) -> None:
    with pytest.raises(ValueError, match=r"expected NAME=template|a brace itself"):
        parse_template(line)


def test_where_gpus_are_shared_nobody_takes_all_memory_beforehand() -> None:
    shared = place_of(nvidia(2), {}, workers=3, size=2)
    told = variables(shared, {})
    assert told["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert told["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    users = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in variables(shared, users)
    own = [parse_template("TF_FORCE_GPU_ALLOW_GROWTH=false")]
    assert variables(shared, {}, templates=own)["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in variables(place_of(nvidia(4), {}), {})
