"""How GPU errors read: the words of libraries, tracebacks, messages that point elsewhere."""

from __future__ import annotations

import functools
import re
from typing import Iterable, Iterator

from ...own import own_builtins
from ...protocol.event_file import GpuError
from .error_table import CATEGORIES, Category
from .failure import Failure

own_builtins(globals())

# --- libraries ----------------------------------------------------------------------------------

# A library's name, up to what it says: "CUDA driver error: ", "Triton Error [HIP]: Code: 2,
# Messsage: ", "CUDA runtime error in ::cudaMallocAsync(ptr, n, …): ", "Cuda failure 2 '",
# "cuMemAlloc failed: ", "jaxlib/….cc:12: operation gpuMalloc(…) failed: ", "error( cudaError…): ".
_SPEAKER = (
    r"(?:(?:CUDA|\bHIP|Triton Error|\bXPU|\bNPU|CUBLAS|CUDNN|cuSolver|cuSPARSE|\boperation gpu"
    r"|Gpu API call|\bFailed to (?:plan|run|launch)\b"
    r"|(?-i:\bcu(?:da)?[A-Z]\w+|\bhip[A-Z]\w+))"
    r"[^\n]{0,160}?(?:[:='\"`(\[,\])]|\d|-) *"
    r"|\bfailed with error(?: code)?:? )"
)
_NAME = r"\b(?:CUDA_ERROR_|(?:cuda|hip)Error)"

# An error's number without its name: numba's "[700] Call to cuMemcpyDtoH results in …",
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
    """By category, in their order, the regular expression of its exact texts.

    Compiled when it is needed: most workers meet no failure that could be a GPU error.
    """
    return tuple((each, _compiled(_parts(each))) for each in CATEGORIES if any(_parts(each)))


@functools.lru_cache(maxsize=None)
def vague() -> tuple[tuple[Category, re.Pattern[str]], ...]:
    """By category, the regular expression to try where no exact one matches."""
    return tuple((each, _compiled(each.vague)) for each in CATEGORIES if each.vague)


@functools.lru_cache(maxsize=None)
def fatal() -> tuple[tuple[Category, re.Pattern[str]], ...]:
    """By category, the regular expression for the output of a process that died."""
    return tuple(
        (each, _compiled((*_parts(each), *each.vague))) for each in CATEGORIES if each.deaths
    )


def number_in(text: str) -> int | None:
    """The number of a CUDA or HIP error in a message, if any."""
    found = _NUMBERED.search(text)
    return None if found is None else int(found["call"] or found["number"])


def _parts(category: Category) -> tuple[str, ...]:
    names = category.names.replace("_", "_?")
    return (
        *([rf"{_NAME}(?:{names})\b"] if names else ()),
        *category.patterns,
        *([rf"{_SPEAKER}(?:{'|'.join(category.after)})"] if category.after else ()),
    )


def _compiled(parts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE)


# --- machines ---------------------------------------------------------------------------------

_OF_MACHINE = ("missing", "port")

# Memory that the host locks for GPUs: CUDA's runtime and driver, HIP's runtime.
_LOCKED = re.compile(r"(cuda|hip)(Host(Alloc|Malloc|Register)|MallocHost)|cuMem(AllocHost|Host)")


def is_rather_the_machines(error: GpuError) -> bool:
    """Whether an error is rather the machine's than one GPU's, so that another is preferred."""
    return error.category in _OF_MACHINE or bool(_LOCKED.search(error.text))


# --- tracebacks ---------------------------------------------------------------------------------

_HEADER = "Traceback (most recent call last):"
# The text before it on the line is the prefix of a rank, an actor or a logger: `[rank1]: ` of
# PyTorch's workers, `(EngineCore_0 pid=7) ERROR 05-10 16:00:15 [core.py:396] ` of vLLM's. Ray's
# RayTaskError has frames and no header.
_FRAME = re.compile(r'(?P<prefix>[^"]*?)  File "[^"]+", line \d+')
_DIGITS = re.compile(r"\d+")
_EXCEPTION = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Warning|Failed)\b")
_WHAT = re.compile(r"\bwhat\(\): ")  # libstdc++, of an exception that nobody caught
_ABORT = re.compile(r"\bHW Exception by GPU node-\d")  # ROCr, runtime.cpp, before it aborts

_QUOTING = (
    "AssertionError",
    "AttributeError",
    "CalledProcessError",
    "DocTestFailure",
    "Failed",
    "IndentationError",
    "IndexError",
    "KeyError",
    "LookupError",
    "NameError",
    "SyntaxError",
    "TimeoutExpired",
    "UnboundLocalError",
)
"""Names of exceptions whose messages quote values, keys, names, a command."""

