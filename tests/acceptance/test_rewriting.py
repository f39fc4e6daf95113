"""Assertion rewriting: installed, this package is marked for it, as all plugins are."""

from __future__ import annotations

import sys

import pytest


def test_marking_the_imported_package_is_no_warning(pytester: pytest.Pytester) -> None:
    # A fresh host imports the package before it starts pytest, which then marks what is installed;
    # it does not mark an editable install, so the conftest does.
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makeconftest('import pytest\npytest.register_assert_rewrite("pytest_fkit")\n')
    pytester.makepyfile("def test_pass(): pass")
    code = "import pytest_fkit, pytest, sys; sys.exit(pytest.main(['-p', 'no:cacheprovider']))"
    result = pytester.run(sys.executable, "-c", code, timeout=60)
    result.assert_outcomes(passed=1)
