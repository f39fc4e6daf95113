"""How a user, or a site, says which GPUs there are and how many workers."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Mapping

import pytest
from gpu_runs import masks, run_on
from inner import run_pytest, write_files

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

DEVICES = """\
from pytest_fkit.gpu.devices import Device
def pytest_fkit_gpus(config):
    return [Device("nvidia", n, name="NVIDIA L4") for n in range(4)]
"""


@pytest.mark.parametrize("how", ["option", "variable", "ini value"])
def test_gpus_by_number_and_uuid(fleet: Fleet, tmp_path: Path, how: str) -> None:
    gpus = fleets.nvidia(8)
    text = f"6,{gpus[1].uuid[:12]},0"
    workers = 3 if how == "option" else 1
    ended = run_on(
        fleet(gpus), tmp_path, f"-n{workers}", f"--fkit-gpus-per-worker={3 // workers}",
        *([f"--fkit-gpus={text}"] if how == "option" else []), workers=workers,
        env={"FKIT_GPUS": text if how == "variable" else ""},
        files={"pytest.ini": f"[pytest]\nfkit_gpus = {text if how == 'ini value' else '7'}\n"},
    )  # fmt: skip
    seen = [masks(seen, "CUDA") for seen in ended.seen.values()]
    assert seen == (["6", "1", "0"] if workers == 3 else ["6,1,0"])
    assert "3 NVIDIA GPUs" in ended.header[0]


def test_none_leaves_everything_as_it_is(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_on(
        fleet(fleets.nvidia(8)), tmp_path, "-n1", "--fkit-gpus=none", "-vv",
        env={"CUDA_VISIBLE_DEVICES": "3,2"},
    )  # fmt: skip
    assert ended.seen["gw0"].environ == {
        "CUDA_VISIBLE_DEVICES": "3,2",
        "FKIT_WORKER_ID": "0",
        "FKIT_GPU_IDS": "",
    }
    assert ended.header == [
        "fkit: --fkit-gpus=none: not looked for",
        "fkit: 1 worker, isolation: function, timeout: 600 s",
    ]


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_rank_has_the_gpus_that_its_launcher_gave_it(
    fleet: Fleet, tmp_path: Path, workers: str
) -> None:
    rank = {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "8"}  # torchrun's
    needs = "import pytest\n@pytest.mark.fkit(gpus=2)\ndef test_needs(): pass\n"
    ended = run_on(
        fleet(fleets.nvidia(8)), tmp_path, workers, env=rank, files={"test_needs.py": needs}
    )
    [seen] = ended.seen.values()
    assert "CUDA_VISIBLE_DEVICES" not in seen.environ
    assert ended.header[0].startswith("fkit: LOCAL_RANK=2 of 8 (torchrun): the GPUs are left to")
    reason = "needs 2 GPUs; LOCAL_RANK=2 of 8 (torchrun): they are left to the launcher"
    assert ended.inner.out.count(reason) == 1, ended.inner.out


def test_a_rank_that_names_its_gpus_has_them(fleet: Fleet, tmp_path: Path) -> None:
    rank = {"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}  # mpirun's
    ended = run_on(fleet(fleets.nvidia(8)), tmp_path, "-n0", "--fkit-gpus=2", env=rank)
    [seen] = ended.seen.values()
    assert masks(seen, "CUDA") == "2"
    assert "left to" not in ended.header[0]


def test_a_plugin_answers_with_devices_of_which_the_option_picks(
    fleet: Fleet, tmp_path: Path
) -> None:
    ended = run_on(
        fleet(), tmp_path, "-n2", "--fkit-gpus=3,1", workers=2,
        files={"conftest.py": f"import early_plugin\nSEEN = early_plugin.SEEN\n{DEVICES}"},
    )  # fmt: skip
    assert [masks(seen, "CUDA") for seen in ended.seen.values()] == ["3", "1"]
    assert "2 NVIDIA GPUs (L4), 1 per worker: gw0 3 | gw1 1;" in ended.header[0]


def test_a_plugin_answers_with_ids(fleet: Fleet, tmp_path: Path) -> None:
    hook = "def pytest_fkit_gpus(config, host):\n    return [5, '2'] if host == '' else None\n"
    ended = run_on(
        fleet(fleets.amd(8)), tmp_path, "-n", "auto",
        files={"conftest.py": f"import early_plugin\nSEEN = early_plugin.SEEN\n{hook}"},
    )  # fmt: skip
    assert masks(ended.seen["gw0"], "ROCR", "HIP") == ("5,2", "0,1")


def test_at_n0_plugins_are_asked_and_a_conftest_is_told_that_it_is_not(
    fleet: Fleet, tmp_path: Path
) -> None:
    ended = run_on(
        fleet(), tmp_path, "-n0", "-p", "site",
        files={"site_gpus.py": DEVICES, "early_plugin.py": f"import os\nSEEN = {{}}\n{DEVICES}"},
    )  # fmt: skip
    assert masks(ended.seen["main"], "CUDA") == "0,1"
    (tmp_path / "other").mkdir()
    ended = run_on(
        fleet(), tmp_path / "other", "-n0", "-q",
        files={"conftest.py": f"import early_plugin\nSEEN = early_plugin.SEEN\n{DEVICES}"},
    )  # fmt: skip
    assert "CUDA_VISIBLE_DEVICES" not in ended.seen["main"].environ
    [notice] = ended.header
    assert notice.startswith("fkit: pytest_fkit_gpus in a conftest.py is not called at -n0")


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    ("arguments", "hook", "said"),
    [
        ("--fkit-gpus=8,9", "", "--fkit-gpus=8,9: there is no such GPU here; there are: 0,1,2"),
        ("-n0 --fkit-gpus=8", "", "--fkit-gpus=8: there is no such GPU here; there are: 0,1,2"),
        ("-n0 --fkit-gpus=x", "", "--fkit-gpus=x: expected auto, none, or numbers and UUIDs"),
        ("--fkit-gpus-per-worker=0", "", "--fkit-gpus-per-worker=0: expected a positive integer"),
        ("", "return 3", "pytest_fkit_gpus answered 3: expected a list of devices, or ids"),
        ("", "return [None]", "pytest_fkit_gpus answered [None]: expected a list of devices"),
        (
            "",
            "from pytest_fkit.gpu.devices import Device; return [Device('acme', 0)]",
            "pytest_fkit_gpus: devices of 'acme': expected one of nvidia, amd, ascend, intel",
        ),
        ("", "return [9]", "pytest_fkit_gpus: 9: there is no such GPU here; there are: 0,1,2"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    fleet: Fleet, tmp_path: Path, arguments: str, hook: str, said: str
) -> None:
    files = {"test_x.py": "def test_x(): pass\n"}
    if hook:
        files["conftest.py"] = f"def pytest_fkit_gpus(config):\n    {hook}\n"
    ended = run_pytest(
        write_files(tmp_path, files), "--fkit", *arguments.split(), env=fleet(fleets.nvidia(3))
    )
    assert f"ERROR: pytest-fkit: {said}" in ended.err
    assert ended.status == 4


def test_gpus_that_nobody_found_are_taken_on_trust(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_on(
        fleet(), tmp_path, "-n2", "--fkit-gpus=0,1,2,3", workers=2,
        env={"ROCR_VISIBLE_DEVICES": "2,3,0,1"},
    )  # fmt: skip
    assert [masks(seen, "ROCR", "HIP") for seen in ended.seen.values()] == [
        ("0,1", "0,1"),
        ("2,3", "0,1"),
    ]
    assert ended.header[0] == (
        "fkit: --fkit-gpus=0,1,2,3: no GPU was found, these are taken on trust for AMD's"
    )


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    ("arguments", "env", "conftest", "header"),
    [
        ("-n auto", {}, "", "4 workers, 8 NVIDIA GPUs"),
        ("--fkit-workers=auto", {}, "", "4 workers, 8 NVIDIA GPUs"),
        ("-n auto --maxprocesses=3", {}, "", "3 workers, 8 NVIDIA GPUs"),
        ("-n auto --fkit-gpus-per-worker=3", {}, "", "2 workers, 8 NVIDIA GPUs"),
        ("-n auto", {"PYTEST_XDIST_AUTO_NUM_WORKERS": "3"}, "", "3 workers, 8 NVIDIA GPUs"),
        ("-n auto", {}, "return 5", "5 workers, 8 NVIDIA GPUs"),
        ("-n auto", {}, "return None", "4 workers, 8 NVIDIA GPUs"),
        ("--fkit-workers=auto", {"PYTEST_XDIST_AUTO_NUM_WORKERS": "3"}, "", "3 workers, 8 NVIDIA"),
        ("-n auto --fkit-gpus=none", {"PYTEST_XDIST_AUTO_NUM_WORKERS": "3"}, "", "3 workers, isol"),
        ("-n 6", {}, "return 5", "6 workers, 8 NVIDIA GPUs"),
        ("", {}, "return 5", "1 worker, 8 NVIDIA GPUs"),
    ],
)
def test_auto_is_a_worker_per_slice_unless_somebody_else_says(
    fleet: Fleet, tmp_path: Path, arguments: str, env: Mapping[str, str], conftest: str, header: str
) -> None:
    files = {"test_x.py": "def test_x(): assert 0\n"}
    if conftest:
        files["conftest.py"] = f"def pytest_xdist_auto_num_workers(config):\n    {conftest}\n"
    ended = run_pytest(
        write_files(tmp_path, files), "--fkit", "--collect-only", *arguments.split(),
        env={**fleet(fleets.nvidia(8)), **env},
    )  # fmt: skip
    [line] = [line for line in ended.lines if line.startswith("fkit: ")]
    # With -n xdist has its say, else no worker is even counted where there are no GPUs.
    assert line.startswith(f"fkit: {header}")
    # Nothing was started.
    assert "created:" not in ended.out
    assert ended.status == 0


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("arguments", ["--fixtures -n2", "--markers -n2", "--fixtures -n0"])
def test_where_pytest_shows_something_else_no_gpus_are_looked_for(
    fleet: Fleet, tmp_path: Path, arguments: str
) -> None:
    machine = fleet(
        fleets.nvidia(2),
        without=["libnvidia-ml.so.1"],
        behaviours={"nvidia-smi": fleets.Behaviour(prints="rubbish")},
    )
    ended = run_pytest(
        write_files(tmp_path, {"test_x.py": "def test_x(): pass\n"}), "--fkit", *arguments.split(),
        env=machine,
    )  # fmt: skip
    assert "nvidia" not in ended.out + ended.err
    assert ended.status == 0, ended.out + ended.err
    if "--fixtures" in arguments:
        assert "fkit_port [session scope]" in ended.out


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    ("arguments", "cuda", "said"),
    [
        (
            ["-n", "auto"],
            ["0,1", "2,3", "-1", "-1"],
            "4 workers, {}, 2 per worker: gw0 0,1 | gw1 2,3; gw2 and gw3 without GPUs;",
        ),
        (
            ["-n1"],
            ["0,1", "-1", "-1"],
            "3 workers, {}, 2 per worker: gw0 0,1 | unowned 2,3; gw1 and gw2 without GPUs;",
        ),
    ],
)
def test_workers_without_gpus(
    fleet: Fleet, tmp_path: Path, arguments: list[str], cuda: list[str], said: str
) -> None:
    machine = fleet(fleets.nvidia(4))
    said = said.format("4 NVIDIA GPUs (H100 80GB HBM3, 80 GiB)")
    ended = run_on(
        machine, tmp_path, *arguments, "--fkit-cpu-workers=2", workers=len(cuda),
        env={"SEEN_ANYWHERE": "1"},
    )  # fmt: skip
    assert ended.inner.status == 0
    assert [masks(seen, "CUDA") for seen in ended.seen.values()] == cuda
    assert [seen.worker for seen in ended.seen.values()] == list(range(len(cuda)))
    assert [seen.gpus for seen in ended.seen.values()][-2:] == [[], []]
    assert ended.header[0].startswith(f"fkit: {said}")
    shown = run_pytest(
        tmp_path, "--fkit", *arguments, "--fkit-cpu-workers=2", "--collect-only", "test_seen.py",
        env={**machine, "PYTHONPATH": ".", "SEEN_IN": str(tmp_path)},
    )  # fmt: skip
    assert any(line.startswith(f"fkit: {said}") for line in shown.lines), shown.out


def test_workers_without_gpus_where_there_are_none_or_no_workers(
    fleet: Fleet, tmp_path: Path
) -> None:
    ended = run_on(fleet(), tmp_path, "-n1", "--fkit-cpu-workers=1", workers=2)
    assert ended.header == ["fkit: 2 workers, isolation: function, timeout: 600 s"]
    for seen in ended.seen.values():
        assert "CUDA_VISIBLE_DEVICES" not in seen.environ
    alone = run_pytest(tmp_path, "--fkit", "-n0", "--fkit-cpu-workers=1", "--co", env=fleet())
    assert "fkit: no workers, isolation: function, timeout: 600 s" in alone.lines
    each = run_pytest(tmp_path, "--fkit", "-n1", "--fkit-cpu-workers=1", "--dist=each", env=fleet())
    assert each.status == pytest.ExitCode.USAGE_ERROR
    assert "--fkit-cpu-workers: with --dist=each every worker runs every test" in each.err
