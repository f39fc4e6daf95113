"""Virtual environments for those that are compared, kept for the next time."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path
from typing import Sequence

CHECKOUT = Path(__file__).resolve().parents[2]

ENVIRONMENTS = {
    "fkit": ("-e", str(CHECKOUT), "pytest", "pytest-xdist"),
    # The newest pytest that these two work with.
    "forked": ("pytest==8.4.*", "pytest-forked"),
    "isolate": ("pytest==8.4.*", "pytest-isolate"),
    # Another project, with our import name.
    "public-fkit": ("pytest-fkit==0.2.0", "pytest"),
    "public-fkit-0.11": ("pytest-fkit==0.11.0", "pytest"),
}


def install(base: Path, name: str, requirements: Sequence[str] = ()) -> None:
    """Make the environment, if it is not there, and add what a suite needs.

    :raises subprocess.CalledProcessError: if something can't be installed.
    """
    environment = base / name
    if not (environment / "installed").exists():
        venv.create(environment, with_pip=True, clear=True)
        _pip(environment, ENVIRONMENTS[name])
        (environment / "installed").touch()
    had = (environment / "installed").read_text().split()
    missing = [each for each in requirements if each not in had]
    if missing:
        _pip(environment, missing)
        (environment / "installed").write_text("\n".join([*had, *missing]))


def _pip(environment: Path, requirements: Sequence[str]) -> None:
    pip = (python(environment), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, *requirements], check=True)


def python(environment: Path) -> str:
    """Path of its interpreter."""
    return str(environment / "bin" / "python")
