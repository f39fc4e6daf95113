"""Which failures are a GPU's: messages as frameworks write them, and what only quotes them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_fkit.gpu.errors.classification import classify, named
from pytest_fkit.gpu.errors.error_table import CATEGORIES
from pytest_fkit.gpu.errors.failure import Failure
from pytest_fkit.gpu.errors.patterns import NAMES, parse_patterns
from pytest_fkit.gpu.errors.scarcity import wanted_gpus
from pytest_fkit.protocol.event_file import GpuError

_ADVICE = """
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace \
below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""

_OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 14.57 GiB of "
    "which 1.58 GiB is free. Process 2493055 has 12.02 GiB memory in use. See documentation for "
    "Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)

_NO_JAX_BACKEND = (
    "Unknown backend: 'gpu' requested, but no platforms that are instances of gpu are present. "
    "Platforms present are: cpu"
)

MESSAGES = [
    ("fork", "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing"),
    ("fork", "CUDA initialized before forking"),
    ("fork", "libgomp: fork() called from a process already using GNU OpenMP, this is unsafe."),
    ("usage", "out of resource: shared memory, Required: 294912, Hardware limit: 232448."),
    ("host", "ray.exceptions.OutOfMemoryError: Task was killed: the node running low on memory"),
    ("host", "[Errno 28] No space left on device: '/dev/shm/torch_1'"),
    ("host", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 32000 bytes."),
    ("host", "This might be caused by insufficient shared memory (shm)."),
    ("host", "DataLoader worker (pid 249) is killed by signal: Bus error."),
    ("device", f"CUDA error: uncorrectable ECC error encountered{_ADVICE}"),
    ("device", f"CUDA error: uncorrectable NVLink error detected during the execution{_ADVICE}"),
    ("device", f"CUDA error: hardware stack error{_ADVICE}"),
    ("device", "[214] Call to cuCtxSynchronize results in CUDA_ERROR_ECC_UNCORRECTABLE"),
    ("device", "Unable to determine the device handle for GPU: GPU is lost."),
    ("memory", _OUT_OF_MEMORY),
    ("memory", "HIP out of memory. Tried to allocate 20.00 MiB."),
    ("memory", "XPU out of memory. Tried to allocate 20.00 MiB."),
    ("memory", f"CUDA error: out of memory{_ADVICE}"),
    ("memory", "Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"),
    ("memory", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 85899345920 bytes."),
    ("memory", "Out of memory allocating 8,000,000,000 bytes (allocated so far: 0 bytes)."),
    ("memory", "std::bad_alloc: out_of_memory: CUDA error at: rmm/mr/device"),
    ("memory", "Free memory on device (1/79 GiB) on startup is less than desired GPU memory"),
    ("memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("memory", "hipErrorOutOfMemory"),
    ("busy", f"CUDA error: CUDA-capable device(s) is/are busy or unavailable{_ADVICE}"),
    ("busy", "CUDA error: all CUDA-capable devices are busy or unavailable"),
    ("busy", "CUDA error: MPS client failed to connect to the MPS control daemon"),
    ("missing", "No CUDA GPUs are available"),
    ("missing", "No HIP GPUs are available"),
    ("missing", f"CUDA error: no CUDA-capable device is detected{_ADVICE}"),
    ("missing", f"HIP error: no ROCm-capable device is detected{_ADVICE}"),
    ("missing", "CUDA driver initialization failed, you might not have a CUDA gpu."),
    ("missing", "CUDA unknown error - this may be due to an incorrectly set up environment"),
    ("missing", "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions"),
    ("missing", "Unable to initialize backend: no supported devices found for platform CUDA"),
    ("missing", "Backend 'cuda' is not in the list of known backends: ['cpu', 'tpu']."),
    ("missing", _NO_JAX_BACKEND),
    ("missing", "Unknown backend cuda. Available backends are ['cpu']"),
    ("missing", "GPU not found"),
    ("missing", "this machine has no GPU"),
    ("missing", "cudaErrorNoDevice"),
    ("missing", "hipErrorNoDevice"),
    ("build", f"CUDA error: no kernel image is available for execution on the device{_ADVICE}"),
    ("build", "hipErrorNoBinaryForGpu: Unable to find code object for all current devices!"),
    ("build", f"HIP error: invalid device function{_ADVICE}"),
    ("build", "CUDA driver version is insufficient for CUDA runtime version"),
    ("build", "HIP_VISIBLE_DEVICES contains more devices than ROCR_VISIBLE_DEVICES"),
    ("ordinal", f"CUDA error: invalid device ordinal{_ADVICE}"),
    ("sticky", f"CUDA error: an illegal memory access was encountered{_ADVICE}"),
    ("sticky", f"CUDA error: device-side assert triggered{_ADVICE}"),
    ("sticky", "device-side assert"),
    ("sticky", f"CUDA error: misaligned address{_ADVICE}"),
    ("sticky", f"CUDA error: an illegal instruction was encountered{_ADVICE}"),
    ("sticky", "cudaErrorIllegalAddress: an illegal memory access was encountered"),
    ("suspect", f"CUDA error: unspecified launch failure{_ADVICE}"),
    ("suspect", f"CUDA error: the launch timed out and was terminated{_ADVICE}"),
    ("suspect", f"CUDA error: unknown error{_ADVICE}"),
    ("suspect", "UR_RESULT_ERROR_DEVICE_LOST"),
    ("library", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle)`"),
    ("library", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    ("library", "NCCL error in: ProcessGroupNCCL.cpp:1275, unhandled cuda error, NCCL 2.18"),
    ("library", "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1)"),
    ("port", "The server socket has failed to listen on any local network address. EADDRINUSE"),
    ("other", f"CUDA error: invalid argument{_ADVICE}"),
    ("other", f"HIP error: invalid argument{_ADVICE}"),
]  # fmt: skip

SEED = (
    "CUDA out of memory", "CUDA error", "HIP error", "hipErrorNoBinaryForGpu",
    "hipErrorOutOfMemory", "NCCL error", "device-side assert", "GPU not found", "no GPU",
    "cudaErrorNoDevice", "hipErrorNoDevice",
)  # fmt: skip
"""What the project from which this one got its name retries."""


def _raised(text: str, *types: str, **others: object) -> GpuError | None:
    return classify(Failure(types or ("builtins.RuntimeError",), text, **others))  # type: ignore[arg-type]


@pytest.mark.parametrize(("category", "message"), MESSAGES)
def test_messages(category: str, message: str) -> None:
    error = _raised(message)
    rows = {each.name: each for each in CATEGORIES}
    if not rows[category].is_gpu:
        assert error is None
        of_machine = classify(Failure(("builtins.RuntimeError",), message), machines=True)
        assert (of_machine is not None) == (category == "host")
    else:
        assert error is not None
        assert error.category == category
        assert error.text == message.partition("\n")[0]
        assert error.retry


@pytest.mark.parametrize(
    ("types", "text", "category"),
    [
        ("numpy.core._exceptions._ArrayMemoryError", "Unable to allocate 745. GiB", "host"),
        ("builtins.MemoryError", "", "host"),
        ("builtins.OSError", "[Errno 12] Cannot allocate memory", "host"),
        ("cupy.cuda.memory.OutOfMemoryError", "Out of memory allocating 8 bytes", "memory"),
        ("pycuda._driver.MemoryError", "cuMemAlloc failed: out of memory", "memory"),
        ("builtins.MemoryError", "std::bad_alloc: out_of_memory: CUDA error at: rmm", "memory"),
    ],
)
def test_what_a_machine_lacks_is_told_from_what_a_gpu_lacks(
    types: str, text: str, category: str
) -> None:
    failure = Failure((types, "builtins.MemoryError", "builtins.Exception"), text)
    error = classify(failure, machines=True)
    assert error is not None
    assert (error.category, error.counts, error.probe) == (category, False, False)
    assert error.text == (text or "MemoryError")
    alone = classify(failure)
    assert (alone is None) == (category == "host")


def test_users_may_say_what_a_machine_lacks() -> None:
    own = parse_patterns(["host: arena exhausted"])
    failure = Failure(("builtins.RuntimeError",), "arena exhausted")
    assert classify(failure, own) is None
    error = classify(failure, own, machines=True)
    assert error is not None
    assert error.category == "host"


@pytest.mark.parametrize("pattern", SEED)
def test_what_the_seed_project_retries_gets_an_attempt_elsewhere(pattern: str) -> None:
    for text in (pattern, pattern.upper(), f"kernel.cu:12: {pattern}: something"):
        error = _raised(text)
        assert error is not None
        assert error.retry


@pytest.mark.parametrize(
    "message",
    [
        "Backend 'rocm' is not in the list of known backends: ['cpu', 'tpu', 'cuda'].",
        "Unknown backend rocm. Available backends are ['cuda', 'cpu']",
        "Unknown backend tpu. Available backends are ['cpu']",
    ],
)
def test_a_backend_that_was_asked_for_by_mistake_is_no_gpu_error(message: str) -> None:
    assert _raised(message) is None


def test_every_category_has_a_message_here_or_is_one_of_deaths() -> None:
    assert {each.name for each in CATEGORIES} == {name for name, _ in MESSAGES} | {"abort"}


@pytest.mark.parametrize(
    ("name", "counts", "probe", "poisons", "alone", "doubtful"),
    [
        ("device", True, True, True, False, False),
        ("memory", False, False, False, True, False),
        ("busy", True, True, False, False, False),
        ("missing", True, True, True, False, False),
        ("build", False, False, False, False, False),
        ("ordinal", False, True, False, False, False),
        ("sticky", False, True, True, False, True),
        ("suspect", True, True, True, False, True),
        ("library", True, True, True, False, True),
        ("port", False, False, False, False, False),
        ("other", True, False, False, False, True),
    ],
)
def test_what_a_category_calls_for(
    name: str, counts: bool, probe: bool, poisons: bool, alone: bool, doubtful: bool
) -> None:
    message = next(text for category, text in MESSAGES if category == name)
    text = message.partition("\n")[0]
    expected = GpuError(name, text, counts, probe, poisons, True, alone, doubtful=doubtful)
    assert _raised(message) == expected


@pytest.mark.parametrize(
    ("code", "category"),
    [
        (2, "memory"), (46, "busy"), (100, "missing"), (101, "ordinal"), (209, "build"),
        (214, "device"), (700, "sticky"), (710, "sticky"), (719, "suspect"), (1, "other"),
    ],
)  # fmt: skip
def test_a_number_says_more_than_the_message(code: int, category: str) -> None:
    types = ("torch.AcceleratorError", "builtins.RuntimeError")
    error = _raised("CUDA error: whatever, device-side assert", *types, error_code=code)
    assert error is not None
    assert error.category == category


def test_a_number_of_another_exception_says_nothing() -> None:
    assert _raised("it failed", "mine.HttpError", error_code=700) is None


def test_no_number_has_two_meanings() -> None:
    codes = [code for each in CATEGORIES for code in each.codes]
    assert len(codes) == len(set(codes))


_POOL = '''"""
Traceback (most recent call last):
  File "t.py", line 3, in f
    assert {!r} in log
AssertionError: assert {!r} in 'fine'
  + where {!r}
"""'''

_SPAWNED = """-- Process 0 terminated with the following error:
Traceback (most recent call last):
  File "t.py", line 3, in f
    raise ValueError(1)  # {!r}
ValueError: 1"""


@pytest.mark.parametrize(("category", "message"), MESSAGES)
@pytest.mark.parametrize(
    ("types", "form"),
    [
        (("builtins.AssertionError",), "assert {!r} in log"),
        (("builtins.AssertionError",), "assert 'fine' == {!r}\n  - {!r}"),
        (("unittest.Special", "builtins.AssertionError"), "{!r} != 'fine'"),
        (("builtins.Failed", "_pytest.outcomes.OutcomeException"), "DID NOT RAISE: {}"),
        (
            ("builtins.AssertionError",),
            "Regex pattern did not match.\n  Expected regex: 'x'\n  Actual message: {!r}",
        ),
        (("builtins.KeyError", "builtins.LookupError"), "{!r}"),
        (("builtins.AttributeError",), "module has no attribute {!r}"),
        (
            ("subprocess.CalledProcessError", "subprocess.SubprocessError"),
            "Command ['python', '-c', {!r}] returned non-zero exit status 1.",
        ),
        (
            ("multiprocessing.pool.RemoteTraceback", "builtins.Exception"),
            _POOL,
        ),
        (
            ("torch.multiprocessing.spawn.ProcessRaisedException", "builtins.Exception"),
            _SPAWNED,
        ),
    ],
)
def test_what_is_only_quoted(
    category: str, message: str, types: tuple[str, ...], form: str
) -> None:
    text = form.format(*[message.replace("\n", " ")] * 3)
    assert classify(Failure(types, text)) is None
    assert classify(Failure(types, text), parse_patterns(["CUDA"])) is None


def test_the_traceback_of_another_process_tells_what_was_raised_there() -> None:
    text = (
        "-- Process 0 terminated with the following error:\nTraceback (most recent call last):\n"
        '  File "t.py", line 3, in f\n    g()\nRuntimeError: CUDA error: unknown error'
    )
    error = _raised(text, "torch.multiprocessing.spawn.ProcessRaisedException")
    assert error is not None
    assert error.category == "suspect"


@pytest.mark.parametrize(
    "text",
    ["no GPU", "no GPU\nassert False", "GPU not found.\nassert is_available()", "CUDA unavailable"],
)
def test_an_assertion_whose_own_message_is_that_there_is_none(text: str) -> None:
    error = _raised(text, "builtins.AssertionError")
    assert error is not None
    assert error.category == "missing"


def test_pytorchs_own_assertion() -> None:
    error = _raised("Invalid device id", "builtins.AssertionError")
    assert error is not None
    assert error.category == "ordinal"
    assert _raised("assert 'Invalid device id' in text", "builtins.AssertionError") is None


def test_an_exception_from_which_another_was_raised() -> None:
    cause = Failure(("torch.OutOfMemoryError", "builtins.RuntimeError"), "it was")
    error = classify(Failure(("engine.DeadError",), "the engine died", causes=(cause,)))
    assert error is not None
    assert (error.category, error.text) == ("memory", "it was")


def test_what_is_more_exact_counts_wherever_it_is_in_the_chain() -> None:
    exact = Failure(("builtins.RuntimeError",), "CUDA error: uncorrectable ECC error encountered")
    vague = Failure(("builtins.RuntimeError",), "CUDA error in foo")
    for outer, inner in ((exact, vague), (vague, exact)):
        error = classify(Failure(outer.types, outer.text, causes=(inner,)))
        assert error is not None
        assert (error.category, error.text) == ("device", exact.text)


# --- skips ---


@pytest.mark.parametrize(
    "reason",
    [
        "no GPU", "No CUDA GPUs are available", "CUDA not available", "CUDA is not available.",
        "test requires CUDA", "test requires accelerator", "Need at least 1 CUDA device",
        "needs a GPU", "Requires GPU", "requires a CUDA GPU", "GPU required", "requires ROCm",
        "Skip test if CUDA is not available", "skipping: no GPU found", "cuda unavailable",
        "no CUDA-capable device is detected", "This test requires a GPU to run",
        # accelerate, diffusers, peft
        "test requires a CUDA GPU or XPU", "test requires a hardware accelerator",
        "test requires PyTorch CUDA", "test requires PyTorch+CUDA",
        "test requires accelerator+PyTorch",
        "Test requires a CUDA or XPU device.", "CUDA is required for flash_hub backend.",
        "float16 requires CUDA or XPU", "test requires a GPU or XPU",
        "GPU tests require hardware accelerator, got CPU only",
        # DeepSpeed, torchtitan, JAX, torchmetrics, pytest
        "accelerator not available", "This test runs only on GPU", "symmetric memory requires CUDA",
        "Triton grouped GEMM requires a CUDA device", "CUDA required for MoE forward",
        "Test requires an NVIDIA GPU", "Tests only for GPU.", "Works only on GPU",
        "Test requires cuda, but GPU not available.", "test requires GPU machine",
        "condition: not torch.cuda.is_available()",
    ],
)  # fmt: skip
def test_skips_for_want_of_any_gpu(reason: str) -> None:
    error = classify(Failure(text=reason, skip=True))
    assert error is not None
    assert (error.category, error.text, error.probe) == ("missing", reason, True)


@pytest.mark.parametrize(
    "reason",
    [
        "test requires multiple GPUs", "Need at least 2 CUDA devices", "needs 4 GPUs",
        "requires two GPUs", "no multi GPU support", "requires CUDA 12", "requires CUDA >= 11.8",
        "requires CUDA compute capability 9.0", "CUDA graphs not available", "slow",
        "GPU memory too small", "not on ROCm", "requires bitsandbytes and CUDA", "flaky on GPU",
        "test requires PyTorch", "CUDA out of memory",
        # accelerate, DeepSpeed, dask-cuda, CuPy, JAX, diffusers, peft
        "test requires only a CPU", "requires a stream-capable accelerator",
        "DeepCompile requires CUDA and supported PyTorch", "No MIG devices found",
        "CUDA-pinned memory is required", "CUDA sleep helper is unavailable",
        "Requires CUDA grid synchronization", "tests for CUDA only", "Need TPU devices",
        "Only works on GPU with capability sm90a", "Schur not supported on GPU.",
        "XFormers attention is only available with CUDA and `xformers` installed",
        "test requires a GPU with at least 40 GB memory", "test requires Neuron device",
        "test requires accelerator with fp64 support", "test does not need a GPU",
        "CUDA kernels not available (compute capability < 7 or kernels not installed)",
    ],
)  # fmt: skip
def test_skips_for_other_reasons(reason: str) -> None:
    assert classify(Failure(text=reason, skip=True)) is None


@pytest.mark.parametrize(
    ("vendor", "reason", "missing"),
    [
        ("nvidia", "Only run on ROCm", False),
        ("nvidia", "requires ROCm", False),
        ("nvidia", "No HIP GPUs are available", False),
        ("nvidia", "requires CUDA or ROCm", True),
        ("nvidia", "requires CUDA", True),
        ("amd", "Only run on ROCm", True),
        ("amd", "test requires CUDA", True),  # as PyTorch calls it there, too
        ("intel", "test requires CUDA", False),
        ("intel", "test requires a GPU or XPU", True),
        ("ascend", "test requires accelerator", True),
    ],
)
def test_skips_that_ask_for_another_vendors_gpu(vendor: str, reason: str, missing: bool) -> None:
    error = classify(Failure(text=reason, skip=True), vendor=vendor)
    assert (error is not None) == missing


@pytest.mark.parametrize(
    "reason",
    [
        "test requires multiple CUDA GPUs", "test requires multiple hardware accelerators",
        "test requires >= 4 accelerators", "Need at least 2 CUDA devices",
        "Need at least 4 GPUs to run the test.", "Not enough GPUs to run the test.",
        "requires 4 GPUs, found 1", "NCCL test requires 2+ GPUs", "fewer than 2 devices detected",
        "only one GPU detected", "detected only one GPU", "Requires: [GPUs>=2]",
        "This test requires at least 2 GPUs", "Test requires 8 global devices.",
        "Only >=2 devices are supported.", "Test requires more >1 device.", "requires multi GPUs",
    ],
)  # fmt: skip
def test_too_few_gpus_are_another_thing(reason: str) -> None:
    assert wanted_gpus(reason, 1) is not None
    assert classify(Failure(text=reason, skip=True)) is None


# --- deaths ---

_HANG = "HW Exception by GPU node-9 (Agent handle: 0x631351bb5a20) reason :GPU Hang"
_FAULT = "Memory access fault by GPU node-1 (Agent handle: 0x55b0) on address 0x7fcd. Reason: "


@pytest.mark.parametrize(
    ("printed", "category", "retry"),
    [
        (_HANG, "suspect", True),
        ("HW Exception by GPU node-9 (Agent handle: 0x63) reason :ECC", "device", True),
        (f"{_FAULT}Page not present or supervisor privilege.", "abort", False),
        (f"{_FAULT}Unknown.\n{_HANG}", "abort", False),
        (f"{_FAULT}DRAM ECC failure.", "device", True),
        (f"{_FAULT}Generic hang recovery.", "suspect", True),
        ("HSA_STATUS_ERROR_EXCEPTION: An HSAIL operation resulted in a ...", "abort", False),
        ("what():  CUDA error: uncorrectable NVLink error detected", "device", True),
        ("what():  CUDA error: unspecified launch failure", "suspect", True),
        ("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL", "library", False),
    ],
)
def test_deaths(printed: str, category: str, retry: bool) -> None:
    error = classify(Failure(text="SIGABRT", death=True, stderr=f"before\n{printed}\nafter\n"))
    assert error is not None
    assert (error.category, error.retry) == (category, retry)
    assert error.text == printed.partition("\n")[0]
    assert retry or not error.counts


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "CUDA out of memory, trying with less",
        "what():  CUDA error: device-side assert",
        "no GPU",
    ],
)
def test_deaths_that_are_not_put_down_to_the_device(printed: str) -> None:
    assert classify(Failure(text="SIGABRT", death=True, stderr=printed)) is None


# --- the user's own ---


def test_patterns() -> None:
    first, second, third = parse_patterns(
        ["  memory: arena exhausted", "", "warp (stuck|lost)", "mine: too"]
    )
    assert (first.category, first.regex.pattern) == ("memory", "arena exhausted")
    assert (second.category, second.regex.pattern) == ("other", "warp (stuck|lost)")
    assert (third.category, third.regex.pattern) == ("other", "mine: too")
    for text, category in (("Arena exhausted", "memory"), ("the warp stuck", "other")):
        error = classify(Failure(("mine.Error",), text), [first, second])
        assert error is not None
        assert error.category == category
    ours = classify(Failure(("mine.Error",), "CUDA error: warp lost"), [second])
    assert ours is not None
    assert ours.category == "other"
    dead = classify(Failure(death=True, stderr="a\nwarp lost here\nb"), [second])
    assert dead is not None
    assert (dead.text, dead.retry) == ("warp lost here", True)
    skipped = classify(Failure(text="warp lost", skip=True), [second])
    assert skipped is not None


@pytest.mark.parametrize(
    ("line", "expected"),
    [("a(b", "'a(b': no regular expression"), ("x*", "matches everything")],
)
def test_bad_patterns(line: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse_patterns([line])


@pytest.mark.parametrize("name", NAMES)
def test_what_somebody_says_a_failure_is(name: str) -> None:
    error = named(name, Failure(("mine.Error",), "one\ntwo"))
    assert (error.category, error.text) == (name, "one")


# --- whatever is in it ---

_TEXTS = st.one_of(
    st.text(),
    st.lists(st.sampled_from([text for _, text in MESSAGES])).map("\n".join),
    st.text("acdegno uGPUCDA:\n", max_size=40),
)


@given(_TEXTS, st.booleans(), st.booleans(), st.sampled_from(["builtins.OSError", "a.B"]))
@settings(max_examples=300, deadline=None)
def test_every_text_has_an_answer(text: str, death: bool, skip: bool, name: str) -> None:
    error = classify(Failure((name,), text, death=death, stderr=text, skip=skip))
    if error is not None:
        assert error.category in NAMES
        assert "\n" not in error.text
        assert error.text in text


@given(_TEXTS)
@settings(deadline=None)
def test_no_text_makes_an_assertion_that_shows_values_one(text: str) -> None:
    assert _raised(f"assert {text!r} == 1", "builtins.AssertionError") is None
