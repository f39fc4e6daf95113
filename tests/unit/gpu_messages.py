"""Messages of GPU libraries, each with the file that words it; docs/inside/gpu-messages.md lists them."""

# ruff: noqa: E501 (messages stay as they are)

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One.

    :param category: what it is, "" for no GPU error.
    :param type: name of the exception's class.
    """

    source: str
    category: str
    text: str
    type: str = "builtins.RuntimeError"


MESSAGES = (
    # PyTorch
    Message("pytorch/pytorch c10/cuda/driver_api.h", "memory", "CUDA driver error: out of memory"),
    Message("pytorch/pytorch c10/cuda/driver_api.h", "suspect", "CUDA driver error: unknown error"),
    Message("pytorch/pytorch c10/cuda/driver_api.h", "other", "CUDA driver error: invalid argument"),
    Message("pytorch/pytorch aten/src/ATen/cuda/Exceptions.h", "memory", "CUDA driver error: 2"),
    Message("pytorch/pytorch aten/src/ATen/cuda/Exceptions.h", "library",
            "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`. "
            "If you keep seeing this error, you may use `torch.backends.cuda.preferred_linalg_library()`"),
    Message("pytorch/pytorch aten/src/ATen/cuda/Exceptions.h", "",
            "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a "
            "non-contiguous input."),
    Message("pytorch/pytorch aten/src/ATen/native/cudnn/Conv_v8.cpp", "memory",
            "FIND was unable to find an engine to execute this computation"),
    Message("pytorch/pytorch torch/csrc/distributed/c10d/NCCLUtils.cpp", "library",
            "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1331, unhandled system "
            "error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclSystemError: System "
            "call (e.g. socket, malloc) or external library call failed or device error. \nLast error:\n"
            "socketStartConnect: Connect to 10.0.0.1<4711> failed : Software caused connection abort",
            "torch.distributed.DistBackendError"),
    Message("pytorch/pytorch torch/csrc/distributed/c10d/NCCLUtils.cpp", "memory",
            "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1331, unhandled cuda "
            "error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclUnhandledCudaError: "
            "Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
            "torch.distributed.DistBackendError"),
    Message("pytorch/pytorch torch/csrc/distributed/c10d/NCCLUtils.cpp", "",
            "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1331, invalid usage "
            "(run with NCCL_DEBUG=WARN for details), NCCL version 2.21.5\nncclInvalidUsage: This "
            "usually reflects invalid usage of NCCL library.\nLast error:\nDuplicate GPU detected : "
            "rank 1 and rank 0 both on CUDA device 1b000", "torch.distributed.DistBackendError"),
    Message("pytorch/pytorch torch/csrc/distributed/c10d/NCCLUtils.cpp", "",
            "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:12, unhandled system error\n"
            "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or "
            "device error. \nLast error:\nError while creating shared memory segment /dev/shm/nccl-x "
            "(size 9637888), error: No space left on device (28)", "torch.distributed.DistBackendError"),
    Message("pytorch/pytorch torch/csrc/distributed/c10d/NCCLUtils.cpp", "library",
            "NCCL communicator was aborted on rank 3. ", "torch.distributed.DistBackendError"),
    Message("pytorch/pytorch torch/serialization.py", "missing",
            "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False."),
    Message("pytorch/pytorch torch/serialization.py", "ordinal",
            "Attempting to deserialize object on CUDA device 1 but torch.cuda.device_count() is 1."),
    Message("pytorch/pytorch torch/cuda/__init__.py", "missing",
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    Message("pytorch/pytorch torch/cuda/__init__.py", "build",
            "The NVIDIA driver on your system is too old (found version 11040)."),
    Message("pytorch/pytorch torch/cuda/__init__.py", "", "Torch not compiled with CUDA enabled",
            "builtins.AssertionError"),
    Message("pytorch/pytorch c10/core/impl/alloc_cpu.cpp", "",
            "[enforce fail at alloc_cpu.cpp:83] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 8000000000 bytes. Error code 12 (Cannot allocate memory)"),
    Message("pytorch/pytorch torch/csrc/DataLoader.cpp", "",
            "DataLoader worker (pid 249) is killed by signal: Bus error. It is possible that dataloader's "
            "workers are out of shared memory. Please try to raise your shared memory limit."),
    # NVIDIA's and AMD's own
    Message("NVIDIA/nccl src/init.cc", "library", "NCCL Error 6: remote process exited or there was a "
            "network error"),
    Message("NVIDIA/nccl src/init.cc", "", "NCCL Error 5: invalid usage (run with NCCL_DEBUG=WARN for "
            "details)"),
    Message("ROCm/rocm-systems projects/rocr-runtime core/runtime/hsa.cpp", "suspect",
            "HSA_STATUS_ERROR_FATAL: The queue received an error that may require process termination."),
    Message("ROCm/clr hipamd/src/hip_error.cpp", "memory", "HIP error: out of memory"),
    Message("ROCm/rocBLAS library/src/tensile_host.cpp", "build",
            "rocBLAS error: Cannot read /opt/rocm/lib/rocblas/library/TensileLibrary.dat: No such file "
            "or directory"),
    Message("ROCm/MIOpen", "library", "miopenStatusInternalError"),
    # CuPy, RAPIDS, numba
    Message("cupy/cupy cupy_backends/cuda/api/driver.pyx", "memory",
            "CUDA_ERROR_OUT_OF_MEMORY: out of memory", "cupy_backends.cuda.api.driver.CUDADriverError"),
    Message("cupy/cupy cupy_backends/cuda/libs/nccl.pyx", "library",
            "NCCL_ERROR_UNHANDLED_CUDA_ERROR: unhandled cuda error (run with NCCL_DEBUG=INFO for "
            "details)", "cupy_backends.cuda.libs.nccl.NcclError"),
    Message("cupy/cupy cupy_backends/cuda/libs/nccl.pyx", "",
            "NCCL_ERROR_INVALID_USAGE: invalid usage (run with NCCL_DEBUG=WARN for details)",
            "cupy_backends.cuda.libs.nccl.NcclError"),
    Message("cupy/cupy cupy/cuda/cufft.pyx", "memory", "CUFFT_ALLOC_FAILED", "cupy.cuda.cufft.CuFFTError"),
    Message("cupy/cupy cupy_backends/cuda/libs/curand.pyx", "library",
            "CURAND_STATUS_INITIALIZATION_FAILED", "cupy_backends.cuda.libs.curand.CURANDError"),
    Message("rapidsai/rmm cpp/include/rmm/detail/error.hpp", "memory",
            "std::bad_alloc: out_of_memory: CUDA error (failed to allocate 8589934592 bytes) at: "
            "/opt/rmm/mr/cuda_memory_resource.hpp:62: cudaErrorMemoryAllocation out of memory",
            "builtins.MemoryError"),
    Message("the C++ runtime", "", "std::bad_alloc", "builtins.MemoryError"),
    Message("rapidsai/cudf cpp/include/cudf/utilities/error.hpp", "suspect",
            "Fatal CUDA error encountered at: /cudf/cpp/src/x.cu:7: 719 cudaErrorLaunchFailure "
            "unspecified launch failure"),
    Message("rapidsai/raft cpp/include/raft/core/cublas_macros.hpp", "memory",
            "cuBLAS error encountered at: file=/raft/core/handle.hpp line=81: call='cublasCreate(&h)', "
            "Reason=3:CUBLAS_STATUS_ALLOC_FAILED"),
    Message("NVIDIA/numba-cuda numba_cuda/numba/cuda/cudadrv/driver.py", "sticky",
            "[700] Call to cuMemcpyDtoH results in UNKNOWN_CUDA_ERROR",
            "numba.cuda.cudadrv.driver.CudaAPIError"),
    Message("NVIDIA/numba-cuda numba_cuda/numba/cuda/cudadrv/driver.py", "missing",
            "Error at driver init: \nCUDA driver library cannot be found.\nIf you are sure that a CUDA "
            "driver is installed", "numba.cuda.cudadrv.error.CudaSupportError"),
    Message("NVIDIA/numba-cuda numba_cuda/numba/cuda/cudadrv/driver.py", "",
            "CUDA is disabled due to setting NUMBA_DISABLE_CUDA=1 in the environment, or because CUDA "
            "is unsupported on 32-bit systems.", "numba.cuda.cudadrv.error.CudaSupportError"),
    # JAX, XLA, TensorFlow
    Message("jax-ml/jax jaxlib/gpu/gpu_kernel_helpers.cc", "library",
            "INTERNAL: jaxlib/gpu/solver_handle_pool.cc:37: operation gpusolverDnCreate(&handle) "
            "failed: cuSolver internal error", "jaxlib._jax.JaxRuntimeError"),
    Message("jax-ml/jax jaxlib/gpu/gpu_kernel_helpers.cc", "memory",
            "INTERNAL: jaxlib/gpu/blas.cc:7: operation gpuMalloc(&p, n) failed: out of memory",
            "jaxlib._jax.JaxRuntimeError"),
    Message("openxla/xla xla/stream_executor/cuda/cuda_status.cc", "memory",
            "RESOURCE_EXHAUSTED: Failed to allocate: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
            "jaxlib._jax.XlaRuntimeError"),
    Message("openxla/xla xla/stream_executor/cuda/cuda_status.cc", "sticky",
            "INTERNAL: CUDA error: Failed call to cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS: an "
            "illegal memory access was encountered", "jaxlib._jax.XlaRuntimeError"),
    Message("grpc/grpc", "", "RESOURCE_EXHAUSTED: Received message larger than max (5 vs. 4)"),
    Message("tensorflow/tensorflow tensorflow/core/framework/op_kernel.cc", "memory",
            "OOM when allocating tensor with shape[10,10] and type float on "
            "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc [Op:Mul]",
            "tensorflow.python.framework.errors_impl.ResourceExhaustedError"),
    Message("tensorflow/tensorflow tensorflow/core/framework/op_kernel.cc", "",
            "OOM when allocating tensor with shape[10,10] and type float on "
            "/job:localhost/replica:0/task:0/device:CPU:0 by allocator mklcpu [Op:Mul]",
            "tensorflow.python.framework.errors_impl.ResourceExhaustedError"),
    Message(
        "tensorflow/tensorflow, reports of users", "memory", "{{function_node __wrapped__Mul}} failed to allocate memory [Op:Mul]",
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError",
    ),
    # Triton, FlashInfer, TransformerEngine, TensorRT-LLM
    Message("triton-lang/triton third_party/nvidia/backend/driver.c", "memory",
            "Triton Error [CUDA]: out of memory"),
    Message("triton-lang/triton third_party/nvidia/backend/driver.c", "build",
            "Triton Error [CUDA]: device kernel image is invalid"),
    Message("triton-lang/triton third_party/nvidia/backend/driver.c", "other",
            "Triton Error [CUDA]: invalid argument"),
    Message("triton-lang/triton python/triton/runtime/errors.py", "",
            "out of resource: threads, Required: 2048, Hardware limit: 1024. Reducing block sizes or "
            "`num_stages` may help.", "triton.runtime.errors.OutOfResources"),
    Message("flashinfer-ai/flashinfer csrc/batch_decode.cu", "suspect",
            "BatchDecodeWithPagedKVCache failed with error unspecified launch failure"),
    Message("flashinfer-ai/flashinfer csrc/norm.cu", "memory", "RMSNorm failed with error code out of "
            "memory"),
    Message("flashinfer-ai/flashinfer csrc/cudnn_sdpa_kernel_launcher.cu", "suspect",
            "cuLaunchKernelEx failed with error code 719"),
    Message("NVIDIA/TransformerEngine transformer_engine/common/util/logging.h", "library",
            "/te/common/gemm/cublaslt_gemm.cu:7 in function cublas_gemm: cuBLAS Error: the library was "
            "not initialized"),
    Message("NVIDIA/TransformerEngine transformer_engine/common/util/logging.h", "",
            "/te/common/x.cu:7 in function f: Assertion failed: x == y. Shapes differ"),
    Message("NVIDIA/TensorRT-LLM cpp/include/tensorrt_llm/common/cudaUtils.h", "memory",
            "[TensorRT-LLM][ERROR] CUDA runtime error in ::cudaMallocAsync(ptr, n, "
            "mCudaStream->get()): out of memory (/src/tensorrt_llm/runtime/tllmBuffers.h:112)"),
    Message("NVIDIA/TensorRT-LLM cpp/include/tensorrt_llm/common/cudaUtils.h", "ordinal",
            "[TensorRT-LLM][ERROR] CUDA runtime error in cudaSetDevice(device): invalid device ordinal "
            "(/app/tensorrt_llm/cpp/tensorrt_llm/runtime/utils/sessionUtils.cpp:34)"),
    # vLLM, SGLang
    Message("vllm-project/vllm vllm/v1/core/kv_cache_utils.py", "memory",
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
            "initializing the engine.", "builtins.ValueError"),
    Message("vllm-project/vllm vllm/v1/core/kv_cache_utils.py", "memory",
            "To serve at least one request with the models's max seq len (40960), (5.62 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (1.2 GiB).", "builtins.ValueError"),
    Message("vllm-project/vllm vllm/v1/engine/utils.py", "",
            "Engine core initialization failed. See root cause above. Failed core proc(s): {}"),
    Message("sgl-project/sglang python/sglang/srt/model_executor/model_runner.py", "memory",
            "Not enough memory. Please try to increase --mem-fraction-static. Current value: "
            "mem_fraction_static=0.1"),
    # Intel's, Ascend's
    Message("oneapi-src/level-zero include/ze_api.h", "suspect", "ZE_RESULT_ERROR_DEVICE_LOST"),
    Message("oneapi-src/level-zero include/ze_api.h", "memory", "ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"),
    Message("oneapi-src/level-zero include/ze_api.h", "", "level_zero backend failed with error: 38 "
            "(ZE_RESULT_ERROR_OUT_OF_HOST_MEMORY)"),
    Message("intel/llvm sycl/source/detail/exception.cpp", "memory", "Native API failed. Native API "
            "returns: -5 (PI_ERROR_OUT_OF_RESOURCES) -5 (PI_ERROR_OUT_OF_RESOURCES)"),
    Message("Ascend/pytorch torch_npu/csrc/core/npu/NPUCachingAllocator.cpp", "memory",
            "NPU out of memory. Tried to allocate 20.00 MiB (NPU 0; 60.97 GiB total capacity)"),
    Message("Ascend/pytorch torch_npu/csrc/core/npu/CachingHostAllocator.cpp", "",
            "Malloc pin memory failed, host out of memory, Rried to allocate size: 4096"),
    Message("Ascend/pytorch torch_npu/csrc/core/npu/NPUException.h", "sticky",
            "synchronizeStream:/x/NPUStream.cpp:470 NPU function error: c10_npu::acl::AclrtSynchronize"
            "StreamWithTimeout(stream), error code is 507015\n[ERROR] 2026-08-01-10:00:00 (PID:7, "
            "Device:0, RankID:-1) ERR00100 PTA call acl api failed"),
    Message("Ascend/pytorch torch_npu/csrc/core/npu/NPUException.h", "device",
            "f:/x/y.cpp:7 NPU function error: HBM MULTI BIT ECC ERROR, device error: reason=[hbm "
            "Multi-bit ECC error], error code is 507054"),
    # Not of the GPU
    Message("ray-project/ray python/ray/exceptions.py", "",
            "Task was killed due to the node running low on memory.\nMemory on the node was 62GB / 64GB",
            "ray.exceptions.OutOfMemoryError"),
    Message("numpy/numpy numpy/_core/_exceptions.py", "",
            "Unable to allocate 29.8 GiB for an array with shape (4000000000,) and data type float64",
            "numpy._core._exceptions._ArrayMemoryError"),
    Message("glibc's strerror", "", "[Errno 28] No space left on device: '/dev/shm/psm_1'",
            "builtins.OSError"),
    Message("glibc's strerror", "port", "[Errno 98] Address already in use", "builtins.OSError"),
)  # fmt: skip
