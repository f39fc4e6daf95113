"""The command that runs one test again."""

from __future__ import annotations

import shlex
from typing import Mapping

import pytest

from ...gpu.slices.ownership import KEY
from ...own import own_builtins
from ...system.paths import joined, relative

own_builtins(globals())

# What it leaves out.
_DROPPED = (
    "-n", "--numprocesses", "--dist", "--junitxml", "--junit-xml", "--basetemp", "--fkit-workers",
    "--fkit-gpus", "--fkit-journal", "--fkit-trace", "--fkit-resume", "--fkit-top",
)  # fmt: skip


def reproducing_command(item: pytest.Item, changed: Mapping[str, str]) -> str:
    """The command that runs this one test again, from the directory of this run.

    :param changed: the variables in which the test's process differed from its worker.
    """
    config = item.config
    given = [str(argument) for argument in config.invocation_params.args]
    paths = {str(path) for path in config.getoption("file_or_dir", None) or ()}
    arguments = ["pytest"]
    skip = False
    for argument in given:
        if skip or argument in paths:
            skip = False
        elif argument in _DROPPED:
            skip = True
        elif not argument.startswith((*(f"{option}=" for option in _DROPPED), "-n")):
            arguments.append(argument)
    directory = config.invocation_params.dir
    # Not the item's own, to which xdist adds the name of its group.
    nodeid = item.name if item.parent is None else f"{item.parent.nodeid}::{item.name}"
    path, separator, rest = nodeid.partition("::")
    # Node ids are relative to rootdir, arguments to the current directory.
    path = relative(joined(str(config.rootpath), path), str(directory))
    owned = config.stash.get(KEY, None)
    masks = "" if owned is None else owned.assignments(changed)
    return masks + shlex.join([*arguments, path + separator + rest])
