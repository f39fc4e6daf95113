"""How many GPUs tests of other projects say that they need, in attributes and marks of theirs."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator

import pytest

from ...own import own_builtins

own_builtins(globals())

Reader = Callable[[pytest.Item], int]

_DEPTH = 32


def wanted_by_others(item: pytest.Item) -> int:
    """What the first of READERS says that says anything; 0 if none does, or only one GPU."""
    for read in READERS.values():
        number = read(item)
        if number > 1:
            return number
    return 0


def _pytorch(item: pytest.Item) -> int:
    """PyTorch's, torch/testing/_internal/common_distributed.py, read as its test/conftest.py does.

    ``skip_if_lt_x_gpu`` and ``requires_world_size`` note the number on the function, classes that
    start a process for each rank have it as their ``world_size``: an attribute, or a property.
    """
    cls = getattr(item, "cls", None)
    if _on_the_cpu(item) or _has_base(cls, "MultiThreadedTestCase"):
        return 0
    if _true_on(cls, "is_local_tensor_enabled"):  # ranks that are simulated in one process
        return 0
    noted = [
        _number(getattr(function, name, None))
        for function in _wrapped(_function(item))
        for name in ("_min_gpus_required", "_required_world_size", "world_size")
    ]
    on_class = [
        _number(_value_on(cls, name))
        for name in ("_min_gpus_required", "_required_world_size", "world_size")
    ]
    return max((*noted, *on_class), default=0)


def _deepspeed(item: pytest.Item) -> int:
    """DeepSpeed's ``@pytest.mark.world_size(4)``, which wins over the class, tests/unit/common.py.

    There may be several numbers: the test runs with each.
    """
    mark = item.get_closest_marker("world_size")
    return _number(mark.args[0]) if mark is not None and mark.args else 0


def _cupy(item: pytest.Item) -> int:
    """CuPy's ``@testing.multi_gpu(2)``, cupy/testing/_attr.py: its number is in a reason."""
    mark = item.get_closest_marker("multi_gpu")
    if mark is None:
        return 0
    reasons = [str(each.kwargs.get("reason")) for each in item.iter_markers("skipif")]
    said = [int(found[1]) for found in map(_GPUS_REQUIRED.fullmatch, reasons) if found]
    return max((*said, *map(_number, mark.args)), default=2)


READERS: dict[str, Reader] = {"deepspeed": _deepspeed, "cupy": _cupy, "pytorch": _pytorch}
"""By project; a conftest.py adds its own by the hook pytest_fkit_requirements."""

_GPUS_REQUIRED = re.compile(r"(\d{1,4}) GPUs required")

# As PyTorch's conftest.py tells files of tests whose ranks use no GPU.
_CPU_FILE = re.compile(r"(?:^|.*_)(?:gloo|mpi|ucc|cpu)(?:_.*|$)")


def _on_the_cpu(item: pytest.Item) -> bool:
    return _CPU_FILE.fullmatch(item.path.name.partition(".")[0]) is not None


def _function(item: pytest.Item) -> Any:
    """The test function; no instance of a class is made for it."""
    cls = getattr(item, "cls", None)
    if cls is None:
        return getattr(item, "obj", None)
    return getattr(cls, getattr(item, "originalname", None) or item.name, None)


def _wrapped(function: Any) -> Iterator[Any]:
    for _ in range(_DEPTH):
        if function is None:
            return
        yield function
        function = getattr(function, "__wrapped__", None)


def _has_base(cls: Any, name: str) -> bool:
    return isinstance(cls, type) and any(each.__name__ == name for each in cls.__mro__)


def _value_on(cls: Any, name: str) -> Any:
    """Of a class, or as a property gives it without anything being set up; else None."""
    value = getattr(cls, name, None)
    if not isinstance(value, property):
        return value
    try:
        return getattr(cls.__new__(cls), name)
    except Exception:  # noqa: BLE001 (users' code, which counts on a setup)
        return None


def _true_on(cls: Any, name: str) -> bool:
    return _value_on(cls, name) is True


def _number(value: object) -> int:
    """A number of GPUs, the largest of several, 0 for anything else."""
    if isinstance(value, (list, tuple)):
        return max(map(_number, value), default=0)
    return value if type(value) is int and value > 0 else 0
