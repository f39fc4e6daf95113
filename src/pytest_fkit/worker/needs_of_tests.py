"""What tests need: as marks, plugins and other projects say, or a skip for too few GPUs."""

from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, Sequence

import pytest

from ..config.marks import ALL_GPUS, SERIAL, Arguments, answer_of_hook, arguments
from ..config.options import MARK_ARGUMENTS
from ..config.values import parse
from ..gpu.slices.ownership import OWNED, ids_in
from ..own import own_builtins
from ..protocol.event_file import ReportData, add_facts
from ..protocol.needs import Needs

own_builtins(globals())

_NEEDS: pytest.StashKey[Needs] = pytest.StashKey()

_ASKED = ("gpus", "serial", "gpu_memory")


def needs_of(item: pytest.Item) -> Needs:
    """What the test needs: by our marks, else plugins, else the marks of other projects.

    :raises pytest.UsageError: for wrong marks and answers; the text names the place and the fix.
    """
    found = item.stash.get(_NEEDS, None)
    if found is None:
        said = arguments(item)
        marked = {name: said[name] for name in _ASKED if name in said}
        found = Needs(**{**_others(item, said), **_answered(item), **marked})
        if found.gpu_memory and found.gpus == 0:
            found = found._replace(gpus=None)  # it does need a GPU
        item.stash[_NEEDS] = found
    return found


def needs_if_right(item: pytest.Item) -> Needs:
    """The same; nothing where marks are wrong."""
    try:
        return needs_of(item)
    except pytest.UsageError:  # reported when the test is to run
        return Needs()


def needs_of_all(items: Sequence[pytest.Item], patterns: Sequence[str]) -> list[Needs]:
    """The same of all tests; those whose node id contains a pattern have one serial name.

    :param patterns: texts, in which ``*`` stands for any.
    """
    found = [needs_if_right(item) for item in items]
    if not patterns:
        return found
    texts = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    regex = re.compile("|".join(texts))
    match = [regex.search(item.nodeid) is not None for item in items]
    # Names of tests that match become one name with it: nothing that ran apart runs together.
    names = {each.serial for each, matches in zip(found, match) if matches and each.serial}
    return [
        each._replace(serial=SERIAL) if matches or each.serial in names else each
        for each, matches in zip(found, match)
    ]


def _others(item: pytest.Item, said: Arguments) -> Arguments:
    """What the marks of other projects say; nothing without GPUs, where TPUs may be meant."""
    gpus = said.get("others_gpus")
    owned = item.config.stash.get(OWNED, None)
    if owned is None:
        return {}
    most = max(owned.most, len(owned.ids))
    if gpus is None:
        # For more than there are, the suite skips the test itself, or copes.
        wanted = wanted_by_others(item)
        return {"gpus": wanted} if 0 < wanted <= most else {}
    return {"gpus": most if gpus == ALL_GPUS else gpus}


def _answered(item: pytest.Item) -> Arguments:
    """What a plugin or a conftest.py answers.

    :raises pytest.UsageError: if the answer makes no sense.
    """
    if not item.config.hook.pytest_fkit_requirements.get_hookimpls():
        return {}
    return answer_of_hook(item, "pytest_fkit_requirements", _checked)


def _checked(answer: object) -> Arguments:
    if answer is None:
        return {}
    if isinstance(answer, Needs):
        answer = {
            "gpus": answer.gpus, "serial": answer.serial or None, "gpu_memory": answer.gpu_memory
        }  # fmt: skip
    if not isinstance(answer, Mapping) or set(answer) - set(_ASKED):
        raise ValueError(
            "expected None, or a dict as {'gpus': 4, 'serial': 'name', 'gpu_memory': '40G'}, all "
            "optional"
        )
    return {
        name: parse(MARK_ARGUMENTS[name], value)
        for name, value in answer.items()
        if value is not None
    }


def note_wanted_gpus(item: pytest.Item, data: ReportData, changed: Mapping[str, str]) -> None:
    """Note in a report how many GPUs the test wanted, if it was skipped for too few.

    Only where the machine has as many: else no option helps.

    :param data: the report, as pytest_report_to_serializable gives it.
    :param changed: the variables in which the test's process differs from its worker.
    """
    owned = item.config.stash.get(OWNED, None)
    if owned is None or data.get("outcome") != "skipped" or "wasxfail" in data:
        return
    seen = len(ids_in(changed) or owned.ids)
    said = needs_of(item).gpus
    if said is not None and said <= seen:
        return  # it had what it asked for
    from ..gpu.errors.scarcity import wanted_gpus

    wanted = wanted_gpus(str(data.get("longrepr")), seen)
    if wanted is not None and wanted <= owned.most:
        add_facts(data, wanted_gpus=wanted)


# --- what other projects say --------------------------------------------------------------------


_DEPTH = 32


def wanted_by_others(item: pytest.Item) -> int:
    """The number of GPUs by the first of READERS that wants several; 0 if none does."""
    for read in READERS:
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
    if _value_on(cls, "is_local_tensor_enabled") is True:  # ranks that are simulated in one process
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


READERS = (_deepspeed, _cupy, _pytorch)
"""By project; a conftest.py adds its own by the hook pytest_fkit_requirements."""

_GPUS_REQUIRED = re.compile(r"(\d{1,4}) GPUs required")

# As PyTorch's conftest.py tells files of tests whose ranks use no GPU.
_CPU_FILE = re.compile(r"(?:^|.*_)(?:gloo|mpi|ucc|cpu)(?:_.*|$)")


def _on_the_cpu(item: pytest.Item) -> bool:
    return _CPU_FILE.fullmatch(item.path.name.partition(".")[0]) is not None


def _function(item: pytest.Item) -> object:
    """The test function; no instance of a class is made for it."""
    cls = getattr(item, "cls", None)
    if cls is None:
        return getattr(item, "obj", None)
    return getattr(cls, getattr(item, "originalname", None) or item.name, None)


def _wrapped(function: object) -> Iterator[object]:
    for _ in range(_DEPTH):
        if function is None:
            return
        yield function
        function = getattr(function, "__wrapped__", None)


def _has_base(cls: object, name: str) -> bool:
    return isinstance(cls, type) and any(each.__name__ == name for each in cls.__mro__)


def _value_on(cls: Any, name: str) -> Any:
    """A class attribute, or the value of a property on an instance without setup; else None."""
    value = getattr(cls, name, None)
    if not isinstance(value, property):
        return value
    try:
        return getattr(cls.__new__(cls), name)
    except Exception:  # noqa: BLE001 (users' code, which counts on a setup)
        return None


def _number(value: object) -> int:
    """A number of GPUs, the largest of several, 0 for anything else."""
    if isinstance(value, (list, tuple)):
        return max(map(_number, value), default=0)
    return value if type(value) is int and value > 0 else 0
