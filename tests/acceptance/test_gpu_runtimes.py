"""An open GPU runtime does not survive a fork: with stand-ins for the driver, PyTorch and JAX."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="descriptors and maps are looked up in /proc"
)

# Return values as the CUDA driver API's: 0 success, 3 not initialized.
DRIVER = """
    int opened = 0;
    int cuInit(unsigned flags) { opened = 1; return 0; }
    int cuDeviceGetCount(int *count) { *count = 1; return opened ? 0 : 3; }
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a libcuda.so.1 that knows whether it was initialized."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    directory = tmp_path_factory.mktemp("driver")
    source = directory / "cuda.c"
    source.write_text(DRIVER)
    library = directory / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)


# As PyTorch: the child of a fork finds out, by a handler that runs there.
TORCH = """
    import os

    _initialized = _bad_fork = False

    def _is_in_bad_fork():
        return _bad_fork

    def init():
        global _initialized
        if _bad_fork:
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
        if not _initialized:
            _initialized = True
            os.register_at_fork(after_in_child=_forked)

    def _forked():
        global _bad_fork
        _bad_fork = True
"""


@pytest.fixture
def torch(pytester: pytest.Pytester) -> None:
    """A package of that name, where the inner run finds it."""
    pytester.makepyfile(**{"torch/__init__": "", "torch/cuda": TORCH})


@pytest.fixture(params=["-n0", "-n1"])
def workers(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("--fkit", *arguments, timeout=100)


def test_an_import_that_opens_the_driver_has_all_tests_spawned(
    pytester: pytest.Pytester, driver: str, workers: str
) -> None:
    pytester.makepyfile(
        test_a_loads=f"""
            import ctypes
            DRIVER = ctypes.CDLL({driver!r})
            def test_loaded(): pass
        """,
        test_b_opens=f"""
            import ctypes, os
            IMPORTED_IN = os.getpid()
            ctypes.CDLL({driver!r}).cuInit(0)
            def test_open():
                assert IMPORTED_IN == os.getpid()
        """,
    )
    result = run(pytester, workers)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["2 tests shared a process, because of import of test_b_opens.py: an open CUDA runtime"]
    )


def test_a_driver_that_is_loaded_but_not_open_is_forked(
    pytester: pytest.Pytester, driver: str
) -> None:
    pytester.makepyfile(
        f"""
        import ctypes, os
        IMPORTED_IN = os.getpid()
        DRIVER = ctypes.CDLL({driver!r})

        def test_is_forked():
            assert IMPORTED_IN != os.getpid()
            assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
        """
    )
    result = run(pytester, "-n1")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*shared a process*")


@pytest.mark.parametrize("hook", ["", "pytest_configure", "pytest_sessionstart"])
def test_a_driver_that_a_conftest_opens_has_all_tests_spawned(
    pytester: pytest.Pytester, driver: str, hook: str
) -> None:
    opens = f"__import__('ctypes').CDLL({driver!r}).cuInit(0)"
    pytester.makeconftest(f"def {hook}(): {opens}" if hook else opens)
    pytester.makepyfile(
        "import os\nIMPORTED_IN = os.getpid()\ndef test_open(): assert IMPORTED_IN == os.getpid()"
    )
    result = run(pytester, "-n1")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 test shared a process, because of *: an open CUDA runtime"])


def test_a_driver_that_a_wide_fixture_opens_has_its_tests_share_a_process(
    pytester: pytest.Pytester, driver: str, workers: str
) -> None:
    pytester.makepyfile(
        f"""
        import ctypes, os
        import pytest

        @pytest.fixture(scope="class")
        def runtime():
            driver = ctypes.CDLL({driver!r})
            driver.cuInit(0)
            return driver, os.getpid()

        class TestOpen:
            @pytest.mark.parametrize("number", [1, 2])
            def test_open(self, runtime, number):
                driver, pid = runtime
                assert driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) == 0
                assert pid == os.getpid()

        def test_shut():
            driver = ctypes.CDLL({driver!r})
            assert driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) == 3
        """
    )
    result = run(pytester, workers)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["2 tests shared a process, because of class-scoped fixture 'runtime' *: an open CUDA *"]
    )


