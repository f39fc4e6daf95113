"""What plugins keep in a test process, and what of it is sent."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_fkit.compat.kept_values import Kept, add, kept_values
from pytest_fkit.sandbox.process.states import StateSender


class Plugins:
    """Of a session without any."""

    def hasplugin(self, name: str) -> bool:
        return False

    def get_plugins(self) -> list[object]:
        return []

    def get_plugin(self, name: str) -> None:
        return None


def test_what_is_new_is_sent_once() -> None:
    sent: list[Any] = []
    times = {"a.py": 1.5, "b.py": 2.5}
    config: Any = SimpleNamespace(pluginmanager=Plugins(), _isort_mtimes=times)
    relay: Any = SimpleNamespace(send=lambda message: sent.append(tuple(message)))
    states = StateSender(relay, cast("pytest.Config", config))
    item: Any = None
    states.send(item)
    times["b.py"] = 3.5
    times["c.py"] = 4.5
    states.send(item)
    states.send(item)
    times["d.py"] = 5.5
    states.forget()
    states.send_of_wide()
    assert sent == [("_isort_mtimes", {"b.py": 3.5, "c.py": 4.5})]
    [kept] = kept_values(config)
    add(kept, {"a.py": 0.5})
    assert times["a.py"] == 0.5


def test_containers_are_added_to() -> None:
    measured: dict[str, list[float]] = {"test_a": [1.0]}
    add(Kept("durations", measured, collects=True), {"test_a": [2.0], "test_b": [3.0]})
    assert measured == {"test_a": [1.0, 2.0], "test_b": [3.0]}
    counted = Counter(a=1)
    add(Kept("tagging", counted), {"a": 2, "b": 1})
    assert counted == Counter(a=3, b=1)
    created = {"a.txt"}
    add(Kept("insta", created), {"b.txt"})
    assert created == {"a.txt", "b.txt"}
    files = ["a.prof"]
    add(Kept("profiles", files), ["b.prof"])
    assert files == ["a.prof", "b.prof"]
