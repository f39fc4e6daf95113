"""Assertion rewriting, which asks for a package that a fresh host has imported already."""

from __future__ import annotations

import pytest


def test_marking_the_imported_package_for_rewriting_is_no_warning() -> None:
    # With filterwarnings = error, as in this project, the warning would be raised.
    pytest.register_assert_rewrite("pytest_fkit")