@pytest.mark.parametrize("isolation", ["function", "session"])
def test_a_fork_that_pytorch_finds_bad_is_no_attempt(
    pytester: pytest.Pytester, torch: None, workers: str, isolation: str
) -> None:
    pytester.makepyfile(
        test_a_initializes="""
            import torch.cuda
            torch.cuda.init()

            def test_1():
                torch.cuda.init()

            def test_fails():
                torch.cuda.init()
                assert not "a failure"
        """,
        test_b="""
            def test_2():
                open("ran", "x").close()
        """,
    )
    arguments = [] if isolation == "function" else ["--fkit-isolation=session"]
    result = run(pytester, workers, *arguments)
    result.assert_outcomes(passed=2, failed=1)
    if not arguments:
        result.stdout.fnmatch_lines(["3 tests shared a process, because of *torch.cuda can't use*"])
    result.stdout.no_fnmatch_line("*crashed*")


def test_a_fork_that_is_bad_for_a_wide_fixtures_sake_is_not_needed(
    pytester: pytest.Pytester, torch: None
) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest, torch.cuda

        @pytest.fixture(scope="module")
        def initialized():
            torch.cuda.init()
            return os.getpid()

        def test_before():
            assert not torch.cuda._initialized

        @pytest.mark.parametrize("number", [1, 2])
        def test_under_it(initialized, number):
            torch.cuda.init()
            assert initialized == os.getpid()
        """
    )
    result = run(pytester, "-n1")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["2 tests shared a process, because of module-scoped fixture 'initialized' (*.py:*): *"]
    )


@pytest.mark.parametrize("place", ["import", "fixture"])
def test_backends_of_jax(pytester: pytest.Pytester, place: str) -> None:
    pytester.makepyfile(
        **{
            "jax/__init__": "",
            "jax/_src/__init__": "",
            "jax/_src/xla_bridge": "_backends = {}\ndef open(): _backends['cpu'] = object()\n",
            "test_it": f"""
                import os
                import pytest
                from jax._src import xla_bridge

                if {place == "import"}:
                    xla_bridge.open()

                @pytest.fixture(scope="module", autouse=True)
                def opened():
                    xla_bridge.open()
                    return os.getpid()

                def test_it(opened):
                    assert opened == os.getpid()
            """,
        }
    )
    result = run(pytester, "-n1")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 test shared a process, because of *: open JAX backends (cpu)"])


# A /dev of one's own, in which a GPU's device is the null device; what pytest needs there is the
# real one's.
OWN_DEV = """
    set -e
    mkdir dev
    mount -t tmpfs tmpfs dev
    for each in null zero urandom random tty; do
        : > dev/$each
        mount --bind /dev/$each dev/$each
    done
    mkdir dev/shm
    ln -s /proc/self/fd dev/fd
    : > dev/$1
    mount --bind /dev/null dev/$1
    mount --rbind dev /dev
    shift
    exec "$@"
"""


@pytest.mark.parametrize("device", ["kfd", "nvidia-uvm"])
def test_a_device_that_an_import_leaves_open_has_all_tests_spawned(
    pytester: pytest.Pytester, device: str
) -> None:
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", OWN_DEV, "sh", device]
    tried = subprocess.run([*own, "true"], check=False) if shutil.which("unshare") else None
    if tried is None or tried.returncode != 0:
        pytest.skip("no mount namespace")
    shutil.rmtree("dev")
    pytester.makepyfile(
        test_opens=f"import os\nOPEN = os.open('/dev/{device}', os.O_RDONLY)\ndef test_1(): pass",
        test_other="import os\nIN = os.getpid()\ndef test_2(): assert IN == os.getpid()",
    )
    command = [sys.executable, "-m", "pytest", "--fkit", "-n1", "-p", "no:cacheprovider"]
    command += ["test_opens.py", "test_other.py"]
    result = pytester.run(*own, *command, timeout=100)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [f"2 tests shared a process, because of import of test_opens.py: *(/dev/{device})"]
    )
