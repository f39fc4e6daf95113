"""Kinds of GPU errors: how their messages read, and what each calls for."""

from __future__ import annotations

from dataclasses import dataclass

from ..own import own_builtins

own_builtins(globals())

UNHEARD = ""
FINAL = "final"
DEVICE = "device"

OTHER = "other"
"""The category of a user's pattern that names none."""


@dataclass(frozen=True)
class Category:
    """One row of the table.

    :param patterns: regular expressions, searched in messages whatever their case.
    :param codes: numbers of CUDA's runtime (cudaError_t in driver_types.h), and of HIP's, which are
        the same (hipError_t in hip_runtime_api.h).
    :param deaths: what the pattern says where a process printed it and died: nothing (UNHEARD),
        that the verdict is FINAL though a probe is due, or that it was the DEVICE.
    :param is_gpu: whether it is a GPU error at all, not something that reads like one.
    :param others: as in :class:`.errors.GpuError`.
    """

    name: str
    patterns: tuple[str, ...]
    codes: tuple[int, ...] = ()
    counts: bool = False
    probe: bool = False
    poisons: bool = False
    alone: bool = False
    deaths: str = UNHEARD
    is_gpu: bool = True


# Beside each pattern is where its text comes from. The names of errors (cudaErrorAssert,
# hipErrorAssert) are those of driver_types.h and hip_runtime_api.h, CUDA_ERROR_… those of cuda.h;
# texts without a source are what cudaGetErrorString and hipGetErrorString say for them. PyTorch 2.9
# on names the error in its advice: Search for `cudaErrorAssert' in https://docs.nvidia.com/….
CATEGORIES = (
    # A runtime that was open before a fork. Another attempt would be forked in the same way.
    Category(
        "fork",
        (
            r"Cannot re-initialize (CUDA|XPU) in forked",  # torch/cuda/__init__.py, torch/xpu
            r"CUDA initialized before forking",  # numba/cuda/cudadrv/driver.py
            r"fork\(\) called from a process already using GNU OpenMP",  # libgomp
        ),
        is_gpu=False,
    ),
    # Triton refuses to launch a kernel that asks for too much.
    Category("launch", (r"out of resource: shared memory",), is_gpu=False),
    Category(
        "device",
        (
            r"uncorrectable (ECC|NVLink)|hardware stack error",
            r"cudaErrorECCUncorrectable|cudaErrorNvlinkUncorrectable|hipErrorECCNotCorrectable",
            r"CUDA_ERROR_(ECC|NVLINK)_UNCORRECTABLE|(CUDA_ERROR_|cudaError)HARDWARE_?STACK",
            r"(DRAM|SRAM) ECC failure|reason ?: ?ECC",  # ROCr, core/runtime/runtime.cpp
            r"GPU is lost|fallen off the bus",  # NVML_ERROR_GPU_IS_LOST; NVIDIA's kernel module
        ),
        codes=(214, 220, 714),
        counts=True,
        probe=True,
        poisons=True,
        deaths=DEVICE,
    ),
    Category(
        "memory",
        (
            r"(CUDA|HIP|XPU) out of memory",  # PyTorch, c10/cuda/CUDACachingAllocator.cpp
            r"(CUDA|HIP) error: out of memory|(cuda|hip)Error(MemoryAllocation|OutOfMemory)",
            r"OutOfMemoryError",  # the class in PyTorch and in CuPy, cupy/cuda/memory.pyx
            r"(CUDA_ERROR|UR_RESULT_ERROR)_OUT_OF_\w*MEMORY",  # and Unified Runtime's ur_api.h
            r"RESOURCE_EXHAUSTED: Out of memory",  # XLA
            r"Out of memory allocating [\d,]+ bytes",  # CuPy
            r"bad_alloc.*(CUDA|RMM|out_of_memory)",  # RMM
            r"Free memory on device.*less than desired GPU memory",  # vLLM, v1/worker
            r"(CUBLAS|CUDNN|HIPBLAS)_STATUS_ALLOC_FAILED",  # cublas_api.h, cudnn.h, hipblas.h
            r"HSA_STATUS_ERROR_OUT_OF_RESOURCES",  # hsa.h
        ),
        codes=(2,),
        alone=True,
    ),
    Category(
        "busy",
        (
            r"device\(s\) is/are busy or unavailable|(cuda|hip)ErrorDevicesUnavailable",
            r"all CUDA-capable devices are busy",  # the same before CUDA 11
            r"\bMPS (client|server)|cudaErrorMps[A-Z]|CUDA_ERROR_MPS_",
        ),
        codes=(46, 805, 806, 807, 808, 809),
        counts=True,
        probe=True,
    ),
    Category(
        "missing",
        (
            r"No (CUDA|HIP) GPUs are available",  # PyTorch, c10/cuda/CUDAFunctions.cpp
            r"no (CUDA|ROCm)-capable device|(cuda|hip)ErrorNoDevice|CUDA_ERROR_NO_DEVICE",
            r"CUDA driver initialization failed|CUDA unknown error",  # CUDAFunctions.cpp
            r"Unexpected error from cudaGetDeviceCount",  # the same
            r"(CUDA|HIP) error: initialization error",
            r"no supported devices found for platform",  # XLA
            # JAX, jax/_src/xla_bridge.py; 'rocm' where there is 'cuda' was asked for by mistake.
            r"Backend '(cuda|rocm)' is not in the list of known backends(?!.*'(cuda|rocm)')",
            r"Unknown backend:? '?(gpu|cuda|rocm)\b(?!.*'(cuda|rocm)')",
            r"system not yet initialized|cudaErrorSystemNotReady",  # no fabric manager
            r"\bno ((CUDA|ROCm|HIP|NVIDIA|AMD|available|visible|usable|working) )?GPUs?\b",
            r"\bGPUs? (was |were )?not found",
        ),
        codes=(3, 100, 802),
        counts=True,
        probe=True,
        poisons=True,  # frameworks remember that there was none
    ),
    Category(
        "build",
        (
            r"no kernel image is available|(cuda|hip)Error(NoBinaryForGpu|NoKernelImageForDevice)",
            r"invalid device function|(cuda|hip)ErrorInvalidDeviceFunction",
            r"CUDA_ERROR_NO_BINARY_FOR_GPU",
            r"driver version is insufficient|(cuda|hip)ErrorInsufficientDriver",
            r"contains more devices than ROCR",  # torch/cuda/__init__.py
        ),
        codes=(35, 98, 209, 803, 804),
    ),
    # More GPUs than the slice has, or one of them is gone.
    Category(
        "ordinal",
        (r"invalid device ordinal|(cuda|hip)ErrorInvalidDevice\b|CUDA_ERROR_INVALID_DEVICE\b",),
        codes=(101,),
        probe=True,
    ),
    # A kernel's own fault as a rule; the CUDA guide: "the process must be terminated".
    Category(
        "sticky",
        (
            r"illegal memory access|(cuda|hip)ErrorIllegal(Address|Instruction)",
            # Not "assertions", which PyTorch's advice below any CUDA error mentions.
            r"device-side assert(?!ion)|(cuda|hip)ErrorAssert\b",
            r"misaligned address|an illegal instruction|invalid program counter",
            r"cudaError(MisalignedAddress|InvalidAddressSpace|InvalidPc)",
            r"CUDA_ERROR_(ILLEGAL_\w+|ASSERT|MISALIGNED_ADDRESS|INVALID_PC)",
        ),
        codes=(700, 710, 715, 716, 717, 718),
        probe=True,
        poisons=True,
    ),
    # AMD's runtime prints these and aborts. Most are a kernel's fault, as a SIGSEGV is a test's.
    Category(
        "abort",
        (
            r"Memory access fault by GPU node-\d+(?!.*Reason:.*(ECC|hang))",  # ROCr, runtime.cpp
            r"HSA_STATUS_ERROR_(EXCEPTION|MEMORY_APERTURE_VIOLATION|ILLEGAL_INSTRUCTION)",  # hsa.h
            r"HSA_STATUS_ERROR_MEMORY_FAULT",
        ),
        probe=True,
        poisons=True,
        deaths=FINAL,
    ),
    Category(
        "suspect",
        (
            r"unspecified launch failure|launch timed out|peer GPU memory over nvlink",
            r"(cuda|hip)ErrorLaunch(Failure|Timeout)|CUDA_ERROR_LAUNCH_(FAILED|TIMEOUT)",
            r"(CUDA|HIP) error: unknown error|(cuda|hip)ErrorUnknown",
            r"HW Exception by GPU node-|Generic hang recovery",  # ROCr, runtime.cpp
            r"Memory access fault by GPU node-\d+.*Reason:.*(ECC|hang)",
            r"UR_RESULT_ERROR_DEVICE_LOST",  # ur_api.h
        ),
        codes=(702, 719, 999),
        counts=True,
        probe=True,
        poisons=True,
        deaths=DEVICE,
    ),
    Category(
        "library",
        (
            r"(CUBLAS|CUDNN|HIPBLAS)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED)",
            r"unhandled (cuda|system) error|[NR]CCL error",  # ncclGetErrorString; PyTorch's prefix
            r"Watchdog caught collective",  # PyTorch, ProcessGroupNCCL.cpp
        ),
        counts=True,
        probe=True,
        poisons=True,
        deaths=FINAL,  # a rank that waits for ever is as often the test's own fault
    ),
    Category(
        "port",
        (r"EADDRINUSE|failed to listen on any local network address",),  # PyTorch, socket.cpp
    ),
    Category(
        OTHER,
        (r"(CUDA|HIP) error|CUDA_ERROR_\w+|\b(cuda|hip)Error[A-Z]\w+",),
        counts=True,
    ),
)
"""In the order in which they are tried: what is more exact comes first."""
