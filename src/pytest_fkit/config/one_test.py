"""The arguments of a run that are given again to run one of its tests."""

from __future__ import annotations

import re
from typing import Callable, Iterator, Sequence

from ..own import own_builtins

own_builtins(globals())

# What chooses tests, what divides or limits the run, where it writes: none of it is the test's.
_WITH_VALUE = (
    "-n", "--numprocesses", "--maxprocesses", "--dist", "--tx", "--max-worker-restart", "-k", "-m",
    "--deselect", "--ignore", "--ignore-glob", "--maxfail", "--splits", "--group", "--junitxml",
    "--junit-xml", "--basetemp", "--fkit-workers", "--fkit-machines", "--fkit-gpus",
    "--fkit-journal", "--fkit-trace", "--fkit-html", "--fkit-resume", "--fkit-top",
    "--fkit-session-timeout", "--fkit-repeat", "--fkit-repeat-seed", "--durations",
)  # fmt: skip
_ALONE = (
    "-d", "-x", "--exitfirst", "--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--sw",
    "--stepwise", "-q", "--quiet",
)  # fmt: skip
_WORKERS = re.compile(r"-n(?:\d|auto|logical)")


def kept_for_one_test(arguments: Sequence[str], is_place: Callable[[str], bool]) -> Iterator[str]:
    """The arguments but those that chose tests, divided or limited the run, or say where it writes.

    :param is_place: whether an argument that is no option names tests.
    """
    rest = iter(arguments)
    for each in rest:
        name, equals, _ = each.partition("=")
        if each in _WITH_VALUE:
            next(rest, None)
        elif (name in _WITH_VALUE and equals) or each in _ALONE or _WORKERS.match(each):
            continue
        elif each.startswith("-") or not is_place(each):
            yield each
