"""From a task's YAML to a validated configuration, without importing torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from menura.components import KINDS
from menura.config.arguments import check_components, check_masks, component_places
from menura.config.datasets import anchor_datasets, check_datasets, spell_out_datasets
from menura.config.environments import anchor_python
from menura.config.finetuning import anchor_init_from
from menura.config.interpolation import interpolate
from menura.config.messages import schema_problems
from menura.config.normalization import choose_normalization
from menura.config.origins import KeyPath, Origin, Problems, Tree, dotted
from menura.config.overrides import apply, parse_overrides
from menura.config.resolved import ResolvedTask
from menura.config.schema import ComponentConfig, EnvConfig, Section, TaskConfig
from menura.config.sections import Composer, find_task, project_of
from menura.config.training import check_training, choose_length
from menura.config.yaml_tree import read_yaml, told
from menura.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)


def load_task(
    task: str | Path,
    overrides: Sequence[str] = (),
    project: Path | None = None,
    *,
    need_data: bool = False,
    kinds: Collection[str] = KINDS,
) -> ResolvedTask:
    """Read a task, put its sections in their places, apply overrides, and check everything.

    Args:
        task: a path, or the name of `configs/task/<name>.yaml` in the project or in the package.
        overrides: `["--policy.args.hidden_size", "512"]`, `["--a.b=v"]` or `["a.b=v"]`; values are YAML.
        project: the folder that holds `configs/`, `policy/`, …; by default the one the task's file lies in.
        need_data: also require that there are datasets and that their files exist.
        kinds: of components whose classes must be there: a run is evaluated where its datasets' classes are not.

    Raises:
        ConfigError: with every problem found, each with its file and line.
    """
    file, root = find_task(task, project.resolve() if project is not None else None)
    problems = Problems(root)
    tree = read_yaml(file, "task", problems)
    if tree is None:
        raise problems.error()
    name = _take_name(tree, file, problems)
    root = _take_project(tree, file, root, problems, given=project is not None)
    problems.project = root
    tree = _complete(tree, overrides, root, problems)
    config = _validated(TaskConfig, tree, (), problems)
    check_datasets(tree, problems, need_data=need_data)
    check_training(tree, problems)
    check_components(tree, problems, kinds)
    check_masks(tree, problems)
    if config is None or problems:
        raise problems.error()
    return ResolvedTask(config, _all_origins(config, tree), root, name)


def load_env(env: str | Path, project: Path | None = None, overrides: Sequence[str] = ()) -> EnvConfig:
    """An environment by name (`configs/env/<name>.yaml`), or by the path of its YAML or of a task that has one.

    `overrides` are those of a task: `["--env.args.task", "reach"]`.

    Raises:
        ConfigError: with every problem found.
    """
    file = Path(env).resolve()
    root = (project or project_of(file)).resolve() if file.is_file() else (project or Path.cwd()).resolve()
    problems = Problems(root)
    tree = Tree({"env": str(env)}, {})
    if file.is_file():
        content = read_yaml(file, "section", problems)
        if content is None:
            raise problems.error()
        if content.value.keys() & {"env", "policy"}:
            return _env_of_task(file, project, overrides)
        tree = Tree({"env": content.value}, {("env", *key): origin for key, origin in content.origins.items()})
    return load_section("env", EnvConfig, tree, overrides, problems)


def load_section(
    kind: str, model: type[AnySection], tree: Tree, overrides: Sequence[str], problems: Problems
) -> AnySection:
    """The one section, of a component, that a tree holds: by name or inline, with its overrides."""
    tree = Composer(problems.project, problems).compose(tree)
    for override in parse_overrides(overrides, problems):
        apply(tree, override, problems)
    interpolate(tree, problems)
    anchor_python(tree, problems.project)
    if problems:
        raise problems.error()
    config = _validated(model, tree, (kind,), problems)
    for place in component_places(tree):
        if len(place.path) > 1:  # of a component's arguments
            _validated(EnvConfig if place.kind == "env" else ComponentConfig, tree, place.path, problems)
    check_components(tree, problems, KINDS)
    if config is None or problems:
        raise problems.error()
    return config


def _env_of_task(task: Path, project: Path | None, overrides: Sequence[str]) -> EnvConfig:
    resolved = load_task(task, overrides, project)
    if resolved.config.env is None:
        raise ConfigError(f"env: expected an environment, got null ({resolved.locate('env')})")
    return resolved.config.env


def _take_name(tree: Tree, file: Path, problems: Problems) -> str:
    name = tree.value.pop("name", None)
    if name is None:
        return file.stem
    if not isinstance(name, str) or not name:
        problems.add("name", f"expected a word, got {told(name)}", tree.origin(("name",)))
        return file.stem
    return name


def _take_project(tree: Tree, file: Path, root: Path, problems: Problems, *, given: bool) -> Path:
    """The project a file names itself, as a run's does, unless the caller named one."""
    named = tree.value.pop("project", None)
    if named is None:
        return root
    if not isinstance(named, str):
        problems.add("project", f"expected the path of a folder, got {told(named)}", tree.origin(("project",)))
        return root
    folder = (file.parent / named).resolve()
    return folder if folder.is_dir() and not given else root


def _complete(tree: Tree, words: Sequence[str], project: Path, problems: Problems) -> Tree:
    """The task with its sections in place, overridden, interpolated, and with shorthands written out."""
    spell_out_datasets(tree)
    overrides = parse_overrides(words, problems)
    for override in overrides:
        if override.names_section:
            apply(tree, override, problems)
    if tree.value.get("training") is None:
        tree.value["training"] = {}  # has defaults
    tree = Composer(project, problems).compose(tree)
    for override in overrides:
        if not override.names_section:
            apply(tree, override, problems)
    spell_out_datasets(tree)
    interpolate(tree, problems)
    anchor_datasets(tree, project)
    anchor_init_from(tree, project)
    anchor_python(tree, project)
    choose_length(tree, problems)
    choose_normalization(tree, problems)
    return tree


def _validated(model: type[AnySection], tree: Tree, path: KeyPath, problems: Problems) -> AnySection | None:
    """What lies at a path as its model; None after reporting what does not fit."""
    for component in component_places(tree):
        if component.value.get("args", "") is None:  # `args:` with nothing below it
            component.value["args"] = {}
    try:
        return model.model_validate(tree.get(path))
    except ValidationError as error:
        schema_problems(error, tree, problems, model=model, prefix=path)
        return None


def _all_origins(config: TaskConfig, tree: Tree) -> dict[str, Origin]:
    """The origin of every value, those of the schema's defaults included."""
    origins = {dotted(path): origin for path, origin in tree.origins.items() if path}
    for path in _leaves(config.model_dump(by_alias=True), ()):
        written = tree.origin(path) if tree.holds(path) else None
        origins.setdefault(dotted(path), written or Origin("default"))
    return origins


def _leaves(value: Any, path: KeyPath) -> list[KeyPath]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, (*path, key))]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [leaf for index, item in enumerate(value) for leaf in _leaves(item, (*path, index))]
    return [path]
