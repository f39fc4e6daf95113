"""``--fkit-gpus`` and its relatives."""

from __future__ import annotations

import re
from typing import Any

import pytest
from gpu_values import amd, mig, nvidia

from pytest_fkit.config.settings import GpuSettings, gpu_settings_of
from pytest_fkit.gpu.devices import Fleet
from pytest_fkit.gpu.slices.distribution import distribute, usable, worker_count

UUIDS = [device.uuid for device in nvidia(8).devices]


def asked(gpus: Any = "auto", per_worker: int | None = None) -> GpuSettings:
    return GpuSettings(
        gpus, per_worker, 0, "rocr", 10.0, (), source=f"--fkit-gpus={','.join(gpus)}"
    )  # fmt: skip


def _parse(pytester: pytest.Pytester, *arguments: str, **environ: str) -> GpuSettings:
    config = pytester.parseconfig(*arguments)
    with pytest.MonkeyPatch.context() as patches:
        patches.delenv("FKIT_GPUS", raising=False)
        for name, value in environ.items():
            patches.setenv(name, value)
        return gpu_settings_of(config, config.option)


def test_defaults(pytester: pytest.Pytester) -> None:
    assert _parse(pytester) == GpuSettings("auto", None, 0, "rocr", 10.0, ())


def test_the_option_wins_then_the_variable_then_the_ini_value(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        "[pytest]\nfkit_gpus = 5\nfkit_gpus_per_worker = 3\nfkit_amd_mask = hip\n"
        "fkit_gpus_timeout = 2\nfkit_env =\n  A={port}\n  B=x"
    )
    found = _parse(pytester)
    assert (found.gpus, found.gpus_per_worker, found.amd_mask) == (("5",), 3, "hip")
    assert (found.gpus_timeout, found.env) == (2.0, (("A", "{port}"), ("B", "x")))
    assert _parse(pytester, FKIT_GPUS="6").gpus == ("6",)
    found = _parse(pytester, "--fkit-gpus=none", "--fkit-gpus-per-worker=1", FKIT_GPUS="6")
    assert (found.gpus, found.gpus_per_worker, found.source) == ("none", 1, "--fkit-gpus=none")


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--fkit-gpus=x", "--fkit-gpus=x: expected auto, none, or numbers and UUIDs"),
        ("--fkit-gpus=0,,1", "expected auto, none"),
        ("--fkit-gpus=²", "expected auto, none"),
        ("--fkit-gpus=0,0", "named twice"),
        ("--fkit-gpus-per-worker=0", "--fkit-gpus-per-worker=0: expected a positive integer"),
        ("--fkit-gpus-per-worker=x", "expected a positive integer"),
        ("--fkit-gpu-slots=-1", "--fkit-gpu-slots=-1: expected a positive integer"),
        ("--fkit-amd-mask=cuda", "expected one of rocr, hip"),
        ("--fkit-gpus-timeout=0", "expected a positive number of seconds; --fkit-gpus=none looks"),
        ("--fkit-gpus-timeout=x", "expected a positive number"),
    ],
)
def test_wrong_values_are_named_with_what_is_expected(
    pytester: pytest.Pytester, argument: str, said: str
) -> None:
    with pytest.raises(pytest.UsageError, match=said):
        _parse(pytester, argument)


def test_a_wrong_variable_and_a_wrong_ini_line_are_named(pytester: pytest.Pytester) -> None:
    with pytest.raises(pytest.UsageError, match="FKIT_GPUS=x: expected auto"):
        _parse(pytester, FKIT_GPUS="x")
    pytester.makeini("[pytest]\nfkit_env = A={nobody}")
    with pytest.raises(pytest.UsageError, match=r"ini value fkit_env: 'A={nobody}': {nobody} is"):
        _parse(pytester)


@pytest.mark.parametrize(
    ("fleet", "environ", "gpus", "texts"),
    [
        (nvidia(8), {}, ("5", "0"), ["5", "0"]),
        (nvidia(8), {}, (UUIDS[3],), ["3"]),
        (nvidia(8), {}, ("GPU-00000003",), ["3"]),
        (nvidia(8), {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, ("6", "7"), ["6", "7"]),
        (nvidia(8), {"CUDA_VISIBLE_DEVICES": UUIDS[6]}, ("6",), [UUIDS[6]]),
        (mig(2, 3), {}, ("MIG-00010002",), [mig(2, 3).devices[5].uuid]),
        (amd(4), {"ROCR_VISIBLE_DEVICES": "2,3"}, ("3",), ["3"]),
    ],
)
def test_named_gpus_are_those_of_the_machine(
    fleet: Fleet, environ: Any, gpus: tuple[str, ...], texts: list[str]
) -> None:
    seen = usable(fleet, asked(gpus), environ)
    assert [entry.text for entry in seen.entries] == texts
    assert not seen.notices


def test_what_the_mask_hides_can_t_be_named() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "4,5"}
    with pytest.raises(
        pytest.UsageError, match=r"--fkit-gpus=0,1: there is no such GPU here; .* 4,5"
    ):
        usable(nvidia(8), asked(("0", "1")), environ)
    seen = usable(nvidia(8), asked(("0", "5")), environ)
    assert [entry.text for entry in seen.entries] == ["5"]
    assert seen.notices == ("--fkit-gpus=0,5: not here: 0; there are: 4,5",)


