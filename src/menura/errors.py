"""Errors of Menura: one message each, `<what failed>: expected <x>, got <y>. <next step>.`"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

#: Names that a message lists, at most.
MOST_LISTED = 12


class MenuraError(Exception):
    """The base of every error that Menura raises on purpose."""


class ConfigError(MenuraError):
    """A YAML file or an override is wrong. Holds every problem found, one message each."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ComponentError(MenuraError):
    """A class named in a YAML cannot be found, is found twice, or cannot be imported."""


class ContractError(MenuraError):
    """A policy, dataset, environment or expert does not keep its contract."""


class DataError(MenuraError):
    """A dataset is missing, damaged, or contradicts what it says of itself."""


class FeatureMismatch(MenuraError):
    """Two parts disagree on what an observation or an action is."""


class StatisticsError(MenuraError):
    """Statistics are missing, of the wrong width, or not finite."""


class CheckpointError(MenuraError):
    """A checkpoint is incomplete, was changed, or no longer answers what it answered when it was saved."""


class TrainingError(MenuraError):
    """Training cannot go on."""


class EnvironmentFailure(MenuraError):
    """An environment, its simulator or its renderer cannot be used."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `name`, or None when none is near."""
    names = list(candidates)
    folded = {candidate.casefold(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`"; did you mean x?"` for the nearest candidate, else the empty string."""
    match = nearest(name, candidates)
    return f"; did you mean {match}?" if match is not None else ""


def near_or_known(name: str, candidates: Iterable[str]) -> str:
    """`"; did you mean x?"` for the nearest candidate; where none is near `". Known: a, b, …"`; nothing of nothing."""
    names = list(candidates)
    if not names:
        return ""
    return did_you_mean(name, names) or f". Known: {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """`"a, b, c"`; of many the first ones, and how many there are."""
    shown = ", ".join(names[:MOST_LISTED])
    return shown if len(names) <= MOST_LISTED else f"{shown}, … ({len(names)} in all)"
