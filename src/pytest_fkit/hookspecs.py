"""The hooks that other plugins can implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Sequence

import pytest

if TYPE_CHECKING:
    from .gpu.devices import Device
    from .gpu.errors.failure import Failure
    from .protocol.needs import Needs


@pytest.hookspec(firstresult=True)
def pytest_fkit_gpus(config: pytest.Config, host: str) -> Sequence[Device | int | str] | None:
    """Say which GPUs a machine has, for its workers, unless ``--fkit-gpus`` names them.

    Devices are used as they are, ids (numbers and UUIDs) as if ``--fkit-gpus`` had named them; in
    both cases limited to the masks in the environment. An empty answer means no GPUs, None leaves
    it to detection.

    At ``-n0`` the hook is called before conftest files are loaded, so only installed plugins and
    those given with ``-p`` can implement it.

    :param host: "" for the machine of the pytest process, otherwise the address in ``--tx``, such
        as "me@node7" or "192.168.1.102:8888".
    """


@pytest.hookspec(firstresult=True)
def pytest_fkit_classify(item: pytest.Item, failure: Failure) -> str | bool | None:
    """Say whether a failure or skip is an error of GPUs, network or machine, and its category.

    Called in the test's process for each phase that failed or was skipped and, on workers that own
    GPUs, for each test process that died: see ``failure.death``. Workers without GPUs call it only
    with ``--fkit-network-retries``, or if workers are on several machines. After such an error the
    test is retried: after a GPU error on other GPUs, after "host" on another machine.

    :return: the name of a category ("device", "memory", "busy", "missing", "build", "ordinal",
        "sticky", "abort", "suspect", "library", "port", "other", "host", "network"); False for
        none; None leaves it to the patterns of ``fkit_gpu_errors`` and the built-in ones.
    """


@pytest.hookspec(firstresult=True)
def pytest_fkit_requirements(item: pytest.Item) -> Needs | Mapping[str, Any] | None:
    """Say what a test needs, for suites that have their own marks; pytest-fkit's take precedence.

    The answer has ``gpus``, how many GPUs the test sees (0: it runs on any worker), ``serial``, a
    name (no two tests with the same name run at the same time), and ``gpu_memory``, which has to be
    free on each of its GPUs, such as "40G"; all are optional. Called in workers, once for each
    test.
    """


@pytest.hookspec(firstresult=True)
def pytest_fkit_isolation(item: pytest.Item) -> str | None:
    """Say which tests need what earlier tests left in memory, and so have to share a process.

    If it returns "class", "module" or "session", the test shares a process with the tests of its
    class, module or session for which it returns the same, on one worker and in their order.
    Options and marks that ask for a longer-lived process still apply. "function" means that the
    test needs nothing from others, whatever other plugins' marks say; None leaves it to these. The
    mark ``fkit(isolation="function")`` takes precedence. Called in workers, once for each test.
    """


@pytest.hookspec
def pytest_fkit_warmup(config: pytest.Config) -> None:
    """Prepare the process of the next test, for example by opening the GPU.

    Called with ``--fkit-warmup`` on workers that own GPUs, while another test runs, in the process
    that was forked for the next one. What it opens shares the GPUs with the running test. Without
    an implementation, the contexts of PyTorch and CuPy are opened if they were imported.
    """
