"""Arguments of components, compared with the signatures in their source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from menura.config.origins import KeyPath, Problems, Tree
from menura.config.sections import COMPONENTS


@dataclass(frozen=True)
class Place:
    """A component as the tree has it: a mapping that should hold `class` and `args`."""

    kind: str
    path: KeyPath
    value: dict[str, Any]


def component_places(tree: Tree) -> Iterator[Place]:
    """Every component of a task whose section is a mapping."""
    for kind in COMPONENTS:
        if isinstance(value := tree.value.get(kind), dict):
            yield Place(kind, (kind,), value)
    datasets = tree.value.get("datasets")
    for index, dataset in enumerate(datasets if isinstance(datasets, list) else ()):
        if isinstance(dataset, dict):
            yield Place("dataset", ("datasets", index), dataset)


def check_components(tree: Tree, problems: Problems) -> None:
    """Report classes that are not found and arguments that do not fit them."""
