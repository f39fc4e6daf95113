"""The fixtures for tests, without a run."""

from __future__ import annotations

from pytest_fkit.fixtures import Metrics


def test_a_metric_that_is_deleted_is_no_property_either() -> None:
    properties: list[tuple[str, object]] = [("given", 1)]
    metrics = Metrics(properties, None)
    metrics["kept"] = metrics["gone"] = 1.5
    metrics["kept"] = 2.5
    del metrics["gone"]
    assert properties == [("given", 1), ("kept", 2.5)]
    assert dict(metrics) == {"kept": 2.5}
