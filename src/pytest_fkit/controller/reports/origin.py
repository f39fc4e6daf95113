"""What people ask of a run later: of which commit it was, in which job, with which versions."""

from __future__ import annotations

import importlib.metadata
from typing import Iterable, Mapping, Sequence

from ...config.first_environment import environment
from ...gpu.machine import Machine
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...system.git import head

own_builtins(globals())


class _System(NamedTuple):
    """The variables of a CI system; of several the first that is set.

    :param job: a template of the address of the job, of variables.
    """

    commit: Sequence[str]
    branch: Sequence[str]
    job: str


_SYSTEMS = (
    _System(  # GitHub Actions; of a pull request GITHUB_REF_NAME is a number
        ("GITHUB_SHA",),
        ("GITHUB_HEAD_REF", "GITHUB_REF_NAME"),
        "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}/attempts/"
        "{GITHUB_RUN_ATTEMPT}",
    ),
    _System(  # GitLab CI
        ("CI_COMMIT_SHA",),
        ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_REF_NAME"),
        "{CI_JOB_URL}",
    ),
    _System(
        ("BUILDKITE_COMMIT",), ("BUILDKITE_BRANCH",), "{BUILDKITE_BUILD_URL}#{BUILDKITE_JOB_ID}"
    ),
    _System(("CIRCLE_SHA1",), ("CIRCLE_BRANCH",), "{CIRCLE_BUILD_URL}"),
    _System(  # Azure Pipelines
        ("BUILD_SOURCEVERSION",),
        ("SYSTEM_PULLREQUEST_SOURCEBRANCH", "BUILD_SOURCEBRANCHNAME"),
        "{SYSTEM_COLLECTIONURI}{SYSTEM_TEAMPROJECT}/_build/results?buildId={BUILD_BUILDID}",
    ),
    _System(("GIT_COMMIT",), ("CHANGE_BRANCH", "GIT_BRANCH"), "{BUILD_URL}"),  # Jenkins
)


def origin(rootdir: str) -> dict[str, str]:
    """`commit`, `branch` and the address of the CI `job`, as far as they are known."""
    return {name: value for name, value in _origin(environment(), rootdir).items() if value}


def _origin(variables: Mapping[str, str], rootdir: str) -> dict[str, str]:
    for system in _SYSTEMS:
        commit = _first(variables, system.commit)
        if commit:
            branch = _first(variables, system.branch)
            return {"commit": commit, "branch": branch, "job": _filled(system.job, variables)}
    return head(rootdir)._asdict()


def _first(variables: Mapping[str, str], names: Iterable[str]) -> str:
    return next(filter(None, (variables.get(name, "") for name in names)), "")


def _filled(template: str, variables: Mapping[str, str]) -> str:
    try:
        return template.format_map(variables)
    except KeyError:
        return ""


_DRIVERS = {"nvidia": "nvidia", "amd": "amdgpu"}
"""The kernel's module of a vendor's driver; AMD's has a version where it is not the kernel's."""


def drivers(vendors: Iterable[str]) -> dict[str, str]:
    """The versions of the drivers of these vendors' GPUs, by vendor, as far as they are known."""
    machine = Machine.here()
    found = {
        vendor: machine.text(f"sys/module/{_DRIVERS[vendor]}/version").strip()
        for vendor in dict.fromkeys(vendors)
        if vendor in _DRIVERS
    }
    return {vendor: version for vendor, version in found.items() if version}


NOT_INSTALLED = "not installed"


def package_versions(names: Iterable[str]) -> dict[str, str]:
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED
