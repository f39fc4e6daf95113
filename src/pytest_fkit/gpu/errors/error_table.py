"""Kinds of GPU errors: how their messages read, and what each calls for."""

from __future__ import annotations

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.event_file import OF_MACHINE

own_builtins(globals())

UNHEARD = ""
FINAL = "final"
DEVICE = "device"

OTHER = "other"
"""The category of a user's pattern that names none."""


class Category(NamedTuple):
    """One row of the table.

    Texts are regular expressions or parts of such, searched whatever their case.

    :param names: names of errors of CUDA's runtime, its driver and HIP's runtime without their
        prefixes, in the driver's spelling; see :mod:`.wording`.
    :param after: texts that count only behind the name of a GPU library on the same line; see
        :mod:`.wording`.
    :param patterns: texts that nobody else uses.
    :param vague: texts that only say where it was: tried where no other row matches.
    :param codes: numbers of CUDA's runtime (cudaError_t in driver_types.h), and of HIP's, which are
        the same (hipError_t in hip_runtime_api.h).
    :param deaths: what the pattern means in the output of a process that died: nothing (UNHEARD),
        a FINAL verdict though a probe is due, or a fault of the DEVICE.
    :param counts, probe, poisons, alone, doubtful: as in :class:`.event_file.GpuError`.
    :param is_gpu: whether it is a GPU error at all, not a message that reads like one.
    :param explains: if it is no GPU error: whether it explains the other exceptions of a chain.
    :param of_machine: if it is no GPU error: whether another machine may have what was exhausted.
    """

    name: str
    patterns: tuple[str, ...] = ()
    names: str = ""
    after: tuple[str, ...] = ()
    vague: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()
    counts: bool = False
    probe: bool = False
    poisons: bool = False
    alone: bool = False
    deaths: str = UNHEARD
    doubtful: bool = False
    is_gpu: bool = True
    explains: bool = False
    of_machine: bool = False


_NOT_OF_THEM = (
    r"(?! (kernels?|implementations?|support|versions?|memory|code|paths?|ops?|errors?)\b)"
)
_LIBRARIES = r"(CUBLAS|CUDNN|CUFFT|CURAND|CUSOLVER|CUSPARSE|CUTENSOR|HIPBLAS|HIPBLASLT|HIPDNN)"
# As jaxlib words their statuses (jaxlib/gpu/gpu_kernel_helpers.cc).
_SPOKEN = r"\b(cu|hip|roc)(BLAS|DNN|FFT|RAND|Solver|Sparse)"