@pytest.mark.parametrize(
    ("environ", "vendor"),
    [
        ({}, "nvidia"),
        ({"ROCR_VISIBLE_DEVICES": "0,1,2,3"}, "amd"),
        ({"ZE_AFFINITY_MASK": "1,2"}, "intel"),
    ],
)
def test_what_detection_did_not_find_is_taken_on_trust(environ: Any, vendor: str) -> None:
    seen = usable(Fleet(), asked(("2", "1")), environ)
    assert seen.vendor == vendor
    assert [entry.text for entry in seen.entries] == ["2", "1"]
    assert "taken on trust" in seen.notices[0]


def test_trust_does_not_reach_beyond_the_mask() -> None:
    with pytest.raises(pytest.UsageError, match="there is no such GPU"):
        usable(Fleet(), asked(("0",)), {"CUDA_VISIBLE_DEVICES": "1"})
    seen = usable(Fleet(), asked((UUIDS[1],)), {"CUDA_VISIBLE_DEVICES": f"{UUIDS[0]},{UUIDS[1]}"})
    assert [entry.text for entry in seen.entries] == [UUIDS[1]]


@pytest.mark.parametrize(
    ("fleet", "per_worker", "workers", "said"),
    [
        (amd(2), None, 4, "4 workers share 2 AMD GPUs; .* -n 2 gives every worker its own"),
        (nvidia(2), 4, 1, "per-worker=4: there are only 2 GPUs, so each worker has 2"),
        (mig(1, 4), 2, 2, "a process sees one MIG instance, .*: use --fkit-gpus-per-worker=1"),
    ],
)
def test_what_a_user_has_to_know(
    fleet: Fleet, per_worker: int | None, workers: int, said: str
) -> None:
    found = distribute(fleet, asked("auto", per_worker), {}, range(workers))
    [notice] = found.notices
    assert re.search(said, notice)


@pytest.mark.parametrize(
    ("fleet", "workers"), [(nvidia(2), 4), (nvidia(8), 4), (mig(1, 4), 4), (Fleet(), 9)]
)
def test_nothing_is_said_where_all_is_well(fleet: Fleet, workers: int) -> None:
    assert not distribute(fleet, asked(), {}, range(workers)).notices


@pytest.mark.parametrize(
    ("fleet", "per_worker", "expected"),
    [
        (nvidia(8), None, 4),
        (nvidia(7), None, 3),
        (nvidia(1), None, 1),
        (nvidia(8), 1, 8),
        (nvidia(4), 8, 1),
        (mig(2, 3), None, 6),
        (Fleet(), None, 0),
    ],
)
def test_workers_that_auto_means(fleet: Fleet, per_worker: int | None, expected: int) -> None:
    assert worker_count(fleet, asked("auto", per_worker), {}) == expected
    shared = asked("auto", per_worker)._replace(gpu_slots=3)
    assert worker_count(fleet, shared, {}) == 3 * expected


@pytest.mark.parametrize(
    ("gpus", "workers", "owned"),
    [
        (2, 2, "0,1 0,1"),
        (4, 4, "0,1 2,3 0,1 2,3"),
        (4, 8, "0 1 2 3 0 1 2 3"),
        (8, 4, "0,1 2,3 4,5 6,7"),
        (1, 2, "0 0"),
        (0, 9, " " * 8),
    ],
)
def test_so_many_workers_share_a_slice_and_not_more(gpus: int, workers: int, owned: str) -> None:
    shared = asked()._replace(gpu_slots=2)
    places = distribute(nvidia(gpus), shared, {}, range(workers)).assignment.places
    assert " ".join(",".join(place.ids) for place in places) == owned
    assert {place.slots for place in places} == {2}
    found = len({place.ids for place in places})
    if gpus and workers == 2 * found:
        with pytest.raises(pytest.UsageError, match=f"--fkit-gpu-slots=2: .*-n {2 * found} or"):
            distribute(nvidia(gpus), shared._replace(gpus_per_worker=gpus // found), {}, range(99))
