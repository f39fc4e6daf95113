"""Skips for too few GPUs, by the text of their reasons."""

from __future__ import annotations

import re

from ...own import own_builtins

own_builtins(globals())

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_NUMBER = rf"(\d+|{'|'.join(_WORDS)})"

# "GPUs", "CUDA devices", "visible GPUs", "H100 GPUs", "local devices", "ranks". Not "GPU memory".
_DEVICES = (
    r"(?:(?:CUDA|NVIDIA|ROCm|AMD|HIP|XPU|NPU|hardware|physical|visible|available|free|global|local"
    r"|or more|[A-Z]+\d+\w*)[ -])*"
    r"(?:GPUs?|devices?|accelerators?|XPUs?|HPUs?|NPUs?)\b(?! (?:memory|builds?|versions?|of)\b)"
)
_DEMAND = (
    r"(?:needs?|requires?|required|requiring|wants?|expects?|only runs? on)\b"
    r"(?! (?:less|fewer|at most|up to|no more|exactly one)\b)"
)
_AT_LEAST = r"(?:(?:at least|minimum(?: of)?|>=|≥) ?)?"
_COUNT = r"(?:device_count\(\)|num_gpus|n_gpus?|gpu_count|num_devices|ngpus?|GPUs)"
_BUT_HAS = r"(?:but )?(?:only )?\d+ (?:are )?(?:available|found|visible)\b"
_TOO_MUCH = r"(?:greater|larger|more|bigger|exceeds|>|only|but|available|GPUs)"

# From: PyTorch (common_distributed.py, TEST_SKIPS and requires_world_size; common_device_type.py,
# deviceCountAtLeast; test_c10d_nccl.py), vLLM (tests/utils.py), Transformers (testing_utils.py),
# Accelerate (test_utils/testing.py), JAX (test_util.py), Lightning (helpers/runif.py), DeepSpeed
# (tests/unit/common.py), and reasons of suites.
_NUMBERED = (
    rf"\b{_DEMAND}[^.;\d]{{0,24}}?\b{_AT_LEAST}{_NUMBER}\+? {_DEVICES}",
    rf"\bat least {_NUMBER} {_DEVICES}",
    rf"\b{_NUMBER}\+? {_DEVICES} (?:(?:are|is) )?(?:required|needed)\b",
    rf"\b{_NUMBER} (?:are )?(?:required|needed|requested),? {_BUT_HAS}",
    # "fewer than 2 devices detected", "Skip if less than 2 GPUs", "Device count 2 is less than 4",
    # but not "test requires less than 3 GPUs".
    rf"(?<!requires )(?<!needs )\b(?:fewer|less) than {_NUMBER} {_DEVICES}",
    rf"\b(?:device|GPU)s?(?: |_)?count\b[^.;<]{{0,24}}? (?:less|smaller|lower) than {_NUMBER}\b",
    # A condition as a string, "condition: torch.cuda.device_count() < 2"; Lightning's "[GPUs>=2]".
    rf"\b{_COUNT} ?(?:<|>=) ?{_NUMBER}\b",
    # "world_size 4 is greater than available_gpus 2", "requires world size of 4, but only 2 …".
    rf"\bworld[_ ]size[^\d.;]{{0,8}}{_NUMBER}\b[^.;]{{0,40}}?{_TOO_MUCH}",
    rf"\b{_DEMAND} (?:a )?world[_ ]size (?:of )?(?:at least |>= ?)?{_NUMBER}\b",
    rf"\bTest requires {_NUMBER} global devices",  # JAX, create_mesh
)

_WHAT_IS_SAID = tuple(
    (re.compile(pattern, re.IGNORECASE), more)
    for pattern, more in (
        (rf"\bmore than {_NUMBER} {_DEVICES}", 1),
        *((pattern, 0) for pattern in _NUMBERED),
    )
)
"""Each with the difference between the wanted number and the one in the text."""

_NOT_THERE = r"(?:not (?:supported|available)|required|needed|unavailable)"
_SEVERAL = re.compile(
    "|".join(
        (
            rf"\b(?:requires?|needs?|required|on) (?:multiple|several) {_DEVICES}",
            r"\b(?:requires?|needs?) (?:an? )?multi[- ]?(?:GPU|device|accelerator)\b",
            rf"\bmulti[- ]?(?:GPU|device)s?(?: \w+){{0,2}}? (?:is |are )?{_NOT_THERE}",
            r"\bno multi[- ]?GPU\b",
            r"\b(?:only|just) (?:one|1|a single) (?:GPU|device)\b",
            r"\bdetected only (?:one|1) (?:GPU|device)\b",
        )
    ),
    re.IGNORECASE,
)

# The wanted number is not in the text: vLLM's tests/distributed, a world size of 2, 4 or 8.
_MORE = re.compile(
    r"\b(?:Not enough|Insufficient(?: number of)?|Too few)(?: \w+)? (?:GPU|device|accelerator)s\b"
    r"(?! memory)",
    re.IGNORECASE,
)


def wanted_gpus(reason: str, seen: int) -> int | None:
    """How many GPUs a test wants that skipped itself for this reason; None for another reason.

    :param seen: how many it saw. If the reason only says that they are not enough, it wants twice
        as many.
    """
    wanted = _numbered(reason)
    if wanted is None and _SEVERAL.search(reason):
        wanted = 2
    if wanted is None and _MORE.search(reason):
        wanted = 2 * seen
    return wanted if wanted is not None and wanted > seen else None


def _numbered(reason: str) -> int | None:
    for regex, more in _WHAT_IS_SAID:
        found = regex.search(reason)
        if found is not None:
            said = found[1].lower()
            return more + (_WORDS.index(said) + 1 if said in _WORDS else int(said))
    return None
