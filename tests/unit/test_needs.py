"""What marks, plugins and the marks of other projects say about what a test needs."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_fkit.gpu.slices.ownership import OWNED, Owned
from pytest_fkit.protocol.needs import Needs
from pytest_fkit.worker.needs_of_tests import needs_if_right, needs_of, needs_of_all

# The marks of other projects are registered by these.
_BEGINNING = """\
import warnings
import pytest
warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
mark = pytest.mark
"""


def _items(pytester: pytest.Pytester, source: str) -> list[pytest.Item]:
    return pytester.getitems(_BEGINNING + source)


def _needs(pytester: pytest.Pytester, marks: str, plugin: object = None) -> Needs:
    [item] = _items(pytester, f"{marks}\ndef test_it(): pass")
    item.config.stash[OWNED] = Owned(0, ("0", "1"), most=2)
    if plugin is not None:
        item.config.pluginmanager.register(plugin)
    return needs_of(item)


_SAID = [
    ("", Needs()),
    ("@mark.fkit_single_gpu", Needs(1)),
    ("@mark.fkit_multi_gpu", Needs(2)),
    ("@mark.fkit_multi_gpu(4)", Needs(4)),
    ("@mark.fkit_multi_gpu(number=3)", Needs(3)),
    ("@mark.fkit(gpus=0)", Needs(0)),
    ("@mark.fkit(gpus=5, serial='port')", Needs(5, "port")),
    ("@mark.fkit(gpus=None, serial=None)", Needs()),
    ("@mark.fkit(gpu_memory='1.5G')", Needs(None, "", 3 << 29)),
    ("@mark.fkit(gpus=2, gpu_memory=4096)", Needs(2, "", 4096)),
    ("@mark.fkit(gpu_memory='1G')\n@mark.fkit(gpu_memory=0)", Needs()),
    ("@mark.fkit(gpus=0)\n@mark.fkit(gpu_memory='1G')", Needs(None, "", 1 << 30)),
    ("@mark.fkit_single_gpu\n@mark.fkit(gpus=5, serial='port')", Needs(5, "port")),
    ("@mark.fkit(serial='port')\n@mark.fkit_multi_gpu(4)", Needs(4, "port")),
    ("@mark.distributed(num_gpus=4)", Needs(4)),
    ("@mark.fkit_single_gpu\n@mark.distributed(num_gpus=4)", Needs(1)),
    # Other projects have marks of this name that mean other things.
    ("@mark.distributed", Needs()),
    ("@mark.distributed(num_gpus='all')", Needs()),
    ("@mark.distributed(world_size=2)", Needs()),
    ("@mark.multiaccelerator", Needs(2)),
]


def test_what_marks_say(pytester: pytest.Pytester) -> None:
    tests = (f"{marks}\ndef test_{number}(): pass\n" for number, (marks, _) in enumerate(_SAID))
    items = _items(pytester, "".join(tests))
    items[0].config.stash[OWNED] = Owned(0, ("0", "1"), most=2)
    assert [(marks, needs_of(item)) for item, (marks, _) in zip(items, _SAID)] == _SAID


def test_the_closest_mark_wins(pytester: pytest.Pytester) -> None:
    first, second = _items(
        pytester,
        """
pytestmark = mark.fkit(gpus=4, serial="module")
@mark.fkit_single_gpu
class TestIt:
    def test_1(self): pass
    @mark.fkit(gpus=3)
    def test_2(self): pass
