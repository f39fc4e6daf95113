"""Why a process ended, by recorded outputs; what runs here is in acceptance/test_sanitizers.py."""

from __future__ import annotations

import pytest

from pytest_fkit.system.diagnostics import diagnosis, sanitizer_reports

# Compute Sanitizer: https://github.com/rapidsai/cudf/issues/15258, shortened.
_COMPUTE = """\
========= Invalid __shared__ read of size 16 bytes
=========     at 0x9670 in void cub::DeviceReduceSingleTileKernel<short>(T2, T3, T4)
=========     by thread (0,0,0) in block (0,0,0)
=========     Address 0x8 is misaligned
=========     Saved host backtrace up to driver entry point at kernel launch time
=========     Host Frame: [0x331d50]
"""

# ROCr: https://github.com/ROCm/legacy-rocm-build/issues/4554.
_ROCM = (
    "Memory access fault by GPU node-1 (Agent handle: 0x1f829860) on address 0x7a8a4be00000. "
    "Reason: Page not present or supervisor privilege.\n"
)

# LLVM's symbolizer, with columns: "Example of a report" in AddressSanitizer's documentation.
_LLVM = """\
=================================================================
==9442==ERROR: AddressSanitizer: heap-use-after-free on address 0x7f7ddab8c084 at pc 0x403c8c bp 0x1 sp 0x2
READ of size 4 at 0x7f7ddab8c084 thread T0
    #0 0x403c8c in main example_UseAfterFree.cc:4:7
    #1 0x7f7ddabcac4c in __libc_start_main ??:0
0x7f7ddab8c084 is located 4 bytes inside of 400-byte region [0x7f7ddab8c080,0x7f7ddab8c210)
==9442==ABORTING
"""  # noqa: E501

# CUDA: https://github.com/AkariAsai/self-rag/issues/91, its first two lines.
_CUDA = """\
../aten/src/ATen/native/cuda/Indexing.cu:1292: indexSelectLargeIndex: block: [654,0,0], thread: [120,0,0] Assertion `srcIndex < srcSelectDimSize` failed.
../aten/src/ATen/native/cuda/Indexing.cu:1292: indexSelectLargeIndex: block: [654,0,0], thread: [121,0,0] Assertion `srcIndex < srcSelectDimSize` failed.
terminate called after throwing an instance of 'c10::Error'
  what():  CUDA error: device-side assert triggered
Exception raised from c10_cuda_check_implementation at CUDAException.cpp:43
"""  # noqa: E501

# What a program of rustc 1.95 wrote.
_RUST = """\
thread '<unnamed>' panicked at src/lib.rs:12:9:
index 7 out of range
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
"""

_RUST_OVERFLOW = """
thread 'main' (7) has overflowed its stack
fatal runtime error: stack overflow, aborting
"""

_OLD_RUST = "thread 'main' panicked at 'index 7 out of range', src/lib.rs:12:9\n"

# ROCm: https://github.com/ROCm/ROCm/issues, as several quote it, with a made-up queue and time.
_QUEUE = """\
:0:rocdevice.cpp            :2984: 2787027630305 us: [pid:7 tid:0x7d] Callback: Queue 0x7f aborting with error : HSA_STATUS_ERROR_EXCEPTION: An HSAIL operation resulted in a hardware exception. code: 0x1016
GPU core dump failed
"""  # noqa: E501

# JAX: https://github.com/marin-community/marin/issues/1921.
_CHECK = """\
F0912 11:59:01.941641  741969 shape_tree.cc:54] Check failed: result->children_start_id >= 0 (-1 vs. 0)
*** Check failure stack trace: ***
    @     0x7f0e2365c1d4  absl::lts_20230802::log_internal::LogMessage::SendToLog()
"""  # noqa: E501

# JAX: https://github.com/jax-ml/jax/issues/17730.
_OLD_CHECK = (
    "2024-02-27 16:32:33.075782: F external/xla/gpu/nvptx_compiler.cc:614] Check failed: ok\n"
)

_OPENMP = """\
OMP: Error #15: Initializing libiomp5.so, but found libomp.so already initialized.
OMP: Hint This means that multiple copies of the OpenMP runtime have been linked into the program.
"""

_CODE_GENERATOR = """\
LLVM ERROR: Cannot select: intrinsic %llvm.nvvm.frob
PLEASE submit a bug report and include the crash backtrace.
Stack dump:
0.\tRunning pass 'NVPTX DAG->DAG Pattern Instruction Selection' on function '@frob'
 #0 0x000055d0 llvm::sys::PrintStackTrace(llvm::raw_ostream&, int)
"""

_PURE = "pure virtual method called\nterminate called without an active exception\n"

_THROWN = "terminate called after throwing an instance of 'std::bad_alloc'\n"

_MODULE_ONLY = """\
==7==ERROR: AddressSanitizer: SEGV on unknown address 0x000000003a3f (pc 0x1 bp 0x2 sp 0x3 T0)
    #0 0x7f5b088a8eec in __pthread_kill_implementation nptl/pthread_kill.c:44
    #1 0x7f5b088a8eec  (/lib/x86_64-linux-gnu/libc.so.6+0x3c04f)
    #2 0x7f5b05d62269 in frob_segv (/tmp/libfrob.so+0x1269) (BuildId: 0123)
==7==ABORTING
"""

_LEAK = """\
==7==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 40 byte(s) in 1 object(s) allocated from:
    #0 0x7f in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x7f in frob /tmp/frob.c:8

SUMMARY: AddressSanitizer: 40 byte(s) leaked in 1 allocation(s).
"""

