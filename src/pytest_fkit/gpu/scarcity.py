"""Skips that say: too few GPUs."""

from __future__ import annotations

import re

from ..own import own_builtins

own_builtins(globals())

_DEVICES = r"(?:CUDA |hardware )?(?:GPUs|GPU|devices|device|accelerators|XPUs|HPUs|NPUs)\b"

_NUMBERED = re.compile(
    "|".join(
        (
            # PyTorch, common_distributed.py, TEST_SKIPS: "Need at least 4 CUDA devices"; vLLM,
            # tests/utils.py, multi_gpu_marks: "Need at least 4 GPUs to run the test."
            rf"\b(?:needs?|requires?|required) at least (\d+) {_DEVICES}",
            # Transformers, testing_utils.py, require_torch_n_accelerators.
            rf"test requires >= (\d+) {_DEVICES}",
            # PyTorch, common_distributed.py, requires_world_size; test_c10d_nccl.py and others.
            r"\brequires (\d+) GPUs, found \d",
            r"\btest requires (\d+)\+ GPUs",
            # PyTorch, common_device_type.py, deviceCountAtLeast.
            r"\bfewer than (\d+) devices detected",
            # JAX, test_util.py, create_mesh.
            r"\bTest requires (\d+) global devices",
            # Lightning, helpers/runif.py.
            r"\bRequires: \[.*\bGPUs>=(\d+)",
        )
    ),
    re.IGNORECASE,
)

_SEVERAL = re.compile(
    "|".join(
        (
            # Transformers, testing_utils.py, require_torch_multi_gpu, _accelerator, _xpu, _hpu;
            # Accelerate, test_utils/testing.py, require_multi_device, _gpu, _xpu.
            rf"\btest requires multiple {_DEVICES}",
            # PyTorch, test_cuda_multigpu.py and others.
            r"\bonly one GPU detected",
            r"\bdetected only one GPU",
        )
    ),
    re.IGNORECASE,
)

# vLLM, tests/distributed: a world size of 2, 4 or 8 is compared with the number of GPUs.
_MORE = re.compile(r"\bNot enough GPUs\b", re.IGNORECASE)


def wanted_gpus(reason: str, seen: int) -> int | None:
    """How many GPUs a test wants that skipped itself for this reason; None if that is not why.

    :param seen: how many it saw; one that wants no more has another reason. Where the reason says
        only that they are not enough, it is twice as many.
    """
    match = _NUMBERED.search(reason)
    if match is not None:
        wanted = int(next(filter(None, match.groups())))
    elif _SEVERAL.search(reason):
        wanted = 2
    elif _MORE.search(reason):
        wanted = 2 * seen
    else:
        return None
    return wanted if wanted > seen else None
