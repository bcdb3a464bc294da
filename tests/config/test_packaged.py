"""Every YAML that comes with Menura loads, and a typo of any one of its keys is told with the right suggestion."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from menura.config import load_controller, load_env, load_robot, load_task, load_teleop
from menura.config.origins import PACKAGE
from menura.errors import ConfigError

EXAMPLES = PACKAGE.parents[1] / "examples"
DEVICES = {"robot": load_robot, "teleop": load_teleop, "controller": load_controller}
FILES = sorted(
    file
    for file in [*(PACKAGE / "configs").glob("*/*.yaml"), *EXAMPLES.glob("*/configs/*/*.yaml")]
    if file.parent.name != "keys"  # read by the server alone, which has its own tests of them
)
# Below these, keys are the user's own words (names of cameras) or checked by their owner (a vision model's settings).
FREE = {"cameras", "model", "action", "state", "limits", "keys"}
# Of robots and teleoperators: topics, what a driver of others is configured with, names of joints.
FREE |= {"states", "actions", "config", "grippers", "units", "names", "scale"}


def keys(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key of a file."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if isinstance(tree, dict):
            yield (*path, key)
        if key not in FREE:
            yield from keys(value, (*path, key))


def misspelt(word: str) -> str:
    """Without its middle letter."""
    return word[: len(word) // 2] + word[len(word) // 2 + 1 :]


def with_typo(tree: Any, path: tuple[str | int, ...]) -> Any:
    changed = copy.deepcopy(tree)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[misspelt(str(path[-1]))] = inner.pop(path[-1])
    return changed


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parents[2].name}-{file.parent.name}-{file.stem}")
def test_a_typo_of_any_key_is_told_with_what_was_meant(file: Path, tmp_path: Path) -> None:
    kind, tree = file.parent.name, yaml.safe_load(file.read_text())
    project = file.parents[2] if file.is_relative_to(EXAMPLES) else tmp_path
    task = tmp_path / "configs" / "task" / "typo.yaml"
    task.parent.mkdir(parents=True)
    tried = 0
    for path in keys(tree):
        written = with_typo(tree, path)
        if kind in DEVICES:
            path = (kind, *path)
        elif kind != "task":
            written = {"policy": "mlp", kind: written} if kind != "policy" else {"policy": written}
            path = (kind, *path)
        task.write_text(yaml.safe_dump(written, sort_keys=False))
        with pytest.raises(ConfigError) as caught:
            DEVICES[kind](written, project=project) if kind in DEVICES else load_task(task, project=project)
        key, wrong = str(path[-1]), ".".join([*map(str, path[:-1]), misspelt(str(path[-1]))])
        assert any(
            problem.startswith(f"{wrong}: ") and f"did you mean {key}?" in problem for problem in caught.value.problems
        ), f"{wrong}: {caught.value}"
        tried += 1
    assert tried > 0


@pytest.mark.parametrize(
    ("kind", "name"), [(file.parent.name, file.stem) for file in FILES if file.parent.name in DEVICES]
)
def test_every_robot_teleoperator_and_controller_is_found_by_its_name(kind: str, name: str) -> None:
    said = ["--robot.args.dataset", "data/any"] if name == "replay" else []  # what only the user knows
    assert DEVICES[kind](name, said).class_


@pytest.mark.parametrize("name", [file.stem for file in FILES if file.parent.name == "env"])
def test_every_environment_is_found_by_its_name(name: str) -> None:
    project = next((f.parents[2] for f in FILES if f.stem == name and f.is_relative_to(EXAMPLES)), None)
    assert load_env(name, project=project).class_
