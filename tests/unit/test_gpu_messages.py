"""How GPU libraries word errors, by the files of theirs that do, and what only points or quotes."""

# ruff: noqa: E501 (messages stay as they are)

from __future__ import annotations

import subprocess

import pytest
from gpu_messages import MESSAGES, Message

from pytest_fkit.gpu.errors.classification import classify
from pytest_fkit.gpu.errors.failure import Failure, failure_of, keep_printed
from pytest_fkit.gpu.errors.wording import points
from pytest_fkit.protocol.event_file import GpuError

_BASES = (
    "builtins.RuntimeError",
    "builtins.Exception",
    "builtins.BaseException",
    "builtins.object",
)


def _category(text: str, *types: str, printed: str = "") -> str:
    found = _found(text, *types, printed=printed)
    return "" if found is None else found.category


def _found(text: str, *types: str, printed: str = "") -> GpuError | None:
    return classify(Failure((*types, *_BASES), text, printed=printed))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: f"{each.source}-{each.category}")
def test_messages(message: Message) -> None:
    assert _category(message.text, message.type) == message.category


_FRAMES = """\
Traceback (most recent call last):
  File "/suite/train.py", line 7, in main
    raise Fault("CUDA error: uncorrectable ECC error encountered")
          ^^^^^
{}
"""
# What PyTorch's launchers, mpirun, srun, vLLM, SGLang, ray and loggers put before lines.
_PREFIXES = (
    "", "[rank1]: ", "[default0]:", "[1,0]<stderr>:", "3: ",
    "(EngineCore_0 pid=17) ERROR 05-10 16:00:15 [core.py:396] ",
    "\x1b[36m(RayWorkerWrapper pid=9)\x1b[0m ", "[2026-05-10 16:00:15 TP2] ",
)  # fmt: skip


def _traceback(last: str, prefix: str = "", header: bool = True) -> str:
    lines = _FRAMES.format(last).splitlines()
    return "".join(f"{prefix}{line}\n" for line in lines[0 if header else 1 :])


@pytest.mark.parametrize("prefix", _PREFIXES)
@pytest.mark.parametrize("header", [True, False])
def test_source_lines_are_not_what_was_raised(prefix: str, header: bool) -> None:
    for last in (
        "ValueError: 3",
        "AssertionError: 'CUDA out of memory' in 'x'",
        "KeyError: 'no GPU'",
    ):
        assert _category(f"it failed\n{_traceback(last, prefix, header)}") == ""
    text = _traceback("RuntimeError: CUDA error: invalid device ordinal", prefix, header)
    assert _category(text) == "ordinal"
    later = text.replace("16:00:15", "16:01:07") + f"{prefix}done\n"
    assert _category(later) == "ordinal"


def test_an_assertion_that_quotes_a_traceback() -> None:
    quoted = _traceback("RuntimeError: CUDA error: unspecified launch failure")
    assert _category(f"assert 1 == 0\n{quoted}", "builtins.AssertionError") == ""


_CHILD_FAILED = """
====
x.py FAILED
----
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : 1 (pid: 69812)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
"""
_POINTING = (
    ("Engine core initialization failed. See root cause above. Failed core proc(s): {}", ""),
    ("EngineCore encountered an issue. See stack trace (above) for the root cause.",
     "vllm.v1.engine.exceptions.EngineDeadError"),
    ("WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.", ""),
    ("Initialization failed. Please see the error messages above.", ""),
    ("Rank 0 scheduler is dead. Please check if there are relevant logs.", ""),
    ("Command '['torchrun', 'x.py']' returned non-zero exit status 1.", "subprocess.CalledProcessError"),
    (_CHILD_FAILED, "torch.distributed.elastic.multiprocessing.errors.ChildFailedError"),
    ("process 1 terminated with signal SIGABRT", "torch.multiprocessing.spawn.ProcessExitedException"),
    ("A process in the process pool was terminated abruptly while the future was running or pending.",
     "concurrent.futures.process.BrokenProcessPool"),
    ("Server exited unexpectedly.", ""),
    # vLLM, tests/utils.py; PyTorch, common_distributed.py; DeepSpeed, tests/unit/common.py
    ("function test_x failed when called with args () and kwargs {'tp': 2} (exit code: 6)",
     "builtins.AssertionError"),
    ("Scalars are not equal!\n\nExpected 0 but got -6.\nExpected exit code 0 but got -6 for pid: 7\n",
     "builtins.AssertionError"),
    ("Worker 1 killed by signal 6", "_pytest.outcomes.OutcomeException"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "type_"), _POINTING)
