"""Assertion rewriting: installed, this package is marked for it, as all plugins are."""

from __future__ import annotations

import pytest


def test_marking_the_imported_package_is_no_warning(pytester: pytest.Pytester) -> None:
    # What pytest does with an installed plugin, and an editable install would not show.
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makeconftest(
        """
        import pytest
        import pytest_fkit
        pytest.register_assert_rewrite("pytest_fkit")
        """
    )
    pytester.makepyfile("def test_pass(): pass")
    result = pytester.runpytest_subprocess("--fkit", "-n0", timeout=60)
    result.assert_outcomes(passed=1)
