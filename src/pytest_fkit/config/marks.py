"""What marks, and hooks of users, say of a test."""

from __future__ import annotations

from typing import Any, Callable, Dict, TypeVar

import pytest

from ..compat.pytest_hooks import is_loaded
from ..compat.pytest_nodes import ancestor, closest_mark, marks, unique_id
from ..named_tuple import NamedTuple
from ..own import own_builtins
from ..protocol.process_keys import OWN, SESSION, ProcessKey
from .options import BY_NAME, MARK_ARGUMENTS
from .settings import Settings
from .values import parse

own_builtins(globals())

T = TypeVar("T")

Arguments = Dict[str, Any]
"""What marks say, by argument."""

_ARGUMENTS_KEY: pytest.StashKey[Arguments] = pytest.StashKey()

SERIAL = "fkit_serial"
"""The serial name of tests with the mark of that name, and of those that match a pattern."""

ALL_GPUS = -1
"""The number of GPUs of a test that can use all of the machine's."""

HANG_GRACE = 5.0
"""Seconds by which our limit is longer than pytest-timeout's, where that is active."""


class Limits(NamedTuple):
    """How one test is to be run.

    :param timeout: seconds, 0 for no limit.
    :param memory_limit: bytes, 0 for no limit.
    :param isolation: the isolation scope if option, ini value or mark ask for one, "" if none does.
    """

    key: ProcessKey
    timeout: float
    memory_limit: int
    isolation: str = ""
    wrapper: tuple[str, ...] = ()


def arguments(item: pytest.Item) -> Arguments:
    """What marks say, by argument; of marks that say the same the closest counts.

    "others_gpus" is what other projects' marks say about GPUs.

    :raises pytest.UsageError: for wrong arguments of a mark; the text names the place and the fix.
    """
    known = item.stash.get(_ARGUMENTS_KEY, None)
    if known is None:
        known = item.stash[_ARGUMENTS_KEY] = _said(item)
    return known


def _said(item: pytest.Item) -> Arguments:
    chosen: Arguments = {}
    for node, mark in reversed(list(marks(item))):
        check = _CHECKS.get(mark.name)
        if check is None:
            continue
        try:
            chosen.update(check(mark))
        except ValueError as error:
            raise pytest.UsageError(f"{error} (mark of {node.nodeid})") from None
    return chosen


def limits(item: pytest.Item, settings: Settings) -> Limits:
    """What options and marks together say.

    :raises pytest.UsageError: for wrong arguments of a mark; the text names the place and the fix.
    """
    chosen = arguments(item)
    timeout = chosen.get("timeout")
    asked = settings.isolation if settings.isolation_asked else ""
    return Limits(
        key=_key(item, chosen.get("isolation", settings.isolation)),
        timeout=_timeout(item, settings) if timeout is None else timeout,
        memory_limit=chosen.get("memory_limit", settings.memory_limit),
        isolation=chosen.get("isolation", asked),
        wrapper=chosen.get("wrapper", settings.wrapper),
    )


def _fkit(mark: pytest.Mark) -> Arguments:
    if mark.args:
        raise ValueError(
            f"@pytest.mark.fkit takes keyword arguments only: {', '.join(MARK_ARGUMENTS)}"
        )
    values = {}
    for name, value in mark.kwargs.items():
        if name not in MARK_ARGUMENTS:
            raise ValueError(
                f"@pytest.mark.fkit has no argument {name!r}, only {', '.join(MARK_ARGUMENTS)}"
            )
        if value is None:
            continue
        try:
            values[name] = parse(MARK_ARGUMENTS[name], value)
        except ValueError as error:
            raise ValueError(f"@pytest.mark.fkit({name}={value!r}): {error}") from None
    return values


def _without_arguments(**said: Any) -> Callable[[pytest.Mark], Arguments]:
    """What checks a mark that takes no arguments, and says this."""

    def check(mark: pytest.Mark) -> Arguments:
        if mark.args or mark.kwargs:
            raise ValueError(f"@pytest.mark.{mark.name} takes no arguments")
        return said

    return check


def _multi_gpu(mark: pytest.Mark) -> Arguments:
    values = [*mark.args, *mark.kwargs.values()]
    if len(values) > 1 or set(mark.kwargs) - {"number"}:
        raise ValueError("@pytest.mark.fkit_multi_gpu takes one argument, number")
    for number in values:
        if type(number) is not int or number < 2:
            raise ValueError(
                f"@pytest.mark.fkit_multi_gpu({number!r}): expected an integer, 2 or more"
            )
    return {"gpus": values[0] if values else 2}


def _distributed(mark: pytest.Mark) -> Arguments:
    """vLLM's, from ``multi_gpu_marks`` in tests/utils.py; other projects mean other things."""
    number = mark.kwargs.get("num_gpus")
    return {"others_gpus": number} if type(number) is int and number > 0 else {}


_CHECKS: dict[str, Callable[[pytest.Mark], Arguments]] = {
    "fkit": _fkit,
    "fkit_skip": _without_arguments(),
    "fkit_serial": _without_arguments(serial=SERIAL),
    "fkit_single_gpu": _without_arguments(gpus=1),
    "fkit_multi_gpu": _multi_gpu,
    "distributed": _distributed,
    # JAX's, by its pyproject.toml "can make use of and possibly requires multiple accelerators".
    # Its ci/run_bazel_test_cuda_non_rbe.sh runs such tests with all GPUs.
    "multiaccelerator": lambda _: {"others_gpus": ALL_GPUS},
}


def spawned_key(item: pytest.Item, limits: Limits) -> ProcessKey:
    """For a test that needs a fresh interpreter: of module scope unless another is asked for."""
    key = limits.key
    if limits.isolation not in ("function", "class"):
        key = _key(item, limits.isolation or "module")._replace(environ=key.environ)
    return key._replace(method="spawn", name=key.name if key.is_shared else unique_id(item))


def _key(item: pytest.Item, isolation: str) -> ProcessKey:
    if isolation != "session" and closest_mark(item, "fkit_skip") is not None:
        return ProcessKey(scope="fkit_skip")
    return key_of_scope(item, isolation)


def answer_of_hook(item: pytest.Item, name: str, checked: Callable[[Any], T]) -> T:
    """What a plugin or a conftest.py says of a test by a hook of ours.

    :param checked: converts the answer; raises a ValueError that says what is expected.
    :raises pytest.UsageError: if that does, or the hook raises anything: users' code may cost this
        test, but no other.
    """
    try:
        answer = getattr(item.ihook, name)(item=item)
    except Exception as error:
        raise pytest.UsageError(
            f"{name} raised {type(error).__name__}: {error} (for {item.nodeid})"
        ) from error
    try:
        return checked(answer)
    except ValueError as error:
        raise pytest.UsageError(
            f"{name} answered {answer!r}: {error} (for {item.nodeid})"
        ) from None


def key_of_scope(item: pytest.Item, isolation: str) -> ProcessKey:
    """The key of the process that runs the item in this scope."""
    if isolation == "session":
        return SESSION
    kinds: dict[str, Any] = {"class": pytest.Class, "module": pytest.File}
    kind = kinds.get(isolation)
    node = ancestor(item, kind) if kind is not None else None
    return OWN if node is None else ProcessKey(scope=isolation, name=unique_id(node))


def _timeout(item: pytest.Item, settings: Settings) -> float:
    seconds = _marked_timeout(item)
    if seconds is None:
        seconds = settings.others_timeout
    if seconds is None:
        return settings.timeout
    if not is_loaded(item.config, "timeout") or not seconds:
        return seconds
    if not _limits_function_only(item):
        return seconds + HANG_GRACE
    return settings.timeout and seconds + settings.timeout


def _limits_function_only(item: pytest.Item) -> bool:
    """Whether fixtures don't count for pytest-timeout's limit of this test."""
    mark = closest_mark(item, "timeout")
    said = None if mark is None else mark.kwargs.get("func_only")
    if said is not None:
        return bool(said)
    return bool(item.config.getini("timeout_func_only"))


def _marked_timeout(item: pytest.Item) -> float | None:
    mark = closest_mark(item, "timeout")
    if mark is None:
        return None
    value = mark.kwargs.get("timeout", mark.args[0] if mark.args else None)
    try:
        return None if value is None else parse(BY_NAME["timeout"], value)
    except ValueError as error:
        raise pytest.UsageError(
            f"@pytest.mark.timeout({value!r}): {error} (mark of {item.nodeid})"
        ) from None
