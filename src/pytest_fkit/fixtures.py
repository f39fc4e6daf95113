"""The fixtures for tests, available without ``--fkit``, too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Iterator, MutableMapping, Union

import pytest

from .config.first_environment import variable

if TYPE_CHECKING:
    from .sandbox.process.relay import Relay


@pytest.fixture(scope="session")
def fkit_gpus() -> list[str]:
    """The ids of the GPUs that this test sees: the machine's numbers, or UUIDs of MIG instances.

    Frameworks count from 0: this test's first GPU is ``cuda:0``, whatever its id. Empty if the
    worker owns no GPUs.
    """
    return [each for each in (variable("FKIT_GPU_IDS") or "").split(",") if each]


@pytest.fixture(scope="session")
def fkit_worker() -> int:
    """The number of the worker that runs this test, from 0; its replacement has the same."""
    return int(variable("FKIT_WORKER_ID") or 0)


@pytest.fixture(scope="session")
def fkit_port() -> Iterator[int]:
    """The first of 16 consecutive free ports that no other worker or run uses."""
    given = variable("FKIT_PORT_BASE")
    if given:
        yield int(given)
        return
    from .gpu.slices import ports  # with --fkit imported already, see initial_conftests.py

    block = ports.claim()
    yield block.base
    block.release()


Value = Union[str, bool, int, float]


class Metrics(MutableMapping[str, Value]):
    """What a test measured, by name; each value outlives the test's process from its setting on.

    :param properties: the test's ``user_properties``, which reports carry.
    :param relay: the test process's, if it is one of ours.
    """

    def __init__(self, properties: list[tuple[str, object]], relay: Relay | None) -> None:
        self._properties = properties
        self._relay = relay
        self._values: dict[str, Value] = {}

    def __setitem__(self, name: str, value: Value) -> None:
        """Set a metric, in the place of an earlier value.

        :raises TypeError: if `name` is no text, or `value` none of str, bool, int and float.
        """
        if not isinstance(name, str):
            raise TypeError(f"fkit_metrics: a name has to be a str, not {type(name).__name__}")
        if not isinstance(value, (str, bool, int, float)):
            raise TypeError(
                f"fkit_metrics[{name!r}]: a value has to be a str, bool, int or float, "
                f"not {type(value).__name__}; convert it, as by float(value)"
            )
        from .protocol.plain_values import carriable  # not where pytest runs without --fkit

        name, value = carriable(name), carriable(value)
        self._drop_property(name)
        self._values[name] = value
        self._properties.append((name, value))
        self._send(name, value)

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __delitem__(self, name: str) -> None:
        self._drop_property(name)
        del self._values[name]
        self._send(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"fkit_metrics({self._values!r})"

    def _drop_property(self, name: str) -> None:
        if name in self._values:
            self._properties[:] = [each for each in self._properties if each[0] != name]

    def _send(self, name: str, value: Value | None) -> None:
        if self._relay is not None:
            self._relay.metric(name, value)


@pytest.fixture
def fkit_artifacts(request: pytest.FixtureRequest) -> Path:
    """A folder for the test's files; with ``--fkit`` it is kept, and named, if the test fails."""
    relay = request.config.pluginmanager.getplugin("fkit-relay")
    if relay is None:
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        return factory.mktemp("artifacts")
    from .config.folders import artifacts_of  # not where pytest runs without --fkit

    return Path(artifacts_of(request.node, relay.artifacts))


@pytest.fixture
def fkit_metrics(request: pytest.FixtureRequest) -> Metrics:
    """A dict for the test's measurements: ``fkit_metrics["tokens_per_s"] = 1234.5``.

    Values have type str, bool, int or float. They are in the journal, the trace and the JUnit file,
    even if the test's process dies afterwards.
    """
    plugins = request.config.pluginmanager
    return Metrics(request.node.user_properties, plugins.getplugin("fkit-relay"))