# Beside each pattern is where its text comes from; docs/inside/gpu-messages.md has the table by
# library. Names and texts of CUDA are those of driver_types.h and cuda.h (12.9), and what
# cudaGetErrorString says for them;
# HIP's, hipamd/src/hip_error.cpp in ROCm/clr, are nearly the same. PyTorch 2.9 on names the error
# in its advice: Search for `cudaErrorAssert' in https://docs.nvidia.com/….
CATEGORIES = (
    # A runtime that was open before a fork. Another attempt would be forked in the same way.
    Category(
        "fork",
        (
            r"Cannot re-initialize (CUDA|XPU|NPU) in forked",  # PyTorch, torch_npu
            r"CUDA initialized before forking",  # numba/cuda/cudadrv/driver.py
            r"fork\(\) called from a process already using GNU OpenMP",  # libgomp
        ),
        is_gpu=False,
        explains=True,
    ),
    # What the test itself asked for: Triton refuses to launch a kernel, NCCL two ranks on one GPU.
    Category(
        "usage",
        (
            # triton/runtime/errors.py
            r"out of resource: (shared memory|threads|tensor memory|registers)",
            # PyTorch, NCCLUtils.cpp; CuPy, libs/nccl.pyx; ncclGetErrorString in nccl's init.cc
            r"ncclInvalid(Usage|Argument)|NCCL_ERROR_INVALID_(USAGE|ARGUMENT)",
            r"Duplicate GPU detected",
            r"[NR]CCL error( \d)?(: | in: [^\n]*?, )invalid (usage|argument)",
            r"NCCL operation \w+\([^\n]*?\) failed: invalid (usage|argument)",  # XLA
        ),
        is_gpu=False,
    ),
    # The host's memory or a file system, though it reads like the GPU's, or a GPU library says it.
    Category(
        OF_MACHINE,
        (
            r"ray\.exceptions\.OutOfMemoryError|RayOutOfMemoryError|node running low on memory",
            r"java\.lang\.OutOfMemoryError",  # Spark
            # torch_npu; ur_api.h, ze_api.h; cuDNN
            r"host out of memory|OUT_OF_HOST_MEMORY|HOST_ALLOCATION_FAILED",
            r"\bby allocator \w*(cpu|host)",  # TensorFlow's: cpu, mklcpu, gpu_host_bfc
            r"No space left on device|Cannot allocate memory|DefaultCPUAllocator",
            # PyTorch, torch/csrc/DataLoader.cpp
            r"insufficient shared memory \(shm\)|DataLoader worker[^\n]* by signal: Bus error",
        ),
        vague=(r"\bbuiltins\.MemoryError\b",),  # NumPy's is one, and that of CuPy above
        is_gpu=False,
        of_machine=True,
    ),
    Category(
        "device",
        (
            r"uncorrectable (ECC|NVLink)|hardware stack error",
            r"hipErrorECCNotCorrectable",
            r"(DRAM|SRAM) ECC failure|reason ?: ?ECC",  # ROCr, core/runtime/runtime.cpp
            # NVML_ERROR_GPU_IS_LOST, pynvml's class for it; NVIDIA's kernel module
            r"GPU is lost|GPU_?IS_?LOST|fallen off the bus",
            r"Unable to determine the device handle for GPU",  # nvidia-smi, of one that is gone
            # torch_npu, NPUException.h
            r"multi-bit ECC error|reason=\[?device mem error|ZE_RESULT_ERROR_SURVIVABILITY_MODE",
        ),
        names="ECC_UNCORRECTABLE|NVLINK_UNCORRECTABLE|HARDWARE_STACK_ERROR",
        codes=(214, 220, 714),
        counts=True,
        probe=True,
        poisons=True,
        deaths=DEVICE,
    ),
    Category(
        "memory",
        (
            # PyTorch, CUDACachingAllocator.cpp; torch_npu; Apple's
            r"(CUDA|HIP|XPU|NPU|GPU|MPS backend) out of memory",
            r"out of (GPU|device|video) memory|(insufficient|not enough) (GPU|device|CUDA) memory",
            r"would exceed allowed memory\. \(out of memory\)",  # PyTorch, cudaMallocAsync
            r"NVML_SUCCESS == r INTERNAL ASSERT FAILED",  # PyTorch, where it would tell of that
            r"OutOfMemoryError",  # the class in PyTorch and in CuPy, cupy/cuda/memory.pyx
            # ze_api.h, ur_api.h, and before that: PI_ERROR_OUT_OF_RESOURCES; OpenCL; Vulkan
            r"(ZE_RESULT|UR_RESULT|VK)_ERROR_OUT_OF_(DEVICE_MEMORY|RESOURCES)",
            r"Triton Error \[ZE\]: 0x70000003\b",
            r"(PI_ERROR_|\bCL_|failed: )OUT_OF_RESOURCES|MEM_OBJECT_ALLOCATION_FAILURE",
            # XLA, bfc_allocator.cc, stream_executor/cuda/cuda_status.cc, gpu executors
            r"RESOURCE_EXHAUSTED: (.*out of memory|Failed to allocate|.*Allocator \(GPU)",
            # TensorFlow, op_kernel.cc; bfc_allocator.cc
            r"OOM when allocating tensor|Dst tensor is not initialized",
            r"failed to allocate memory \[Op:",
            r"ResourceExhaustedError[\s\S]{0,400}?(failed to allocate|out of memory)",
            # XLA, pjrt/gpu, service/gpu
            r"Failed to allocate (request for .* on device ordinal|\d+ bytes for new constant)",
            r"Allocator \(GPU_\d+_bfc\) ran out of memory|Out of memory error on GPU",  # and Paddle
            r"Out of memory allocating [\d,]+ bytes",  # CuPy, cupy/cuda/memory.pyx
            # RMM
            r"bad_alloc.*(CUDA|RMM|out_of_memory)|RMM failure at.*Maximum pool size exceeded",
            r"failed to (cuda|hip)Malloc\w* [\d,]+ bytes",  # Faiss, StandardGpuResources.cpp
            # vLLM: v1/worker, v1/core/kv_cache_utils.py
            r"Free memory on device.*less than desired GPU memory",
            r"No available memory for the cache blocks|larger than the available KV cache memory",
            r"larger than the maximum number of tokens that can be stored in KV cache",
            r"Error in memory profiling\. Initial free memory",
            r"Memory of devices [^\n]*? not free after",  # its tests, tests/utils.py
            # SGLang, model_executor
            r"Not enough memory\. Please try to increase --mem-fraction-static",
            r"memory capacity is unbalanced\. Some GPUs may be occupied",
            r"(Prefill|Decode) out of memory\. Try to lower your batch size",
            # TensorRT
            r"Error Code \d+: OutOfMemory|Requested amount of GPU memory .* could not be allocated",
            # PyTorch, native/cudnn/Conv_v7.cpp, Conv_v8.cpp; ONNX Runtime
            r"Unable to find a valid cuDNN algorithm|unable to find an engine to execute",
            r"BFCArena::AllocateRawInternal[^\n]* Failed to allocate memory",
            rf"{_LIBRARIES}_STATUS_(ALLOC\w*_FAILED|INSUFFICIENT_(RESOURCES|WORKSPACE))",
            r"_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED|CUFFT_ALLOC_FAILED",
            rf"{_SPOKEN} allocation (failed|failure)|(rocblas|rocsparse)_status_memory_error",
            r"HSA_STATUS_ERROR_OUT_OF_RESOURCES",  # hsa.h
            # torch_npu, NPUException.cpp, NPUErrorCodes.h
            r"\bEL0004\b|error code is (207001|207005|207018|200000)\b",
        ),
        names="OUT_OF_MEMORY|MEMORY_ALLOCATION",
        after=("out of memory", "the resource allocation failed"),
        codes=(2,),
        alone=True,
    ),
    Category(
        "busy",
        (
            r"device\(s\) is/are busy or unavailable",
            r"all CUDA-capable devices are busy",  # the same before CUDA 11
            r"exclusive-thread device already in use",
            r"\bMPS (client|server)|cudaErrorMps[A-Z]|CUDA_ERROR_MPS_",
            r"error code is 207004\b",  # torch_npu
        ),
        names="DEVICES?_UNAVAILABLE|DEVICE_ALREADY_IN_USE|CONTEXT_ALREADY_IN_USE",
        codes=(46, 216, 805, 806, 807, 808, 809, 810),
        counts=True,
        probe=True,
    ),
    Category(
        "build",
        (
            r"no kernel image is available|device kernel image is invalid|invalid kernel file",
            r"invalid device function|hipErrorInvalidKernelFile",
            r"driver version is insufficient|CUDA driver is a stub library",
            r"NVIDIA driver on your system is too old",  # torch/cuda/__init__.py
            r"API call is not supported in the installed CUDA driver",
            r"unsupported display driver / cuda driver|forward compatibility was attempted",
            r"PTX was compiled with an unsupported toolchain|PTX JIT compil",
            r"Driver/library version mismatch|NVMLError_LibRmVersionMismatch",  # nvml.h, pynvml
            r"contains more devices than ROCR",  # torch/cuda/__init__.py
            rf"{_LIBRARIES}_STATUS_(SUBLIBRARY_\w+|(VERSION|ARCH)_MISMATCH)",
            rf"{_SPOKEN} architecture mismatch",
            r"Cannot (read|load) [^\n]*Tensile|Could not load [^\n]*Tensile",  # rocBLAS, hipBLASLt
            # torch/cuda/__init__.py
            r"libcudart functions unavailable|not compatible with the current PyTorch installation",
            # XLA, JAX: no CUDA in it, or not the right one
            r'Could not find registered platform with name: "?(cuda|rocm)',
            r"Unable to use CUDA because of the following issues",
            r"CUDA-enabled jaxlib is not installed",
            r"libdevice not found at|Couldn't (invoke|get) ptxas",
            r"nvrtc: error: (invalid value for --gpu-architecture|failed to open libnvrtc)",
            r"Unable to load NCCL library",
        ),
        names=(
            "NO_BINARY_FOR_GPU|NO_KERNEL_IMAGE_FOR_DEVICE|INVALID_DEVICE_FUNCTION|"
            "INSUFFICIENT_DRIVER|INVALID_IMAGE|INVALID_KERNEL_IMAGE|INVALID_PTX|INVALID_SOURCE|"
            "UNSUPPORTED_PTX_VERSION|JIT_COMPILER_NOT_FOUND|JIT_COMPILATION_DISABLED|STUB_LIBRARY|"
            "CALL_REQUIRES_NEWER_DRIVER|SYSTEM_DRIVER_MISMATCH|COMPAT_NOT_SUPPORTED_ON_DEVICE"
        ),
        codes=(34, 35, 36, 98, 200, 209, 218, 221, 222, 223, 300, 803, 804),
    ),
    Category(
        "missing",
        (
            # PyTorch; torch_npu
            r"No (CUDA|HIP) GPUs are available|No (XPU device|NPU)s are available",
            r"no (CUDA|ROCm)-capable device",
            r"Found no NVIDIA driver on your system|CUDA driver library cannot be found",  # numba
            r"libcuda\.so(\.1)?: cannot open shared object|NVML Shared Library Not Found",  # pynvml
            r"no supported devices found for platform",  # XLA
            # JAX, jax/_src/xla_bridge.py; 'rocm' where there is 'cuda' was asked for by mistake.
            r"Backend '(cuda|rocm)' is not in the list of known backends(?!.*'(cuda|rocm)')",
            r"Unknown backend:? '?(gpu|cuda|rocm)\b(?!.*'(cuda|rocm)')",
            r"system not yet initialized",  # no fabric manager
            r"\b0 active drivers \(",  # triton/runtime/driver.py
            r"Failed to infer device type",  # vLLM, config
            r"PI_ERROR_DEVICE_NOT_FOUND|No device of requested type available",  # SYCL
            r"Unable to open /dev/kfd",  # ROCr
            r"UR_RESULT_ERROR_DEVICE_NOT_(FOUND|AVAILABLE)|ZE_RESULT_ERROR_UNINITIALIZED",
            r"torch\.cuda\.is_available\(\) is False",  # torch/serialization.py
            r"\b(CUDA|ROCm) (is|was) (not available|unavailable)(?! (for|in|on|when|with)\b)",
            r"\bno ((CUDA|ROCm|HIP|NVIDIA|AMD|available|visible|usable|working) )?GPUs?\b"
            + _NOT_OF_THEM,
            r"\bGPUs? (was |were )?not found",
            r"error code is (200002|507033)\b",  # torch_npu: no such device, or it does not start
            # The driver does not start: numba, JAX; nvml.h, of a container that lost its GPUs, too.
            r"\bcuInit(\(0\))? (results in|failed)",
            r"Failed to initialize NVML: Unknown Error|NVMLError_DriverNotLoaded",
        ),
        names="NO_DEVICE|NOT_INITIALIZED|INITIALIZATION_ERROR|SYSTEM_NOT_READY",
        after=("initialization error",),
        vague=(
            r"CUDA driver initialization failed|CUDA unknown error",  # PyTorch, CUDAFunctions.cpp
            r"Unexpected error from cudaGetDeviceCount",  # the same
        ),
        codes=(3, 100, 802),
        counts=True,
        probe=True,
        poisons=True,  # frameworks remember that there was none
    ),
    # More GPUs than the slice has, or one of them is gone.
    Category(
        "ordinal",
        (
            r"invalid device ordinal",
            # PyTorch, CUDAContext.cpp; torch/serialization.py
            r"device >= 0 && device < num_gpus",
            r"deserialize object on CUDA device \d+ but torch\.cuda\.device_count\(\) is",
            r"error code is 107001\b",  # torch_npu
        ),
        names="INVALID_DEVICE",
        codes=(101,),
        probe=True,
    ),
    # A kernel's own fault as a rule; the CUDA guide: "the process must be terminated".
    Category(
        "sticky",
        (
            r"illegal memory access",
            # Not "assertions", which PyTorch's advice below any CUDA error mentions.
            r"device-side assert(?!ion)",
            r"misaligned address|an illegal instruction|invalid program counter",
            r"operation not supported on global/shared address space",
            # torch_npu: exceptions of aicore, vector core and aicpu, and their traps
            r"error code is 5070(15|16|18|35|36|42|43|44|45|50)\b",
        ),
        names=(
            "ILLEGAL_ADDRESS|ILLEGAL_INSTRUCTION|ASSERT|MISALIGNED_ADDRESS|INVALID_ADDRESS_SPACE|"
            "INVALID_PC"
        ),
        codes=(700, 710, 715, 716, 717, 718),
        probe=True,
        poisons=True,
        doubtful=True,
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
            # The runtime's name: the driver says CUDA_ERROR_UNKNOWN of compilations, too.
            r"(cuda|hip)ErrorUnknown\b|\bGPU sync failed",  # TensorFlow's
            r"HW Exception by GPU node-|Generic hang recovery",  # ROCr, runtime.cpp
            r"Memory access fault by GPU node-\d+.*Reason:.*(ECC|hang)",
            r"HSA_STATUS_ERROR(_FATAL)?\b",  # hsa.h
            r"(ZE_RESULT|UR_RESULT|VK)_ERROR_DEVICE_(LOST|REQUIRES_RESET)",  # ze_api.h, ur_api.h
            r"Triton Error \[ZE\]: 0x7000000[16]\b|PI_ERROR_DEVICE_NOT_AVAILABLE",
            r"NVMLError_Unknown|NVMLError_ResetRequired|GPU requires reset",  # nvml.h, pynvml
            # torch_npu: heartbeat lost, DMA, time-outs, driver, session with the device
            r"error code is (5070(10|13|14|17|34|46|47|48|49)|507899|50790[01])\b",
            r"reason=\[?(suspect (device mem|remote) error|device task abort)",
        ),
        names="LAUNCH_FAILED|LAUNCH_FAILURE|LAUNCH_TIMEOUT|PRIOR_LAUNCH_FAILURE|CONTAINED",
        after=("unknown error",),
        codes=(53, 226, 702, 719, 999),
        counts=True,
        probe=True,
        poisons=True,
        deaths=DEVICE,
        doubtful=True,
    ),
    Category(
        "library",
        (
            rf"{_LIBRARIES}_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)",
            rf"{_LIBRARIES}_STATUS_((NOT_)?INITIALI[SZ]\w+|LAUNCH_FAILURE|PREEXISTING_FAILURE)",
            r"HIPBLAS_STATUS_UNKNOWN",
            r"CUFFT_(EXEC|SETUP)_FAILED|CUFFT_INTERNAL_ERROR",  # cufft.h
            rf"{_SPOKEN} (has not been initialized|execution failed|mapping error|setup failed)",
            rf"{_SPOKEN} internal error|miopenStatus(InternalError|UnknownError|NotInitialized)",
            r"roc(blas|sparse|solver|fft)_status_(internal_error|not_initialized)",
            # TensorFlow, XLA: stream_executor/cuda/cuda_dnn.cc, cuda_blas.cc
            r"DNN library initialization failed|cuDNN (launch failure|failed to initialize)",
            r"Blas \w+ launch failed|(failed to|Could not) create cu(blas|dnn|solver) handle",
            r"unhandled (cuda|system) error",  # ncclGetErrorString in nccl's init.cc
            r"Watchdog caught collective|watchdog got stuck",  # PyTorch, ProcessGroupNCCL.cpp
            r"Some NCCL operations have failed or timed out|NCCL communicator was aborted",
            r"NCCL timeout in communicator",  # PyTorch, NCCLUtils.cpp
            r"call hccl api failed|HCCL function error",  # torch_npu
            r"Failed to (get convolution|determine best cudnn convolution) algorithm",
            r"without BLAS support|No algorithm worked!",  # TensorFlow
            r"nvshmem\S*[^\n]* non-zero status|NVSHMEM error|nvshmem initialization failed",
            r"DeepEP error: [^\n]*timeout",  # like NCCL's watchdog
            # cublasGetStatusString, and others of CUDA's libraries
            r"the library was not initialized|the GPU program failed to execute",
            r"an access to GPU memory space failed",
        ),
        after=("an internal operation failed",),
        vague=(
            r"[NR]CCL (error|failure|operation \w+\([^\n]*?\) failed)|NCCL_ERROR_\w+",
            r"\bnccl(System|Internal|Remote|UnhandledCuda)Error|DistBackendError",
            r"reason=\[?(link error|device network link|hccl op)",
        ),
        counts=True,
        probe=True,
        poisons=True,
        deaths=FINAL,  # a rank that waits for ever is as often the test's own fault
        doubtful=True,
    ),
    Category(
        "port",
        (
            r"EADDRINUSE|failed to listen on any local network address",  # PyTorch, socket.cpp
            r"Address already in use",  # strerror(EADDRINUSE)
        ),
    ),
    Category(
        OTHER,
        vague=(
            r"(CUDA|HIP)( (driver|runtime|API|runtime API))? (error|failure)",
            r"CUDA_ERROR_\w+|\b(cuda|hip)Error[A-Z]\w+|Triton Error \[(CUDA|HIP|ZE)\]",
            r"Native API (failed|returns)|level_zero backend failed|\bUR error\b",  # SYCL, PyTorch
            r"\b(ZE_RESULT|UR_RESULT|HSA_STATUS|PI)_ERROR_\w+",
            r"NPU (function )?error|call acl api failed|OPS function error",  # torch_npu
        ),
        counts=True,
        doubtful=True,
    ),
)
"""In the order in which they are tried: what is more exact comes first."""
