"""Workers on other machines: by a command, by ssh, in a Slurm allocation."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator, Mapping

import pytest
from inner_runs import run
from slurm_cluster import MISSING, Cluster, cluster

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

SUITE = {
    "conftest.py": """\
        import os, pathlib, pytest

        WORKER = os.getpid()
        HERE = pathlib.Path(os.environ["FKIT_INNER_DIR"])

        @pytest.fixture(autouse=True)
        def seen(request):
            name = os.environ["PYTEST_XDIST_WORKER"]
            node = os.environ.get("SLURMD_NODENAME", os.environ.get("MACHINE", ""))
            with open(HERE / "seen.txt", "a") as file:
                masks = os.environ.get("CUDA_VISIBLE_DEVICES")
                file.write(f"{name} {node} {WORKER} {masks} {os.getcwd()}\\n")
    """,
    "test_many.py": """\
        import time, pytest

        @pytest.mark.parametrize("number", range(40))
        def test_it(number, tmp_path):
            (tmp_path / "x").write_text("x")
            time.sleep(0.01)
    """,
}

needs_slurm = pytest.mark.skipif(bool(MISSING), reason=f"needs Slurm: no {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


def seen(directory: Path) -> dict[str, tuple[str, ...]]:
    """By worker: its machine, its pid, its mask and its directory."""
    lines = [line.split(" ") for line in (directory / "seen.txt").read_text().splitlines()]
    return {name: tuple(rest) for name, *rest in lines}


@needs_slurm
def test_an_allocation(slurm: Cluster, fleet: Fleet, tmp_path: Path) -> None:
    machine = fleet(fleets.nvidia(2))
    with slurm.allocated() as job:
        ended = run(
            tmp_path, SUITE, "--fkit", "--fkit-machines=slurm", "--fkit-gpus-per-worker=1",
            env={**machine, **job},
        )  # fmt: skip
        assert slurm.steps(job["SLURM_JOB_ID"]) == []
    assert ended.status == 0, ended.stdout + ended.stderr
    assert len(ended.verdicts) == 40
    found = seen(tmp_path)
    assert {name: (each[0], each[2]) for name, each in found.items()} == {
        "gw0": ("n1", "0"), "gw1": ("n1", "1"), "gw2": ("n2", "0"), "gw3": ("n2", "1"),
    }  # fmt: skip
