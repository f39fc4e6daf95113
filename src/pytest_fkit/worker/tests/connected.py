"""Tests that have to share a process: a plugin keeps state of one in memory for others."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from typing import Any, Callable, Hashable, Iterator, Mapping, Sequence

import pytest

from ...compat import pytest_fixtures
from ...compat.pytest_hooks import is_loaded
from ...compat.pytest_nodes import ancestor, marks, unique_id
from ...config.marks import answer_of_hook, arguments, key_of_scope
from ...config.options import BY_NAME
from ...config.values import parse
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.process_keys import CONNECTED, OWN, SESSION, ProcessKey

own_builtins(globals())


class Connection(NamedTuple):
    """Tests that have to share a process.

    :param cause: what connects them, "" where options or marks have them share one anyway.
    :param positions: theirs in ``session.items``, in order.
    """

    key: ProcessKey
    cause: str
    positions: tuple[int, ...]


class Connections(NamedTuple):
    """The connected tests of a session.

    :param of: by position of a test.
    :param errors: by position, the usage error of a hook's answer.
    """

    of: Mapping[int, Connection] = {}
    errors: Mapping[int, str] = {}


class SharedKey(NamedTuple):
    """Tests with the same key are connected.

    :param cause: in the summary's words.
    """

    position: int
    key: Hashable
    cause: str


_KNOWN: pytest.StashKey[Connections] = pytest.StashKey()


def connections(
    session: pytest.Session, key_of: Callable[[pytest.Item], ProcessKey]
) -> Connections:
    """The tests that pytest_fkit_isolation, and the marks of plugins that we know, connect.

    :param key_of: of a test's process by options and marks.
    """
    known = session.stash.get(_KNOWN, None)
    if known is None:
        errors: dict[int, str] = {}
        links = _links(session, errors)
        found = _connected(session.items, links, key_of) if links else {}
        known = session.stash[_KNOWN] = Connections(found, errors)
    return known


def _links(session: pytest.Session, errors: dict[int, str]) -> list[SharedKey]:
    items = enumerate(session.items)
    left = {position: item for position, item in items if not _is_apart(item)}
    answered = _answered(session, left, errors)
    found = [link for rule in _RULES for link in rule(session, left)]
    common = Counter(link.key for link in found)
    return answered + [link for link in found if common[link.key] > 1]


def _answered(
    session: pytest.Session, left: dict[int, pytest.Item], errors: dict[int, str]
) -> list[SharedKey]:
    """The links that the hook asks for; removes the tests that it has an answer for from `left`."""
    if not session.config.hook.pytest_fkit_isolation.get_hookimpls():
        return []
    found = []
    for position, item in list(left.items()):
        try:
            scope = answer_of_hook(item, "pytest_fkit_isolation", _checked)
        except pytest.UsageError as error:
            errors[position] = str(error)
            continue
        if scope is not None:
            del left[position]
            key = key_of_scope(item, scope)
            if key.is_shared:
                found.append(SharedKey(position, key, f"pytest_fkit_isolation, {scope!r}"))
    return found


def _checked(answer: object) -> str | None:
    try:
        return None if answer is None else str(parse(BY_NAME["fkit_isolation"], answer))
    except ValueError as error:
        raise ValueError(f"{error}, or None") from None


def _is_apart(item: pytest.Item) -> bool:
    """Whether a mark of ours gives the test a process of its own."""
    try:
        return arguments(item).get("isolation") == "function"
    except pytest.UsageError:  # reported when the test is to run
        return True


# --- which tests are one group ------------------------------------------------------------------


class _Groups:
    """Disjoint sets of anything (union-find)."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def root(self, each: Hashable) -> Hashable:
        above = self._above
        while above.setdefault(each, each) != each:
            above[each] = each = above[above[each]]
        return each

    def join(self, one: Hashable, other: Hashable) -> None:
        self._above[self.root(one)] = self.root(other)


