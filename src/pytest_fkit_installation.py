"""Says so where another project with a package of the same name is installed beside this one.

pytest-fkit on PyPI (0.2.0 to 0.11.0) is not this project, whose distribution is pytest-forkit, and
has the same name for its package, its entry point and some of its options; which of the two runs
depends on the import path, or on which was installed last. This is a module apart, with an entry
point of its own: where the other package comes first, nothing in ours is imported.
"""

from __future__ import annotations

from importlib.metadata import Distribution, distributions

import pytest

_PLUGIN = "pytest_fkit.plugin"
_COMMAND = "pytest_fkit.journal.command:main"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Look at what is installed, if the run is to be one of either project."""
    if getattr(early_config.known_args_namespace, "fkit", False):
        check_installation()


def check_installation() -> None:
    """Look at what is installed.

    :raises pytest.UsageError: if it is another project, too.
    """
    for found in distributions(name="pytest-fkit"):
        commands = {entry.value for entry in found.entry_points}
        if _PLUGIN in commands and _COMMAND not in commands:
            raise pytest.UsageError(
                "pytest-fkit: another project with this name is installed, too: version "
                f"{found.version} in {_place(found)}, as `pip install pytest-fkit` gets it from "
                "PyPI. Both have a package pytest_fkit: run `pip uninstall pytest-fkit`, then "
                "install this one, pytest-forkit, again, since that removes files of both"
            )


def _place(found: Distribution) -> str:
    return str(found.locate_file("").absolute())  # type: ignore[attr-defined]
