"""What other plugins, the user's patterns and the table say of a failure, in this order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ...own import own_builtins, warnings
from .classification import classify, named
from .errors import Failure, GpuError
from .patterns import NAMES, user_patterns

own_builtins(globals())


class Classifier:
    """Classifies failures of tests on a worker that owns GPUs."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._patterns = user_patterns(config)

    def error(self, item: pytest.Item, failure: Failure, event: str = "") -> GpuError | None:
        """The GPU error that the failure is, None if it is none.

        :param event: see :class:`.errors.GpuError`.
        """
        found, _ = self._found(item, failure)
        return None if found is None else replace(found, event=event)

    def of_death(self, item: pytest.Item, failure: Failure) -> tuple[GpuError | None, bool]:
        """The same of a process that died, and whether nobody knows why it did."""
        return self._found(item, failure)

    def _found(self, item: pytest.Item, failure: Failure) -> tuple[GpuError | None, bool]:
        said = self._asked(item, failure)
        if said is False:
            return None, False
        found = classify(failure, self._patterns) if said is None else named(said, failure)
        return found, found is None

    def of_collection(self, failure: Failure) -> GpuError | None:
        """The same of a module or a class, of which the hook is not asked."""
        return classify(failure, self._patterns)

    def _asked(self, item: pytest.Item, failure: Failure) -> Any:
        """What the hook answers: one of NAMES, False, or None."""
        try:
            said = item.ihook.pytest_fkit_classify(item=item, failure=failure)
        except Exception as error:  # noqa: BLE001 (a plugin's hook may raise anything)
            self._warn(item, f"raised {error!r}")
            return None
        if said is None or said is False or said in NAMES:
            return said
        expected = ", ".join(map(repr, NAMES))
        self._warn(item, f"answered {said!r}; expected None, False, or one of {expected}")
        return None

    def _warn(self, item: pytest.Item, text: str) -> None:
        # Not by warnings.warn(), which raises here where warnings are errors.
        warning = pytest.PytestWarning(f"pytest-fkit: the hook pytest_fkit_classify {text}")
        self._config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": warnings.WarningMessage(warning, type(warning), __file__, 0),
                "when": "runtest",
                "nodeid": item.nodeid,
                "location": None,
            }
        )