_VALGRIND_SIGNAL = """\
==7== Process terminating with default action of signal 11 (SIGSEGV)
==7==  Access not within mapped region at address 0x8
==7==    at 0x484C1A9: frob_segv (frob.c:14)
==7==    by 0x1091C3: main (main.c:3)
"""

_ABORT = "SIGABRT"


@pytest.mark.parametrize(
    ("text", "ending", "reason"),
    [
        (_COMPUTE, "exit 99", "Invalid __shared__ read of size 16 bytes in void cub::DeviceR"),
        (_ROCM, _ABORT, "Memory access fault by GPU node-1: Page not present or supervisor priv"),
        (_CUDA, _ABORT, "Assertion `srcIndex < srcSelectDimSize` failed in Indexing.cu:1292"),
        (_QUEUE, _ABORT, "HSA_STATUS_ERROR_EXCEPTION: An HSAIL operation resulted in a hardware "),
        (_CHECK, _ABORT, "Check failed: result->children_start_id >= 0 (-1 vs. 0) in shape_tree.c"),
        (_OLD_CHECK, _ABORT, "Check failed: ok in nvptx_compiler.cc:614"),
        (_OPENMP, _ABORT, "Error #15: Initializing libiomp5.so, but found libomp.so already init"),
        (_CODE_GENERATOR, _ABORT, "LLVM ERROR: Cannot select: intrinsic %llvm.nvvm.frob"),
        (_PURE, _ABORT, "pure virtual method called"),
        (_RUST, _ABORT, "panicked in lib.rs:12: index 7 out of range"),
        (_OLD_RUST, _ABORT, "panicked in lib.rs:12: index 7 out of range"),
        (_THROWN, _ABORT, "terminate called after throwing an instance of 'std::bad_alloc'"),
        (_LLVM.replace("9442", "7"), "exit 1", "heap-use-after-free in example_UseAfterFree.cc:4"),
        (_MODULE_ONLY, "exit 1", "SEGV in frob_segv (libfrob.so)"),
        (_LEAK, "exit 23", "memory leaks in frob.c:8"),
        (_VALGRIND_SIGNAL, "SIGSEGV", "Process terminating with default action of signal 11"),
        ("*** buffer overflow detected ***: terminated\n", _ABORT, "buffer overflow detected"),
        ("corrupted size vs. prev_size\n", _ABORT, "corrupted size vs. prev_size"),
        *[
            (f"{text}\n", _ABORT, text)
            for text in (
                "Fatal glibc error: malloc assertion failure in sysmalloc: (old_top == initial_top",
                "Fatal glibc error: malloc.c:2599 (sysmalloc): assertion failed: (old_top == initi",
                "The futex facility returned an unexpected error code.",
                "tcache_thread_shutdown(): unaligned tcache chunk detected",
                "memory allocation of 70368744177664 bytes failed",
            )
        ],
        (_RUST_OVERFLOW, _ABORT, "fatal runtime error: stack overflow"),
        ("*** longjmp causes uninitialized stack frame ***: terminated\n", _ABORT, "longjmp cau"),
        ("Assertion failed: (x), function f, file a.c, line 9.\n", _ABORT, "Assertion failed: (x)"),
        # setproctitle puts the test's name in the place of the program's.
        (
            "g] a.py::test[x: 1]: f.cc:3: int f(int): Assertion `x' failed.\n",
            _ABORT,
            "Assertion `x' failed in f.cc:3",
        ),
        (
            "Fatal Python error: f: why\n\nCurrent thread 0x1\n  File\n",
            _ABORT,
            "Fatal Python error",
        ),
    ],
)
def test_recorded_outputs(text: str, ending: str, reason: str) -> None:
    found = diagnosis(f"before\n{text}", 7, ending)
    assert found is not None
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        # Of another process.
        (_LLVM, "exit 1"),
        # Followed by something else.
        *[
            (text + "goes on\n", _ABORT)
            for text in (_ROCM, _QUEUE, _CHECK, _OPENMP, _CODE_GENERATOR, _PURE)
        ],
        *[(text + "goes on\n", _ABORT) for text in (_THROWN, _OLD_RUST)],
        ("free(): invalid pointer\ngoes on\n", _ABORT),
        # Another ending.
        *[(text, "SIGSEGV") for text in (_ROCM, _RUST, _THROWN, _CUDA)],
        (_COMPUTE, "exit 0"),
        (_THROWN, "exit 1"),
        # It went on after the report, and died of something else.
        ("a.c:1:2: runtime error: shift exponent 32 is too large\ngoes on\n", "exit 1"),
        ("a.c:1:2: runtime error: shift exponent 32 is too large\n", "SIGSEGV"),
        ("WARNING: ThreadSanitizer: data race (pid=7)\n", "SIGSEGV"),
        # Within a line of something else.
        ("E   RuntimeError: free(): invalid pointer\n", _ABORT),
        (f"  > {_THROWN}", _ABORT),
        ("", _ABORT),
    ],
)
def test_what_is_no_evidence(text: str, ending: str) -> None:
    assert diagnosis(text, 7, ending) is None


def test_long_and_odd_lines_are_shortened() -> None:
    found = diagnosis(f"free(): \x1b[31m{'x' * 999}\n", 7, _ABORT)
    assert found is not None
    assert len(found.reason) == len(found.line) == 201
    assert "\x1b" not in found.reason


def test_reports_of_a_process_that_goes_on() -> None:
    race = "WARNING: ThreadSanitizer: data race (pid=7)\n    #0 f /a/b.c:3 (b.so+0x1)\n"
    assert sanitizer_reports(race * 3 + _LLVM, 7) == ["data race in b.c:3"]
    # UBSan's library is not in this process.
    assert sanitizer_reports("a.c:1:2: runtime error: shift exponent 32 is too large\n", 7) == []
