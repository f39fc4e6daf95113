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
    Message("NVIDIA/nvshmem src/host/init/init.cu (pytorch/pytorch issue 161232)", "library",
            "src/host/init/init.cu:nvshmemi_check_state_and_init:1117: nvshmem initialization failed, exiting"),
    Message("NVIDIA/nvshmem src/host/init/init.cu (deepseek-ai/DeepEP issue 55)", "library",
            "/workspace/nvshmem_src/src/host/init/init.cu:989: non-zero status: 7 nvshmem detect topo failed"),
    Message("deepseek-ai/DeepEP, reports of users", "library", "DeepEP error: CPU recv timeout"),
    Message("deepseek-ai/DeepEP issue 707", "library", "DeepEP error: timeout (dispatch CPU)"),
    Message("nvidia-smi (NVIDIA/nvidia-docker issue 1553)", "device",
            "Unable to determine the device handle for GPU 0000:09:00.0: Unknown Error"),
    Message("nvidia-smi (NVIDIA/nvidia-container-toolkit issue 48)", "missing",
            "Failed to initialize NVML: Unknown Error"),
    Message("NVIDIA's pynvml.py", "missing", "Driver Not Loaded", "pynvml.NVMLError_DriverNotLoaded"),
    Message("ROCm/hipBLAS library/include/hipblas-common.h", "library",
            "CUDA error: HIPBLAS_STATUS_UNKNOWN when calling `hipblasCreate(handle)`"),
    Message("ROCm/rccl, ROCm/rocm-systems issue 8178", "other",
            "[FATAL ERROR]: HIP failure: 'invalid device pointer'"),
    Message("microsoft/onnxruntime onnxruntime/core/framework/bfc_arena.cc (issue 22702)", "memory",
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv "
            "node. Name:'/Conv' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 "
            "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*, bool, "
            "onnxruntime::WaitNotificationFn) Failed to allocate memory for requested buffer of size 9395240",
            "onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException"),
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
    Message("numba/numba issue 8638", "missing",
            "Error at driver init: Call to cuInit results in CUDA_ERROR_UNKNOWN (999)",
            "numba.cuda.cudadrv.error.CudaSupportError"),
    Message("NVIDIA/cudf pull request 16300", "missing", "[999] Call to cuInit results in CUDA_ERROR_UNKNOWN",
            "numba.cuda.cudadrv.driver.CudaAPIError"),
    Message("numba/numba issue 8395", "missing", "Error at driver init: \nCall to cuInit results in "
            "UNKNOWN_CUDA_ERROR (-1)", "numba.cuda.cudadrv.error.CudaSupportError"),
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
    Message("openxla/xla xla/service/gpu/nccl_utils.cc (jax-ml/jax issue 17399)", "library",
            "INTERNAL: Failed to execute XLA Runtime executable: run time error: custom call "
            "'xla.gpu.all_reduce' failed: external/xla/xla/service/gpu/nccl_utils.cc:275: NCCL operation "
            "ncclCommInitRank(&comm, nranks, id, rank) failed: unhandled cuda error",
            "jaxlib.xla_extension.XlaRuntimeError"),
    Message("openxla/xla xla/service/gpu/nccl_utils.cc (LargeWorldModel/LWM issue 42)", "library",
            "INTERNAL: external/xla/xla/service/gpu/nccl_utils.cc:305: NCCL operation ncclCommInitRank(&comm, "
            "nranks, id, rank) failed: internal error - please report this issue to the NCCL developers. Last "
            "NCCL warning(error) log entry (may be unrelated) 'Attribute busid of node nic not found'.",
            "jaxlib.xla_extension.XlaRuntimeError"),
    Message("openxla/xla pull request 7201", "memory",
            "NCCL operation ncclCommInitRank(&comm, nranks, id, rank) failed: unhandled cuda error (run with "
            "NCCL_DEBUG=INFO for details). Last NCCL warning(error) log entry (may be unrelated) 'Cuda failure "
            "2 'out of memory''.", "jaxlib._jax.XlaRuntimeError"),
    Message("openxla/xla xla/service/gpu/nccl_utils.cc (j-towns/vdvae-jax issue 2)", "",
            "Internal: nccl_all_reduce_thunk.cc:162: NCCL operation ncclAllReduce(send_buffer, recv_buffer, "
            "buffer.element_count, datatype, reduce_op, comm, *cu_stream) failed: invalid usage"),
    Message("openxla/xla (jax-ml/jax issue 18391)", "build",
            "external/xla/xla/service/gpu/nccl_utils.cc:133: NCCL operation ncclGetUniqueId(&id) failed: "
            "Unable to load NCCL library. Multi-GPU collectives will not work.",
            "jaxlib.xla_extension.XlaRuntimeError"),
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
    Message("vllm-project/vllm tests/utils.py", "memory",
            "Memory of devices devices=[0] not free after dur_s=120.04 (threshold_bytes=2147483648)",
            "builtins.ValueError"),
    # Intel's, Ascend's
    Message("pytorch/pytorch issue 149953", "other", "UR error"),
    Message("intel/torch-xpu-ops issue 5061", "memory",
            "level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"),
    Message("intel/torch-xpu-ops issue 5432", "suspect",
            "level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)"),
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
    # Not of the GPU: the test's own fault, or the program's
    Message("NVIDIA/cudnn-frontend issue 75", "", "[cudnn_frontend] Error: No execution plans support the "
            "graph.", "cudnn._compiled_module.cudnnGraphNotSupportedError"),
    Message("pytorch/pytorch issue 140930", "",
            "cuDNN Frontend error: [cudnn_frontend] Error: No execution plans support the graph."),
    Message("pytorch/pytorch, reports of users", "", "Expected all tensors to be on the same device, but "
            "found at least two devices, cuda:0 and cpu!"),
    Message("pytorch/pytorch, reports of users", "", "Input type (torch.cuda.FloatTensor) and weight type "
            "(torch.FloatTensor) should be the same"),
    Message("pytorch/pytorch, reports of users", "", "Could not run 'aten::empty.memory_format' with arguments "
            "from the 'CUDA' backend. This could be because the operator doesn't exist for this backend",
            "builtins.NotImplementedError"),
    Message("pytorch/pytorch, reports of users", "", "Distributed package doesn't have NCCL built in"),
    Message("pytorch/pytorch, reports of users", "",
            "wait timeout after 300000ms, keys: /default_pg/0//cuda//0", "torch.distributed.DistStoreError"),
    Message("pytorch/pytorch, reports of users", "", "CUDA_HOME environment variable is not set. Please set "
            "it to your CUDA install root.", "builtins.OSError"),
    Message("pytorch/gloo (sgl-project/sglang issue 4205)", "",
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:51021"),
    Message("rapidsai/ucxx pull request 681", "", "Trying to reset UCX but not all Endpoints and/or Listeners "
            "are closed()", "ucp.exceptions.UCXError"),
    Message("rapidsai/dask-cuda issue 713", "", "Endpoint 0x7f5440fb3d00 error: Connection reset by remote "
            "peer", "ucp.exceptions.UCXConnectionReset"),
    Message("jax-ml/jax, reports of users", "", "INVALID_ARGUMENT: Executable expected parameter 0 of size 8 "
            "but got buffer with incompatible size 16", "jaxlib._jax.XlaRuntimeError"),
    Message("triton-lang/triton, reports of users", "", "Internal Triton PTX codegen error\n`ptxas` stderr:\n"
            "ptxas fatal   : Value 'sm_103a' is not defined for option 'gpu-name'",
            "triton.runtime.errors.PTXASError"),
    Message("triton-lang/triton, reports of users", "", "PassManager::run failed"),
    Message("vllm-project/vllm, reports of users", "", "Bfloat16 is only supported on GPUs with compute "
            "capability of at least 8.0. Your Tesla T4 GPU has compute capability 7.5.", "builtins.ValueError"),
    Message("vllm-project/vllm, reports of users", "", "The quantization method fp8 is not supported for the "
            "current GPU. Minimum capability: 89. Current capability: 80.", "builtins.ValueError"),
    Message("vllm-project/vllm tests/utils.py", "", "Server failed to start in time."),
    Message("Dao-AILab/flash-attention", "", "FlashAttention only supports Ampere GPUs or newer."),
    Message("huggingface/transformers, reports of users", "", "Some modules are dispatched on the CPU or the "
            "disk. Make sure you have enough GPU RAM to fit the quantized model.", "builtins.ValueError"),
    Message("deepspeedai/DeepSpeed, reports of users", "", "Error building extension 'fused_adam': nvcc fatal "
            ": Unsupported gpu architecture 'compute_120'"),
    Message("sqlite", "", "out of memory", "sqlite3.OperationalError"),
    # Not of the GPU: the machine's
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
