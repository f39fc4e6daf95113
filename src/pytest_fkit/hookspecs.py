"""What other plugins can answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Sequence

import pytest

if TYPE_CHECKING:
    from .gpu.devices import Device
    from .gpu.errors.failure import Failure
    from .protocol.needs import Needs


@pytest.hookspec(firstresult=True)
def pytest_fkit_gpus(config: pytest.Config, host: str) -> Sequence[Device | int | str] | None:
    """The GPUs for the workers of a machine, where ``--fkit-gpus`` does not say them.

    Devices are used as they are, ids (numbers and UUIDs) as if ``--fkit-gpus`` had named them; in
    both cases only those count that the masks in the environment leave. An empty answer means no
    GPUs, None leaves it to detection.

    At ``-n0`` it is called before conftest files are loaded, so that only installed plugins and
    those of ``-p`` can answer.

    :param host: "" for the machine of the pytest process, else the address in ``--tx``, as in
        "me@node7" or "192.168.1.102:8888".
    """


@pytest.hookspec(firstresult=True)
def pytest_fkit_classify(item: pytest.Item, failure: Failure) -> str | bool | None:
    """Whether a test that did not pass met an error of GPUs, network or machine, and which.

    Called for each phase that failed or was skipped in the process of the test, and on workers that
    own GPUs for a test process that died: see ``failure.death``. Workers without GPUs call it only
    with ``--fkit-network-retries``, and where workers are on several machines. The test gets
    another attempt if it is one, after a GPU error elsewhere, after "host" on another machine.

    :return: the name of a category ("device", "memory", "busy", "missing", "build", "ordinal",
        "sticky", "abort", "suspect", "library", "port", "other", "host", "network"); False: it is
        none; None leaves it to the patterns of ``fkit_gpu_errors`` and those that are built in.
    """


@pytest.hookspec(firstresult=True)
def pytest_fkit_requirements(item: pytest.Item) -> Needs | Mapping[str, Any] | None:
    """What a test needs, for suites that say it in other ways than by our marks, which go first.

    The answer has ``gpus``, how many GPUs the test is to see (0: it runs anywhere), ``serial``, a
    name of which no two tests run at the same time, and ``gpu_memory``, what has to be free on its
    GPUs, as in "40G"; all are optional. It is asked for in workers, once for each test.
    """


@pytest.hookspec(firstresult=True)
def pytest_fkit_isolation(item: pytest.Item) -> str | None:
    """How long the process of a test has to live at least, for what it finds of earlier tests.

    For plugins and conftest files that judge a test by what others left in memory: tests of which
    it answers "class", "module" or "session" share a process with those of the same class, module
    or session of which it answers the same, on one worker and in their order. Where option or marks
    have tests share a process for longer, they do; "function" means that the test needs nothing of
    others, whatever its marks of other plugins say. None leaves it to those. The mark
    ``fkit(isolation="function")`` goes before. It is asked for in workers, once for each test.
    """


@pytest.hookspec
def pytest_fkit_warmup(config: pytest.Config) -> None:
    """Open what tests would have to open, in the process of the test that comes next.

    Called with ``--fkit-warmup`` on workers that own GPUs, while another test runs, in the process
    that was forked for the next one. What it opens shares the GPUs with the test that runs. Without
    an implementation, PyTorch and CuPy open their contexts if they were imported.
    """
