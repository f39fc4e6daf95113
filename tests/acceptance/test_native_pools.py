"""Libraries that compute with threads of their own are forked all the same, and compute on.

Each test is skipped where its library is absent; `tox -e forks` and `tox -e torch` have them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from inner import run_pytest, write_files

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="native threads are looked up in /proc"
)

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

AT_IMPORT = """
import os

def work():{work}
EXPECTED = work()
IMPORTED_IN = os.getpid()

def test_1():
    assert os.getpid() != IMPORTED_IN
    assert work() == EXPECTED

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

def test_1(expected):
    assert os.getppid() == expected[0]
    assert work() == expected[1]

def test_2(expected):
    assert os.getppid() == expected[0]
    assert work() == expected[1]
"""


@pytest.mark.parametrize("suite", [AT_IMPORT, IN_FIXTURE], ids=["import", "fixture"])
@pytest.mark.parametrize("library", list(WORK))
def test_computing_does_not_switch_forks_off(tmp_path: Path, library: str, suite: str) -> None:
    if importlib.util.find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"needs {library}")
    write_files(tmp_path, {"test_it.py": suite.format(work=WORK[library])})
    arguments = ("--fkit", "-n1", "--fkit-timeout=60", "-p", "no:cacheprovider")
    ended = run_pytest(tmp_path, *arguments, env={"OMP_NUM_THREADS": "2"})
    assert sorted(ended.outcomes.values()) == ["PASSED", "PASSED"], ended.out
    assert "shared a process" not in ended.out


LOKY = """
import os
import pytest
from joblib import Parallel, delayed

PID = os.getpid()

def work():
    return Parallel(2)(delayed(abs)(number) for number in range(4))

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


def test_processes_of_joblib_end_with_their_test(tmp_path: Path) -> None:
    if importlib.util.find_spec("joblib") is None:
        pytest.skip("needs joblib")
    write_files(tmp_path, {"test_it.py": LOKY})
    arguments = ("--fkit", "-n1", "--fkit-timeout=30", "-p", "no:cacheprovider")
    ended = run_pytest(tmp_path, *arguments)
    assert sorted(ended.outcomes.values()) == ["PASSED", "PASSED"], ended.out
    assert "left processes running" not in ended.out
