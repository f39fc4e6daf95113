"""Ranks that a launcher started, told from a pytest that is alone."""

from __future__ import annotations

from typing import Mapping

import pytest

from pytest_fkit.gpu.slices.launchers import rank_of


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        # torchrun --nproc_per_node=8 -m pytest
        (
            {"LOCAL_RANK": "2", "RANK": "10", "LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "16"},
            "LOCAL_RANK=2 of 8 (torchrun)",
        ),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK=0 of 2 (torchrun)"),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK=3 (torchrun)"),
        ({"LOCAL_RANK": "1", "LOCAL_SIZE": "4"}, "LOCAL_RANK=1 of 4 (torchrun)"),
        (
            {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            "OMPI_COMM_WORLD_LOCAL_RANK=1 of 2 (mpirun)",
        ),
        ({"MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, "MPI_LOCALRANKID=1 of 2 (mpirun)"),
        (
            {"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2),1"},
            "SLURM_LOCALID=1 of 4 (srun)",
        ),
    ],
)
def test_ranks(environ: Mapping[str, str], said: str) -> None:
    assert rank_of(environ) == said


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": ""},
        {"LOCAL_RANK": "-1"},
        # One for each machine: its GPUs are all its own.
        {"LOCAL_RANK": "0", "RANK": "1", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2"},
        {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
        # A batch script, and a step of one task.
        {"SLURM_LOCALID": "0", "SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "8"},
        {"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"},
    ],
)
def test_alone(environ: Mapping[str, str]) -> None:
    assert rank_of(environ) == ""
