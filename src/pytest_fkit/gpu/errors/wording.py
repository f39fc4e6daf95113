"""How GPU libraries word errors: the regular expressions that error_table.py stands for."""

from __future__ import annotations

import functools
import re
from typing import Iterable

from ...own import own_builtins
from .error_table import CATEGORIES, Category

own_builtins(globals())

# Who speaks, up to where it says what happened: "CUDA driver error: ", "Triton Error [HIP]: Code:
# 2, Messsage: ", "CUDA runtime error in ::cudaMallocAsync(ptr, n, …): ", "Cuda failure 2 '",
# "cuMemAlloc failed: ", "jaxlib/….cc:12: operation gpuMalloc(…) failed: ", "error( cudaError…): ".
_SPEAKER = (
    r"(?:(?:CUDA|\bHIP|Triton Error|\bXPU|\bNPU|CUBLAS|CUDNN|cuSolver|cuSPARSE|\boperation gpu"
    r"|Gpu API call|\bFailed to (?:plan|run|launch)\b"
    r"|(?-i:\bcu(?:da)?[A-Z]\w+|\bhip[A-Z]\w+))"
    r"[^\n]{0,160}?(?:[:='\"`(\[,\])]|\d|-) *"
    r"|\bfailed with error(?: code)?:? )"
)
_NAME = r"\b(?:CUDA_ERROR_|(?:cuda|hip)Error)"

# The number, where nobody says its name: numba's "[700] Call to cuMemcpyDtoH results in …",
# FlashInfer's "cuLaunchKernelEx failed with error code 719", "CUDA error 700", "CUDA error
# code=700(", "CUDA driver error: 2" of PyTorch on ROCm.
_NUMBERED = re.compile(
    r"\[(?P<call>\d{1,3})\] Call to cu\w+ results in"
    r"|(?:\bCUDA|\bHIP|Triton Error \[\w+\]"
    r"|(?-i:\b(?:cu|hip)(?!BLAS|DNN|FFT|RAND|S[Oo]|S[Pp]|TENSOR)[A-Z]\w+|\bcuda[A-Z]\w+))[^\n]{0,120}?"
    r"\b(?:error|failure|status|code)(?: (?:code|number|status))?[ :=(#]{1,3}(?P<number>\d{1,3})\b"
    r"(?![.%/:]\d| (?:of|GPUs?|devices?|bytes|times|tests|elements|in)\b)",
    re.IGNORECASE,
)


@functools.lru_cache(maxsize=None)
def exact() -> tuple[tuple[Category, re.Pattern[str]], ...]:
    """By category, in their order, what says exactly that.

    When it is needed: most workers meet no failure that could be a GPU error.
    """
    return tuple((each, _compiled(_parts(each))) for each in CATEGORIES if any(_parts(each)))


@functools.lru_cache(maxsize=None)
def vague() -> tuple[tuple[Category, re.Pattern[str]], ...]:
    """By category, what is tried where nothing is exact."""
    return tuple((each, _compiled(each.vague)) for each in CATEGORIES if each.vague)


@functools.lru_cache(maxsize=None)
def fatal() -> tuple[tuple[Category, re.Pattern[str]], ...]:
    """By category, what a process may have printed that died of it."""
    return tuple(
        (each, _compiled((*_parts(each), *each.vague))) for each in CATEGORIES if each.deaths
    )


def number_in(text: str) -> int | None:
    """The number of an error of CUDA or HIP."""
    found = _NUMBERED.search(text)
    return None if found is None else int(found["call"] or found["number"])


def _parts(category: Category) -> tuple[str, ...]:
    names = "|".join(each.replace("_", "_?") for each in category.names)
    return (
        *([rf"{_NAME}(?:{names})\b"] if names else ()),
        *category.patterns,
        *([rf"{_SPEAKER}(?:{'|'.join(category.after)})"] if category.after else ()),
    )


def _compiled(parts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)
