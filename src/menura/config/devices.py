"""What a robot is driven with: robots, teleoperators and controllers, by name, by path, by class, or inline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from menura.components import class_of_file, find
from menura.config.load import load_section
from menura.config.origins import Problems, Tree
from menura.config.schema import ComponentConfig
from menura.config.sections import config_file, missing_file_message, project_of
from menura.config.yaml_tree import read_yaml
from menura.errors import ComponentError, ConfigError

Named = str | Path | Mapping[str, Any]


def load_robot(robot: Named, overrides: Sequence[str] = (), project: Path | None = None) -> ComponentConfig:
    """A robot: `configs/robot/<name>.yaml` by its name, the path of a YAML, `{class: …, args: …}`, or a class.

    A class is named by itself (`MyRobot`, `pkg.module:MyRobot`) or, in the project's `robot/my_robot.py`, by its file
    (`my_robot`). `overrides` are `["--robot.args.seed", "1"]`. Torch-free; nothing of the user's is imported.

    Raises:
        ConfigError: with every problem found.
    """
    return _load("robot", robot, overrides, project)


def load_teleop(teleop: Named, overrides: Sequence[str] = (), project: Path | None = None) -> ComponentConfig:
    """A teleoperator, as `load_robot` loads a robot; overrides begin with `--teleop.`."""
    return _load("teleop", teleop, overrides, project)


def load_controller(controller: Named, overrides: Sequence[str] = (), project: Path | None = None) -> ComponentConfig:
    """A controller, as `load_robot` loads a robot; overrides begin with `--controller.`."""
    return _load("controller", controller, overrides, project)


def _load(kind: str, given: Named, overrides: Sequence[str], project: Path | None) -> ComponentConfig:
    if isinstance(given, Mapping):
        problems = Problems((project or Path.cwd()).resolve())
        return load_section(kind, ComponentConfig, Tree({kind: dict(given)}, {}), overrides, problems)
    file = Path(given).resolve()
    if not file.is_file():
        problems = Problems((project or Path.cwd()).resolve())
        tree = Tree({kind: _section_of(kind, str(given), problems.project)}, {})
        return load_section(kind, ComponentConfig, tree, overrides, problems)
    problems = Problems((project or project_of(file)).resolve())
    content = read_yaml(file, "section", problems)
    if content is None:
        raise problems.error()
    tree = Tree({kind: content.value}, {(kind, *key): origin for key, origin in content.origins.items()})
    return load_section(kind, ComponentConfig, tree, overrides, problems)


def _section_of(kind: str, name: str, project: Path) -> str | dict[str, Any]:
    """The name, where a YAML has it; else the class that it names."""
    if config_file(kind, name, project) is not None:
        return name
    if (found := class_of_file(kind, name, project)) is not None:
        return {"class": found}
    try:
        find(kind, name, project)
    except ComponentError as error:
        if ":" in name or name[:1].isupper():
            raise ConfigError(f"{kind}: {error}") from error
        raise ConfigError(
            f"{kind}: {missing_file_message(kind, name, project)}, and for a class of that name"
        ) from error
    return {"class": name}
