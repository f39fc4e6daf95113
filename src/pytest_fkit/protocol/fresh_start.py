"""What a fresh interpreter is told that takes a host's place, in a file that it inherits."""

from __future__ import annotations

from typing import Any

from ..named_tuple import NamedTuple
from ..own import marshal, own_builtins, standard_library_first
from .wire import Packer, unpack

own_builtins(globals())


class FreshStart(NamedTuple):
    """How to become a host that has collected as the worker has.

    :param startup_path: ``sys.path`` as the worker's interpreter started; `path`: as it is now.
    :param arguments: pytest's command line, in `directory`, so that the same conftest files are the
        initial ones.
    :param collect: arguments that replace those of the command line; none to collect everything.
    :param paths: of the files to collect, and of the collectors above them.
    :param tests: node ids and positions, in the worker's collection, of the tests it is to find.
    :param current: the worker's current directory.
    :param workerinput: see xdist.
    :param basetemp: of the worker's temporary directories.
    :param environ: variables that only this process has.
    :param spare: whether it is started ahead of need.
    :param slots: number of the first descriptor of its files.
    :param waits: whether threads wait after a fatal signal; `tracer`: who may attach then, or 0.
    :param wrapped: whether a wrapper runs it.
    """

    startup_path: list[str]
    path: list[str]
    argv: list[str]
    writes_bytecode: bool
    arguments: list[str]
    directory: str
    collect: list[str]
    paths: list[str]
    tests: list[tuple[str, int]]
    current: str
    workerinput: dict[str, Any]
    basetemp: str | None
    maxfail: int
    force_reruns: Any
    environ: tuple[tuple[str, str], ...]
    spare: bool
    slots: int
    waits: bool
    tracer: int
    wrapped: bool

    def written(self) -> bytes:
        """The content of the file.

        First the path on which pytest-fkit is found, without which our codec can't be imported.
        """
        return marshal.dumps(standard_library_first(self.startup_path)) + Packer().pack(self)


def read_rest(data: bytes) -> FreshStart:
    """What comes after the path in the file."""
    (start,) = unpack(data, {FreshStart.__name__: FreshStart})
    assert isinstance(start, FreshStart)
    return start
