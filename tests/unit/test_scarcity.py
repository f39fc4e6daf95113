"""Skips for want of GPUs, told from other skips."""

from __future__ import annotations

import pytest

from pytest_fkit.gpu.errors.scarcity import wanted_gpus


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("test requires multiple CUDA GPUs", 2),
        ("test requires multiple GPUs", 2),
        ("test requires multiple accelerators", 2),
        ("test requires multiple hardware accelerators", 2),
        ("test requires multiple XPUs", 2),
        ("Skipped: test requires multiple HPUs", 2),
        ("test requires >= 4 accelerators", 4),
        ("Need at least 2 CUDA devices", 2),
        ("Need at least 8 CUDA devices", 8),
        ("Need at least 4 GPUs to run the test.", 4),
        ("Need at least 3 CUDA GPUs to run the test.", 3),
        ("Not enough GPUs to run the test.", 2),
        ("requires 4 GPUs, found 1", 4),
        ("NCCL test requires 2+ GPUs", 2),
        ("XCCL test requires 2+ GPUs", 2),
        ("fewer than 2 devices detected", 2),
        ("only one GPU detected", 2),
        ("detected only one GPU", 2),
        ("Test requires 8 global devices.", 8),
        ("Requires: [GPUs>=2]", 2),
        ("Requires: [torch>=2.9, 2.8 installed. + GPUs>=4]", 4),
        ("This test requires at least 2 GPUs", 2),
        ("multi-GPU not supported", 2),
        ("4 GPUs required", 4),
        ("needs 4 gpus", 4),
        ("Requires more than one GPU", 2),
        ("requires multiple GPUs", 2),
        ("Need at least two GPUs", 2),
        ("Skip if less than 2 GPUs", 2),
        ("Device count 1 is less than 4", 4),
        ("Skipping test because not enough GPUs are available: 4 required, 1 available", 4),
        ("world_size 4 is greater than available_gpus 1", 4),
        ("requires world size of 4, but only 1 GPUs available", 4),
        ("condition: torch.cuda.device_count() < 2", 2),
        ("Not enough devices", 2),
        ("requires 8 H100 GPUs", 8),
    ],
)
def test_too_few(reason: str, wanted: int) -> None:
    assert wanted_gpus(reason, 1) == wanted
    assert wanted_gpus(str(("test_it.py", 3, f"Skipped: {reason}")), 1) == wanted


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "test requires CUDA",
        "test requires 0 or 1 accelerator",
        "test requires less than 3 GPUs",
        "Need at least 40GB GPU memory to run the test.",
        "Need at least 1 CUDA device",
        "CUDA is not available.",
        "No GPU found",
        "Skipped due to small world size.",
        "requires at least 2 nodes",
        "test requires multiple files",
        "Need NCCL 2.27+ for shrink_group",
        "requires multiple devices of a phone",
        "Insufficient memory",
        "requires 80 GB GPU memory",
        "requires compute capability 9.0 GPUs",
        "requires a PyTorch 2 GPU build",
        "only runs on one GPU",
        "requires at most 2 GPUs",
        "multi-GPU tests are slow",
    ],
)
def test_another_reason(reason: str) -> None:
    assert wanted_gpus(reason, 1) is None


def test_who_saw_as_many_as_it_wants_has_another_reason() -> None:
    assert wanted_gpus("Need at least 4 GPUs to run the test.", 2) == 4
    assert wanted_gpus("Need at least 4 GPUs to run the test.", 4) is None
    assert wanted_gpus("test requires multiple GPUs", 2) is None
    assert wanted_gpus("Not enough GPUs to run the test.", 2) == 4
