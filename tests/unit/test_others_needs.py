"""Needs said in the words of other projects; what stands for their classes is ours."""

from __future__ import annotations

import pytest

from pytest_fkit.gpu.slices.ownership import OWNED, Owned
from pytest_fkit.protocol.needs import Needs
from pytest_fkit.worker.needs_of_tests import needs_of

_SUITE = """\
import functools, unittest, warnings
import pytest
warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
mark = pytest.mark

def noted(**attributes):  # as skip_if_lt_x_gpu and requires_world_size do, below another decorator
    def decorate(function):
        vars(function).update(attributes)
        @functools.wraps(function)
        def wrapper(*args): return function(*args)
        vars(wrapper).clear()
        wrapper.__wrapped__ = function
        return wrapper
    return decorate

@noted(_min_gpus_required=4)
def test_at_least_4(): pass
@noted(_required_world_size=3)
def test_world_of_3(): pass
@noted(_min_gpus_required=16)
def test_more_than_there_are(): pass
@noted(_min_gpus_required=1)
def test_one(): pass
@noted(_min_gpus_required="4")
def test_something_else(): pass
@mark.fkit(gpus=2)
@noted(_min_gpus_required=4)
def test_ours(): pass

class MultiProcessTestCase(unittest.TestCase):
    @property
    def world_size(self): return 4
class TestRanks(MultiProcessTestCase):
    def test_4(self): pass
    @noted(_min_gpus_required=6)
    def test_6(self): pass
class TestCounts(MultiProcessTestCase):
    @property
    def world_size(self): return self.set_up_later
    @noted(_min_gpus_required=2)
    def test_2(self): pass
class MultiThreadedTestCase(unittest.TestCase):
    world_size = 4
class TestThreads(MultiThreadedTestCase):
    def test_none(self): pass
class TestSimulated(MultiProcessTestCase):
    @property
    def is_local_tensor_enabled(self): return True
    def test_none(self): pass

class TestDeepSpeed:
    world_size = [2, 4]
    def test_4(self): pass
    @mark.world_size(2)
    def test_2(self): pass
    @mark.world_size([1, 3])
    def test_3(self): pass

def multi_gpu(number):  # cupy.testing's
    def decorate(function):
        mark.skipif(False, reason=f"{number} GPUs required")(mark.multi_gpu(function))
        return function
    return decorate
@multi_gpu(3)
def test_cupy_3(): pass
@mark.multi_gpu
def test_several(): pass
@mark.multi_gpu(5)
def test_cupy_5(): pass
def test_plain(): pass
"""

_EXPECTED = {
    "test_at_least_4": 4, "test_world_of_3": 3, "test_more_than_there_are": None, "test_one": None,
    "test_something_else": None, "test_ours": 2, "TestRanks.test_4": 4, "TestRanks.test_6": 6,
    "TestCounts.test_2": 2, "TestThreads.test_none": None, "TestSimulated.test_none": None,
    "TestDeepSpeed.test_4": 4, "TestDeepSpeed.test_2": 2, "TestDeepSpeed.test_3": 3,
    "test_cupy_3": 3, "test_several": 2, "test_cupy_5": 5, "test_plain": None,
}  # fmt: skip


def _found(pytester: pytest.Pytester) -> dict[str, int | None]:
    items = pytester.getitems(_SUITE)
    items[0].config.stash[OWNED] = Owned(0, ("0", "1"), most=8)
    names = (".".join(item.nodeid.split("::")[1:]) for item in items)
    return {name: needs_of(item).gpus for name, item in zip(names, items)}


def test_what_they_say(pytester: pytest.Pytester) -> None:
    assert _found(pytester) == _EXPECTED


def test_ranks_that_use_no_gpu(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(
        test_c10d_gloo="class TestIt:\n    world_size = 4\n    def test_it(self): pass\n"
    )
    items, _ = pytester.inline_genitems(path)
    items[0].config.stash[OWNED] = Owned(0, ("0", "1"), most=8)
    assert needs_of(items[0]) == Needs()


def test_nothing_where_no_gpus_are_owned(pytester: pytest.Pytester) -> None:
    assert {needs_of(item).gpus for item in pytester.getitems(_SUITE)} == {None, 2}