_QUOTED = re.compile(rf"(?:\w+\.)*(?:{'|'.join(_QUOTING)})\b")
_CONTINUED = 8
"""Lines of a message that are searched where its end is unknown."""


def said(text: str) -> str:
    """The text without source lines, frames, and the messages of exceptions that quote."""
    if _HEADER not in text and '  File "' not in text:
        return text
    return "\n".join(line for line, _ in _heard(text.splitlines()))


def raised(output: str) -> Iterator[str]:
    """What ended processes, by their output: messages of exceptions, with the lines that follow."""
    message: list[str] = []
    ended = True
    for line, began in _heard(output.splitlines()):
        found = _WHAT.search(line)
        if found or _ABORT.search(line) or (began and _EXCEPTION.match(line)):
            yield from _joined(message)
            message, ended = [line[found.end() :] if found else line], False
        elif began or not line.strip() or len(message) > _CONTINUED:
            ended = True
        elif not ended:
            message.append(line)
    yield from _joined(message)


def _joined(lines: list[str]) -> Iterator[str]:
    if lines:
        yield "\n".join(lines)


def _heard(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Lines that are neither source nor quoted, each with whether it is the first after frames."""
    heard, inside, first = True, False, False
    prefix: re.Pattern[str] | None = None
    for line in lines:
        frame = _FRAME.match(line)
        if frame or _HEADER in line:
            before = frame["prefix"] if frame else line[: line.index(_HEADER)]
            prefix = _like(before) if before else None
            heard = inside = True
            first = bool(frame)
            continue
        found = prefix.match(line) if prefix is not None else None
        rest = line[found.end() :] if found else line
        if inside and rest[:1].isspace() and not _WHAT.search(rest):
            continue  # a source line, or a marker below it
        if _QUOTED.match(rest):
            heard = False
        if heard:
            yield rest, first
        first = False


def _like(prefix: str) -> re.Pattern[str]:
    """The regular expression for a prefix with other times and numbers."""
    return re.compile(r"\d+".join(re.escape(each) for each in _DIGITS.split(prefix)))


# --- exceptions that only say that another process failed ----------------------------------------

_CLASSES = {
    "concurrent.futures.process.BrokenProcessPool",
    "joblib.externals.loky.process_executor.TerminatedWorkerError",
    "ray.exceptions.ActorDiedError",
    "ray.exceptions.ActorUnavailableError",
    "ray.exceptions.RayActorError",
    "ray.exceptions.WorkerCrashedError",
    "subprocess.CalledProcessError",
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError",
    "torch.multiprocessing.spawn.ProcessExitedException",
    "vllm.v1.engine.exceptions.EngineDeadError",
}

_PROCESS = r"(server|engine|scheduler|executor|worker|process|subprocess|rank|child)"
_GONE = r"(died|is dead|crashed|exited|terminated|killed|failed to start|returned error)"

_MESSAGE = re.compile(
    "|".join(
        (
            # vLLM, v1/engine/utils.py, v1/engine/exceptions.py, v1/executor/multiproc_executor.py,
            # engine/multiprocessing: "See root cause above", "See stack trace (above) for the root
            # cause", "please check the stack trace above for the root cause".
            r"\broot cause above|\bstack trace( \(?above\)?)? for (the )?root cause",
            # SGLang, entrypoints/engine.py and http_server.py; XLA's "Look at the errors above".
            r"(See|see|Look at) the errors?( messages)? above|\bcheck if there are relevant logs",
            # vLLM's and SGLang's tests, TensorRT-LLM's executor, accelerate, MPI's launchers.
            rf"\b{_PROCESS}\b[^\n]{{0,80}}\b{_GONE}\b",
            r"\b(failed|exited|returned) with (return ?code|exit (code|status)|signal|status)\b",
            r"\bnon-?zero exit (status|code)\b",
        )
    ),
    re.IGNORECASE,
)


# Assertions that compare nothing of the test's: vLLM's tests/utils.py, of a test that it ran in a
# fork; PyTorch's common_distributed.py, of a rank.
_FORKED = re.compile(
    r"^(function|Test) \S+ failed when called with args [^\n]*\(exit code: -?\d+\)"
    r"|^Expected exit code 0 but got -?\d+ for pid: \d+",
    re.MULTILINE,
)


def points(failure: Failure) -> bool:
    """Whether the exception says only that another process failed."""
    if "builtins.AssertionError" in failure.types:
        return _FORKED.search(failure.text) is not None
    return not _CLASSES.isdisjoint(failure.types) or bool(_MESSAGE.search(failure.text))
