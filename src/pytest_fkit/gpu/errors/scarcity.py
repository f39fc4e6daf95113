"""Skips for want of GPUs, or of more GPUs, by the text of their reasons."""

from __future__ import annotations

import re

from ...own import own_builtins

own_builtins(globals())

# --- none at all ----------------------------------------------------------------------------------

_OF_VENDORS = r"(cuda|nvidia|rocm|hip|amd|xpu|npu)"
_ANY = r"(cuda|rocm|hip|xpu|gpus?|accelerators?)"
_EITHER = rf"({_ANY} ?(/|or) ?)?{_ANY}"

NONE_THERE = (
    rf"no ({_OF_VENDORS} |gpu |accelerator |available |visible |usable )?(gpus?|devices?|cuda)"
    r"( (is |are )?(found|available|visible|detected))?"
    rf"|{_EITHER}( devices?)?( is| are| was)?"
    r" (not (found|available|visible|detected)|unavailable|missing)"
    rf"|{_EITHER}( devices?)?( is| are)? (required|needed)( for [\w ./-]{{1,40}})?"
)
"""Texts that say as a whole that there is no GPU."""

# As a whole, since "requires CUDA 12" is another thing. From transformers, accelerate, diffusers,
# peft ("test requires CUDA", "test requires a GPU or XPU", "test requires accelerator+PyTorch"),
# PyTorch ("CUDA is not available.", "Need at least 1 CUDA device"), torchtitan ("symmetric memory
# requires CUDA"), JAX ("Works only on GPU", "Test requires an NVIDIA GPU"), DeepSpeed ("This test
# runs only on GPU"), torchmetrics ("Test requires cuda, but GPU not available."), and pytest, of a
# condition that is a text.
_LACKS_ANY = re.compile(
    rf"\W*((skip\w*( this| the)?( tests?)?\W+)?((if|since|because|as) )?({NONE_THERE})"
    r"|(condition: )?not torch\.cuda\.is_available\(\)"
    r"|(?!.*\b(no|not|without)\b.*\b(requires?|needs?)\b)([\w./+()-]+ ){0,8}?"
    r"(requires?|needs?|only (runs?|works?|supported) (on|in|with)"
    r"|(runs?|works?|tests?) only (on|in|with|for))"
    rf"( an?| the| at least (one|1)| 1)?( ({_OF_VENDORS}([- ](capable|enabled))?|hardware|or|an?))*"
    rf" (pytorch[+ ])?{_ANY}(\+pytorch)?( or (an? )?{_ANY})*"
    r"( (devices?|gpus?|accelerators?|machines?|environments?|support|availability))?"
    r"( to run| to be available)?(, (but|got) [\w ]{1,40})?)\W*",
    re.IGNORECASE,
)
_LONG = 200

_WANTS_SEVERAL = re.compile(
    r"multi|at least (?!1\b|one\b)\w+|\b([2-9]|1\d) |more than|\btwo\b|several|peer", re.IGNORECASE
)

# PyTorch calls AMD's GPUs CUDA devices, too.
_NAMES = {
    "nvidia": {"cuda", "nvidia"},
    "amd": {"rocm", "hip", "amd", "cuda"},
    "intel": {"xpu"},
    "ascend": {"npu"},
}
"""By vendor, the words that mean its GPUs; :mod:`..devices` has the vendors."""

_NAMED = re.compile(rf"\b{_OF_VENDORS}s?\b", re.IGNORECASE)


def lacks_any(reason: str) -> bool:
    """Whether a test skipped itself because it sees no GPU, by the first line of its reason."""
    return len(reason) < _LONG and _LACKS_ANY.fullmatch(reason) is not None


def wants_several(reason: str) -> bool:
    """Whether a reason, if it is about GPUs, may be about their number."""
    return _WANTS_SEVERAL.search(reason) is not None


def asks_for_others(reason: str, vendor: str) -> bool:
    """Whether a reason names GPUs of other vendors only, as in "Only run on ROCm".

    :param vendor: whose GPUs the test had, "" if unknown.
    """
    named = {found[1].lower() for found in _NAMED.finditer(reason)}
    return bool(named) and named.isdisjoint(_NAMES.get(vendor, named))


# --- too few --------------------------------------------------------------------------------------

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
    rf"\b(?:at least|only >=) ?{_NUMBER} {_DEVICES}",
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
    rf"\b{_DEMAND} (?:a )?world[_ ]size ?(?:of |==? ?)?(?:at least |>= ?)?{_NUMBER}\b",
    rf"\bTest requires {_NUMBER} global devices",  # JAX, create_mesh
)

_WHAT_IS_SAID = tuple(
    (re.compile(pattern, re.IGNORECASE), more)
    for pattern, more in (
        (rf"\b(?:more than|{_DEMAND}[^.;\d>]{{0,24}}?>) ?{_NUMBER} {_DEVICES}", 1),
        *((pattern, 0) for pattern in _NUMBERED),
    )
)
"""Each with the difference between the wanted number and the one in the text."""

_NOT_THERE = r"(?:not (?:supported|available)|required|needed|unavailable)"
_SEVERAL = re.compile(
    "|".join(
        (
            rf"\b(?:requires?|needs?|required|on) (?:multiple|several) {_DEVICES}",
            r"\b(?:requires?|needs?) (?:an? )?multi[- ]?(?:GPU|device|accelerator)s?\b",
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