""",
    )
    assert (needs_of(first), needs_of(second)) == (Needs(1, "module"), Needs(3, "module"))


@pytest.mark.parametrize(("ids", "most", "gpus"), [("01", 8, 8), ("0", 1, 1), ("01", 0, 2)])
def test_jaxs_mark_means_all_gpus_that_there_are(
    pytester: pytest.Pytester, ids: str, most: int, gpus: int
) -> None:
    [item] = _items(pytester, "@mark.multiaccelerator\ndef test_it(): pass")
    item.config.stash[OWNED] = Owned(0, tuple(ids), most=most)
    assert needs_of(item) == Needs(gpus)


@pytest.mark.parametrize("mark", ["multiaccelerator", "distributed(num_gpus=4)"])
def test_where_no_gpus_are_owned_the_marks_of_others_say_nothing(
    pytester: pytest.Pytester, mark: str
) -> None:
    [item] = _items(pytester, f"@mark.{mark}\ndef test_it(): pass")
    assert needs_of(item) == Needs()


class Answering:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def pytest_fkit_requirements(self, item: pytest.Item) -> Any:
        return self._answer(item) if callable(self._answer) else self._answer


def _world(item: pytest.Item) -> dict[str, Any]:
    [mark] = item.iter_markers("world")
    return {"gpus": mark.args[0]}


@pytest.mark.parametrize(
    ("marks", "answer", "expected"),
    [
        ("", None, Needs()),
        ("", {}, Needs()),
        ("", {"gpus": 4}, Needs(4)),
        ("", {"gpus": None, "serial": "port"}, Needs(None, "port")),
        ("", Needs(3, "port"), Needs(3, "port")),
        ("", Needs(), Needs()),
        ("", {"gpu_memory": "2G"}, Needs(None, "", 2 << 30)),
        ("", Needs(1, gpu_memory=7), Needs(1, "", 7)),
        ("@mark.fkit(gpu_memory='1G')", {"gpu_memory": "2G", "gpus": 1}, Needs(1, "", 1 << 30)),
        ("@mark.fkit_single_gpu", {"gpus": 4, "serial": "port"}, Needs(1, "port")),
        ("@mark.distributed(num_gpus=2)", {"gpus": 4}, Needs(4)),
        ("@mark.distributed(num_gpus=2)", None, Needs(2)),
        ("@mark.world(4)", _world, Needs(4)),
    ],
)
def test_plugins_are_asked(
    pytester: pytest.Pytester, marks: str, answer: Any, expected: Needs
) -> None:
    assert _needs(pytester, marks, Answering(answer)) == expected


def _raising(item: pytest.Item) -> None:
    raise KeyError("world")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (4, "answered 4: expected None, or a dict as {'gpus': 4, 'serial': 'name', "),
        ({"gpu": 4}, "answered {'gpu': 4}: expected None, or a dict as"),
        (
            {"gpus": "4"},
            "answered {'gpus': '4'}: expected a non-negative number of GPUs",
        ),
        ({"serial": 1}, "answered {'serial': 1}: expected a name"),
        (
            {"gpu_memory": "much"},
            "answered {'gpu_memory': 'much'}: expected a size such as",
        ),
        (_raising, "raised KeyError: 'world'"),
    ],
)
def test_answers_that_make_no_sense(pytester: pytest.Pytester, answer: Any, text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        _needs(pytester, "", Answering(answer))
    assert str(caught.value).startswith(f"pytest_fkit_requirements {text}")
    assert str(caught.value).endswith("(for test_answers_that_make_no_sense.py::test_it)")


def test_a_plugin_is_asked_once(pytester: pytest.Pytester) -> None:
    [item] = _items(pytester, "def test_it(): pass")
    asked: list[pytest.Item] = []
    item.config.pluginmanager.register(Answering(asked.append))
    assert needs_of(item) is needs_of(item)
    assert asked == [item]


def test_on_the_wire_wrong_marks_are_none(pytester: pytest.Pytester) -> None:
    items = _items(
        pytester,
        "@mark.fkit(gpus=4, serial='x', gpu_memory=5)\ndef test_1(): pass\n"
        "@mark.fkit(gpus='x')\ndef test_2(): pass\n",
    )
    assert list(map(needs_if_right, items)) == [Needs(4, "x", 5), Needs()]


def test_patterns_of_tests_that_never_run_at_the_same_time(pytester: pytest.Pytester) -> None:
    items = _items(
        pytester,
        "@mark.fkit_serial\ndef test_marked(): pass\n"
        "@mark.fkit(serial='port')\n@mark.parametrize('x', 'ab')\ndef test_port(x): pass\n"
        "@mark.fkit(serial='disk')\ndef test_disk(): pass\n"
        "@mark.fkit(gpus=4)\ndef test_nccl_ring(): pass\n"
        "def test_ddp(): pass\ndef test_other(): pass\n",
    )

    def serial(*patterns: str) -> dict[str, str]:
        found = needs_of_all(items, patterns)
        return {item.name[5:]: each.serial for item, each in zip(items, found) if each.serial}

    marked = {"marked": "fkit_serial", "port[a]": "port", "port[b]": "port", "disk": "disk"}
    assert serial() == serial("TEST_DDP") == serial("test_.*") == marked
    group = {**marked, "nccl_ring": "fkit_serial", "ddp": "fkit_serial"}
    assert serial("nccl", "::test_ddp") == group
    # What ran apart before still does.
    both = {**group, "port[a]": "fkit_serial", "port[b]": "fkit_serial"}
    assert serial("n*ring", "test_port[a]", "ddp") == both
    assert needs_of_all(items, ["nccl"])[4] == Needs(4, "fkit_serial")
