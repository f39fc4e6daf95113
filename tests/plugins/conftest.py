"""Not part of the normal test run: these tests need all the plugins that they are about.

`pytest tests/plugins` runs them. `pytest tests/plugins --without-plugins` takes the plugins away,
and passes if then every test fails.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-plugins", action="store_true", help="see tests/plugins/conftest.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--without-plugins"):
        for item in items:
            item.add_marker(pytest.mark.xfail(strict=True, reason="its plugin is taken away"))