def test_the_cause_is_in_what_the_test_printed(text: str, type_: str) -> None:
    types = (type_,) if type_ else ()
    printed = _traceback(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", "[rank0]: "
    )
    error = _found(text, *types, printed=f"INFO starting\n{printed}INFO ended\n")
    assert error is not None
    assert (error.category, error.poisons) == ("memory", False)
    assert error.text == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."
    uncaught = (
        "terminate called after throwing an instance of 'c10::Error'\n"
        "  what():  CUDA error: uncorrectable ECC error encountered\nException raised from x\n"
    )
    assert _category(text, *types, printed=uncaught) == "device"
    hang = "(EngineCore pid=7) HW Exception by GPU node-9 (Agent handle: 0x63) reason :GPU Hang\n"
    assert _category(text, *types, printed=f"INFO starting\n{hang}") == "suspect"
    several = _traceback(
        "torch.distributed.DistBackendError: NCCL error in: x\nLast error:\nCuda failure 700"
    )
    assert _category(text, *types, printed=several) == "sticky"


@pytest.mark.parametrize(("text", "type_"), _POINTING)
@pytest.mark.parametrize(
    "printed",
    [
        "",
        "INFO CUDA out of memory, trying with less\n",
        _traceback("ValueError: no such model"),
        _traceback("AssertionError: CUDA out of memory"),
        _traceback("ValueError: no such model") + "\nINFO before that: CUDA out of memory\n",
    ],
)
def test_what_is_no_cause_there(text: str, type_: str, printed: str) -> None:
    assert _category(text, *((type_,) if type_ else ()), printed=printed) == ""


def test_what_says_itself_what_happened_does_not_point() -> None:
    printed = _traceback("torch.OutOfMemoryError: CUDA out of memory.")
    assert _category("no such model", printed=printed) == ""
    assert _category("CUDA error: misaligned address; worker exited", printed=printed) == "sticky"
    assert _category("assert 1 == 0, worker died", "builtins.AssertionError", printed=printed) == ""


def test_a_traceback_in_the_message_of_an_assertion_that_compares_nothing() -> None:
    failed = "Test test_x failed when called with args () and kwargs {} (exit code: 256):\n"
    assert _category(failed + _traceback("ValueError: 3"), "builtins.AssertionError") == ""
    with_cause = _traceback("x.EngineError: CUDA error: hardware stack error")
    error = _found(failed + with_cause, "builtins.AssertionError")
    assert error is not None
    assert error.text == "x.EngineError: CUDA error: hardware stack error"


@pytest.mark.parametrize("first", [
    "Error raised in subprocess:",  # vLLM, tests/utils.py
    "Process 1 exited with error code 10 and exception:",  # PyTorch, common_distributed.py
    "-- Process 0 terminated with the following error:",  # PyTorch, multiprocessing/spawn.py
])  # fmt: skip
def test_what_another_process_raised_is_named(first: str) -> None:
    last = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    error = _found(f"{first}\nWARNING something\n{_traceback(last)}\nTo execute this test, run it")
    assert error is not None
    assert (error.category, error.text) == ("memory", last)


def test_a_subprocess_whose_output_the_exception_has() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        subprocess.run(["sh", "-c", "printf '  what():  CUDA error: hardware stack error' >&2; exit 3"],
                       check=True, capture_output=True)  # fmt: skip
    failure = failure_of(raised.value)
    assert points(failure)
    error = classify(failure)
    assert error is not None
    assert error.category == "device"


def test_what_was_printed_stays_with_the_exception_of_a_cached_fixture() -> None:
    error = RuntimeError("the server exited")
    assert keep_printed(error, "first") == "first"
    assert keep_printed(error, "") == "first"
