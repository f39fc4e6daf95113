"""The entry point: options, markers, fixtures, and who gets which hooks.

Every pytest that finds this package installed imports this module, with ``--fkit`` or without, and
what it imports is in the memory that is copied for each test. So what a role needs is imported
where a process takes it: the controller's in :func:`_controller`, a worker's, which is also its
test processes', when its orders are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generator

import pytest

from . import fixtures, hookspecs
from .config import declaration, others_options

if TYPE_CHECKING:
    from .controller.controller import Controller

_CONTROLLER: pytest.StashKey[Controller] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    declaration.add_options(parser, pluginmanager)
    pluginmanager.register(_Innermost(), "fkit-conftests")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Begin, if this is a run of ours."""
    if early_config.known_args_namespace.fkit:
        from .own import own_imports

        with own_imports():
            from .compat.versions import check_versions
            from .initial_conftests import before_conftests

        check_versions()

        before_conftests(early_config)
    yield


class _Innermost:
    """The same hook once more: pytest's own capture opens files around it."""

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_load_initial_conftests(
        self, early_config: pytest.Config, parser: pytest.Parser, args: list[str]
    ) -> Generator[None, object, object]:
        """Look at what conftest files do; refuse options that they do not declare."""
        if not early_config.known_args_namespace.fkit:
            return (yield)
        from .initial_conftests import around_conftests

        with around_conftests(early_config):
            result = yield
        others_options.refuse(parser, args)
        return result


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, None, None]:
    """Check the options and choose the number of workers, before xdist does."""
    if not hasattr(config, "workerinput"):
        if config.getoption("fkit"):
            _controller(config).prepare()
        elif config.getoption("fkit") is None:
            declaration.check_without_fkit(config)
    yield


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and the plugins for this process's role."""
    declaration.add_marks(config)
    config.pluginmanager.register(fixtures, "fkit-fixtures")
    if "fkit_quarantine" in getattr(config, "workerinput", ()):  # of a fresh interpreter, too
        from .worker.tests.skipping import Skipping

        config.pluginmanager.register(Skipping(config), "fkit-skipping")
    if not config.getoption("fkit"):
        return
    from .config.settings import SETTINGS, settings_of

    config.stash[SETTINGS] = settings_of(config)
    if not hasattr(config, "workerinput"):
        services = _controller(config).configure()
        if services is not None:
            from .controller.alone import take_place

            take_place(config, services)
        return
    told = config.workerinput.get("fkit")
    if told is not None:
        from .protocol.border import Start
        from .worker.worker import take_orders

        take_orders(config, Start(*told))


def pytest_report_header(config: pytest.Config) -> list[str] | None:
    """Say how tests are run."""
    controller = config.stash.get(_CONTROLLER, None)
    return None if controller is None else controller.header()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Say what has to be said where there is no header."""
    controller = session.config.stash.get(_CONTROLLER, None)
    if controller is not None:
        controller.begin()


def _controller(config: pytest.Config) -> Controller:
    from .controller.controller import Controller

    return config.stash.setdefault(_CONTROLLER, Controller(config))
