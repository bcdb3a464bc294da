"""Packages of simulators: imported when an environment is made, explained when missing; and names that they know."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from typing import Any

from menura.errors import EnvironmentFailure, did_you_mean, listed


def load_package(module: str, env: str, how: str) -> Any:
    """The module of that name; EnvironmentFailure, which ends in `how` to install it, when there is none.

    Raises:
        EnvironmentFailure: it, or a package it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EnvironmentFailure(
            f"{env}: expected the package {module.partition('.')[0]}, got no module {error.name!r}. {how}"
        ) from error


def installed(module: str) -> bool:
    """Whether a package is there, without importing it."""
    return importlib.util.find_spec(module) is not None


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Of those that are installed: distribution -> version. A package may come from one of several."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # noqa: PERF203
            continue
    return found


def known(what: str, given: str, names: Iterable[str]) -> str:
    """`given`, which is one of `names`; EnvironmentFailure names the nearest, and some of them, otherwise."""
    names = tuple(names)
    if given not in names:
        raise EnvironmentFailure(
            f"{what}: expected one of {listed(names)}, got {given!r}{did_you_mean(given, names) or '.'}"
        )
    return given