def _connected(
    items: Sequence[pytest.Item],
    links: Sequence[SharedKey],
    key_of: Callable[[pytest.Item], ProcessKey],
) -> dict[int, Connection]:
    groups = _Groups()
    for link in links:
        groups.join(link.position, ("key", link.key))
    keys = [_key_or_own(item, key_of) for item in items]
    for position, key in enumerate(keys):
        if key.is_shared:
            groups.join(position, ("process", key))
    causes: dict[Hashable, dict[str, None]] = defaultdict(dict)
    for link in links:
        causes[groups.root(link.position)][link.cause] = None
    members: dict[Hashable, list[int]] = defaultdict(list)
    for position in range(len(items)):
        root = groups.root(position)
        if root in causes:
            members[root].append(position)
    found = {}
    for root, positions in members.items():
        if len(positions) > 1:
            first, last = items[positions[0]].nodeid, positions[-1]
            otherwise = ProcessKey(scope=CONNECTED, name=first, last=last)
            key, asked = _common({keys[each] for each in positions}, otherwise)
            cause = "" if asked else " and ".join(causes[root])
            connection = Connection(key, cause, tuple(positions))
            found.update(dict.fromkeys(positions, connection))
    return found


def _common(keys: set[ProcessKey], otherwise: ProcessKey) -> tuple[ProcessKey, bool]:
    """The key of tests that have these on their own, and whether all of them already have it."""
    if len(keys) == 1 and keys != {OWN}:
        return next(iter(keys)), True
    return (SESSION if SESSION in keys else otherwise), False


def _key_or_own(item: pytest.Item, key_of: Callable[[pytest.Item], ProcessKey]) -> ProcessKey:
    try:
        return key_of(item)
    except pytest.UsageError:  # reported when the test is to run
        return OWN


# --- the plugins that we know -------------------------------------------------------------------

Rule = Callable[[pytest.Session, Mapping[int, pytest.Item]], Iterator[SharedKey]]


def _marked_incremental(_: pytest.Session, items: Mapping[int, pytest.Item]) -> Iterator[SharedKey]:
    """Steps of a class, by the mark for which pytest's documentation has a conftest.py."""
    known: dict[object, bool] = {}
    for position, item in items.items():
        parent = item.parent
        if parent not in known:
            assert parent is not None
            known[parent] = any(mark.name == "incremental" for _node, mark in marks(parent))
        if known[parent] or any(mark.name == "incremental" for mark in item.own_markers):
            node = ancestor(item, pytest.Class) or ancestor(item, pytest.File) or parent
            yield SharedKey(position, ("incremental", node), "the mark incremental")


def _documents(_: pytest.Session, items: Mapping[int, pytest.Item]) -> Iterator[SharedKey]:
    """The examples of a document share a namespace, the cells of a notebook a kernel."""
    for position, item in items.items():
        plugin = type(item).__module__.partition(".")[0]
        if plugin in ("sybil", "nbval"):
            yield SharedKey(position, ("document", item.parent), f"documents of {plugin}")


def _pytest_steps(session: pytest.Session, items: Mapping[int, pytest.Item]) -> Iterator[SharedKey]:
    """The steps of a function, each of which is a test."""
    if not session.config.pluginmanager.has_plugin("pytest_steps") and (
        "pytest_steps" not in sys.modules
    ):
        return
    for position, item in items.items():
        made = getattr(getattr(item, "function", None), "__func_impl__", None)
        if getattr(made, "__module__", "").startswith("pytest_steps."):
            key = "steps", item.parent, getattr(item, "originalname", item.name)
            yield SharedKey(position, key, "steps of pytest-steps")


def _pytest_depends(_: pytest.Session, items: Mapping[int, pytest.Item]) -> Iterator[SharedKey]:
    """Tests and what they depend on, which pytest-depends knows once tests are collected."""
    plugin: Any = sys.modules.get("pytest_depends")
    if plugin is None or not getattr(plugin, "managers", None):
        return
    manager = plugin.managers[-1]
    cause = "marks of pytest-depends"
    for position, item in items.items():
        nodeid = plugin.clean_nodeid(item.nodeid)
        yield SharedKey(position, ("depends", nodeid), cause)
        for other in manager.dependencies[nodeid].dependencies:
            yield SharedKey(position, ("depends", other), cause)


def _pytest_dependency(
    session: pytest.Session, items: Mapping[int, pytest.Item]
) -> Iterator[SharedKey]:
    """Tests that its mark names within a scope, or may name by ``depends`` when they run."""
    plugin: Any = sys.modules.get("pytest_dependency")
    if plugin is None or not session.config.pluginmanager.is_registered(plugin):
        return
    cause = "marks of pytest-dependency"
    all_marked = session.config.getini("automark_dependency")
    calls = _Calls(plugin)
    for position, item in items.items():
        mark = item.get_closest_marker("dependency")
        module = item.getparent(pytest.Module)
        if calls.may_come_from(item):
            yield SharedKey(position, ("dependency", "any", module), cause)
        if mark is None and not all_marked:
            continue
        if module in calls.modules:
            yield SharedKey(position, ("dependency", "any", module), cause)
        given = {} if mark is None else mark.kwargs
        for scope, kind in _DEPENDENCY_SCOPES.items():
            node = item.getparent(kind)
            if node is not None:
                name = given.get("name") or _name_within(scope, item)
                yield SharedKey(position, ("dependency", scope, node, name), cause)
        scope = given.get("scope", "module")
        node = item.getparent(_DEPENDENCY_SCOPES.get(scope, pytest.Module))
        for name in given.get("depends") or ():
            yield SharedKey(position, ("dependency", scope, node, name), cause)


_DEPENDENCY_SCOPES: dict[str, Any] = {
    "session": pytest.Session,
    "package": pytest.Package,
    "module": pytest.Module,
    "class": pytest.Class,
}


def _name_within(scope: str, item: pytest.Item) -> str:
    nodeid = item.nodeid.replace("::()::", "::")
    parts = {"module": 1, "class": 2}.get(scope, 0)
    return nodeid.split("::", parts)[-1]


class _Calls:
    """Finds tests that may call a function of a plugin, themselves or in a fixture."""

    def __init__(self, plugin: Any) -> None:
        self._wanted = {id(plugin), id(plugin.depends)}
        self._known: dict[int, bool] = {}
        self.modules: set[pytest.Module | None] = set()

    def may_come_from(self, item: pytest.Item) -> bool:
        info = getattr(item, "_fixtureinfo", None)
        definitions = [] if info is None else list(info.name2fixturedefs.values())
        functions = [each.func for found in definitions for each in found]
        return any(map(self._knows, [getattr(item, "function", None), *functions]))

    def _knows(self, function: object) -> bool:
        names = getattr(function, "__globals__", None)
        if names is None:
            return False
        if id(names) not in self._known:
            self._known[id(names)] = any(id(each) in self._wanted for each in names.values())
        return self._known[id(names)]


_HARVESTED: dict[str, type[pytest.Collector]] = {
    "module_results_dct": pytest.Module,
    "module_results_df": pytest.Module,
    "session_results_dct": pytest.Session,
    "session_results_df": pytest.Session,
}
"""Fixtures of pytest-harvest, and how far what they hold comes from."""


def _pytest_harvest(
    session: pytest.Session, items: Mapping[int, pytest.Item]
) -> Iterator[SharedKey]:
    """Tests that look at the results of others, and those others."""
    if not is_loaded(session.config, "harvest"):
        return
    sources: set[pytest.Collector | None] = set()
    for item in items.values():
        for name in _HARVESTED.keys() & set(getattr(item, "fixturenames", ())):
            sources.add(item.getparent(_HARVESTED[name]))
        info = getattr(item, "_fixtureinfo", None)
        if info is not None and "fixture_store" in info.initialnames:  # not one of its own fixtures
            sources.add(item.session)
    for position, item in items.items():
        for source in sources.intersection(item.listchain()):
            yield SharedKey(position, ("harvest", source), "fixtures of pytest-harvest")


_RULES: tuple[Rule, ...] = (
    _marked_incremental,
    _documents,
    _pytest_steps,
    _pytest_depends,
    _pytest_dependency,
    _pytest_harvest,
)


def group_of(item: pytest.Item, key: ProcessKey) -> str:
    """The name of what a test has in common with others, for one worker to have them; or ""."""
    if key.scope in ("class", "module") or key.is_spawned:
        return ":".join(key[:3])
    scopes = pytest_fixtures.narrower_scopes(item)
    if not scopes and not pytest_fixtures.has_setup_of_file(item):
        return ""
    kind: type[pytest.Collector] = pytest.Package if "package" in scopes else pytest.File
    node = ancestor(item, kind)
    return unique_id(node) if node is not None else ""
