"""Libraries that compute with threads of their own are forked all the same, and compute on.

Those that can't be forked are known, wherever they computed.

Each test is skipped where its library is absent; `tox -e forks` and `tox -e torch` have them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from inner import InnerRun, run_pytest, write_files

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="native threads are looked up in /proc"
)

NUMBA = """
        import numba, numpy

        @numba.njit(parallel=True)
        def total(numbers):
            found = 0.0
            for position in numba.prange(numbers.size):
                found += numbers[position]
            return found

        return float(total(numpy.ones(1000)))
    """

# What makes the library use threads; its result.
WORK = {
    "numpy": """
        import numpy
        a = numpy.ones((600, 600))
        return float((a @ a)[0, 0])
    """,
    "scipy": """
        import numpy, scipy.fft, scipy.linalg
        scipy.linalg.eigh(numpy.eye(300))
        return float(abs(scipy.fft.fft(numpy.ones((256, 256)), workers=2)[0, 0]))
    """,
    "pandas": """
        import numpy, pandas
        frame = pandas.DataFrame(numpy.ones((1_000_000, 3)))
        return float((frame * 2 + 1).groupby(0).sum().sum().sum())
    """,
    "pyarrow": """
        import pyarrow, pyarrow.csv
        table = pyarrow.csv.read_csv(pyarrow.BufferReader(b"a,b\\n" + b"1,2\\n" * 1_000_000))
        return table.num_rows
    """,
    "numexpr": """
        import numexpr, numpy
        numexpr.set_num_threads(2)
        a = numpy.ones(1_000_000)
        return float(numexpr.evaluate("a * 2 + 1")[0])
    """,
    "numba.workqueue": """
        import os
        os.environ["NUMBA_THREADING_LAYER"] = "workqueue"
"""
    + NUMBA,
    "tqdm": """
        import os, tqdm
        with open(os.devnull, "w") as nowhere:
            return sum(tqdm.tqdm([1, 2], file=nowhere))
    """,
    "torch": """
        import torch
        return float(torch.nn.functional.relu(torch.ones(4_000_000)).sum())
    """,
    "torch.set_num_threads": """
        import torch
        torch.set_num_threads(3)
        torch.backends.quantized.engine = "qnnpack"  # computes with the pool that this starts
        linear = torch.ao.nn.quantized.Linear(256, 256)
        linear(torch.quantize_per_tensor(torch.ones(512, 256), 0.1, 0, torch.quint8))
        return float(torch.nn.functional.relu(torch.ones(4_000_000)).sum())
    """,
}

# The same of libraries that no forked process can use after that.
UNFORKABLE = {
    "jax": """
        import jax.numpy
        return float(jax.numpy.ones(1000).sum())
    """,
    "numba": NUMBA,
    "polars": """
        import polars
        frame = polars.DataFrame({"a": [1] * 100_000, "b": list(range(100_000))})
        return frame.lazy().group_by("b").sum().collect()["a"].sum()
    """,
}

AT_IMPORT = """
import os

def work():{work}
EXPECTED = work()
IMPORTED_IN = os.getpid()

def test_1(recwarn):
    assert (os.getpid() != IMPORTED_IN) is {forked}
    assert work() == EXPECTED
    assert not [each for each in recwarn.list if "fork" in str(each.message)]

def test_2():
    assert work() == EXPECTED
"""

IN_FIXTURE = """
import os
import pytest

def work():{work}
@pytest.fixture(scope="session")
def expected():
    return os.getpid(), work()

def test_1(expected, recwarn):
    assert (os.getpid() != expected[0]) is {forked}
    assert work() == expected[1]
    assert not [each for each in recwarn.list if "fork" in str(each.message)]

def test_2(expected):
    assert (os.getpid() != expected[0]) is {forked}
    assert work() == expected[1]
"""


IN_PLUGIN = """
from plugin_that_computes import EXPECTED, IMPORTED_IN, test_1, test_2, work
"""

SUITES = {"import": AT_IMPORT, "fixture": IN_FIXTURE, "plugin": IN_PLUGIN}


def run_with(
    directory: Path, suite: str, work: str, *arguments: str, forked: bool = True
) -> InnerRun:
    """Run two tests, with what computes at import, in a wide fixture, or in a plugin by -p."""
    files = {"test_it.py": SUITES[suite].format(work=work, forked=forked)}
    if suite == "plugin":
        files["plugin_that_computes.py"] = AT_IMPORT.format(work=work, forked=forked)
        arguments = (*arguments, "-p", "plugin_that_computes")
    write_files(directory, files)
    environ = {
        "OMP_NUM_THREADS": "2",
        "NUMBA_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join([str(directory), *filter(None, [os.getenv("PYTHONPATH")])]),
    }
    # pytest-asyncio, which `tox -e forks` installs, warns when it is configured.
    common = ("--fkit", "--fkit-timeout=60", "-p", "no:cacheprovider", "-p", "no:asyncio")
    return run_pytest(directory, *common, *arguments, env=environ)


def skip_without(library: str) -> None:
    if importlib.util.find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"needs {library}")


@pytest.mark.parametrize("suite", list(SUITES))
@pytest.mark.parametrize("library", list(WORK))
def test_computing_does_not_switch_forks_off(tmp_path: Path, library: str, suite: str) -> None:
    skip_without(library)
    ended = run_with(tmp_path, suite, WORK[library], "-n1")
    assert sorted(ended.outcomes.values()) == ["PASSED", "PASSED"], ended.out
    assert "shared a process" not in ended.out


@pytest.mark.parametrize("suite", list(SUITES))
@pytest.mark.parametrize("library", list(UNFORKABLE))
def test_what_can_not_be_forked_shares_a_process(tmp_path: Path, library: str, suite: str) -> None:
    skip_without(library)
    ended = run_with(tmp_path, suite, UNFORKABLE[library], "-n1", "-W", "error", forked=False)
    assert sorted(ended.outcomes.values()) == ["PASSED", "PASSED"], ended.out
    assert "2 tests shared a process, because of " in ended.out, ended.out
    assert "fork()" not in ended.out


PROCESS_POOLS = {
    "joblib": """
from joblib import Parallel, delayed

def work():
    return Parallel(2)(delayed(abs)(number) for number in range(4))
""",
    "pebble": """
from pebble import ProcessPool

POOL = ProcessPool(2)

def work():
    return [POOL.schedule(abs, [number]).result() for number in range(4)]
""",
}
WORKS = """
import os
import pytest

PID = os.getpid()

def test_in_test():
    assert work() == [0, 1, 2, 3]
    assert os.getpid() != PID

@pytest.fixture(scope="class")
def worked():
    return work()

class TestWide:
    def test_in_fixture(self, worked):
        assert work() == worked
"""


@pytest.mark.parametrize("library", PROCESS_POOLS)
def test_processes_of_a_pool_end_with_their_test(tmp_path: Path, library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    write_files(tmp_path, {"test_it.py": PROCESS_POOLS[library] + WORKS})
    arguments = ("--fkit", "-n1", "--fkit-timeout=30", "-p", "no:cacheprovider")
    ended = run_pytest(tmp_path, *arguments)
    assert sorted(ended.outcomes.values()) == ["PASSED", "PASSED"], ended.out
    assert "left processes running" not in ended.out
