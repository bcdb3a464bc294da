"""Finding the YAML files of a project and of the package, and putting named sections in their places.

A section is a mapping in the task, or the name of `configs/<kind>/<name>.yaml`. A mapping may also start from a named
section by `base: <name>` and change some of its values. `training` starts from `default` unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from menura.config.origins import PACKAGE, KeyPath, Origin, OriginKind, Problems, Tree, merge, shown
from menura.config.yaml_tree import read_yaml, told
from menura.errors import ConfigError, near_or_known, nearest

COMPONENTS = ("policy", "env", "expert", "trainer", "image_encoder")
DEVICES = ("robot", "teleop", "controller")  # no part of a task: each is named when a robot is driven
SETTINGS = ("processor", "training", "evaluation", "collect", "data")
SECTIONS = (*COMPONENTS, *SETTINGS)


def config_file(kind: str, name: str, project: Path) -> Path | None:
    """`configs/<kind>/<name>.yaml` of the project, else of the package."""
    for folder in _folders(kind, project):
        file = folder / f"{name}.yaml"
        if file.is_file():
            return file
    return None


def config_names(kind: str, project: Path) -> list[str]:
    """The names that `config_file` would find."""
    names = {
        file.relative_to(folder).with_suffix("").as_posix()
        for folder in _folders(kind, project)
        for file in folder.rglob("*.yaml")
    }
    return sorted(names)


def missing_file_message(kind: str, name: str, project: Path) -> str:
    """What to say when no file of that name exists."""
    hint = near_or_known(name, config_names(kind, project))
    end = "" if hint.endswith("?") else "."
    places = " or ".join(shown(folder / f"{name}.yaml", project) for folder in _folders(kind, project))
    return f"no {kind} is named {name!r}{hint}{end} Looked for {places}"


def find_task(task: str | Path, project: Path | None) -> tuple[Path, Path]:
    """The task's file and its project.

    A task is a path, or the name of `configs/task/<name>.yaml`. The project is the one given, else the folder above
    the `configs/` that holds the file, else the working directory.
    """
    path = Path(task)
    if path.is_file():
        return path.resolve(), project or project_of(path.resolve())
    root = project or Path.cwd()
    if path.suffix in (".yaml", ".yml"):
        siblings = [file.name for file in path.parent.glob("*.y*ml")]
        near = nearest(path.name, siblings)
        hint = f"; did you mean {path.parent / near}?" if near else ""
        raise ConfigError(f"task: no such file: {path}{hint}")
    if (file := config_file("task", str(task), root)) is None:
        raise ConfigError(f"task: {missing_file_message('task', str(task), root)}")
    return file, root


def project_of(file: Path) -> Path:
    """The folder above the `configs/` that holds a file, else the working directory."""
    for folder in file.parents:
        if folder.name == "configs" and folder != PACKAGE / "configs":
            return folder.parent
    return Path.cwd()


def _folders(kind: str, project: Path) -> Iterator[Path]:
    yield project / "configs" / kind
    yield PACKAGE / "configs" / kind


class Composer:
    """Replaces the sections of a task that are names, or have a base, by what they stand for."""

    def __init__(self, project: Path, problems: Problems) -> None:
        self._project = project
        self._problems = problems

    def compose(self, task: Tree) -> Tree:
        """The task with every section inline; sections that cannot be read are left out and reported."""
        for kind in (*SECTIONS, *DEVICES):
            if task.value.get(kind) is None:
                continue
            section = self._section(kind, task)
            if section is None:
                del task.value[kind]  # its origin stays, which tells that it was given
            else:
                task.replace((kind,), section.value, _origins_at(section, task.origins.get((kind,))))
        return task

    def _section(self, kind: str, task: Tree) -> Tree | None:
        value, origin = task.value[kind], task.origin((kind,))
        if isinstance(value, str):
            return self._named(kind, value, origin, ())
        if not isinstance(value, dict):
            self._problems.add(kind, f"expected a mapping or the name of a section, got {told(value)}", origin)
            return None
        section = task.part((kind,))
        if kind == "training" and "base" not in value:
            default = config_file(kind, "default", self._project)
            below = self._file(kind, default, "default", ()) if default else None
            return merge(below, section) if below is not None else section
        return self._based(kind, section, ())

    def _based(self, kind: str, section: Tree, names: tuple[str, ...]) -> Tree | None:
        """A section merged over the one that its key `base` names."""
        if "base" not in section.value:
            return section
        base, origin = section.value["base"], section.origin(("base",))
        section.delete(("base",))
        if base is None:
            return section
        if not isinstance(base, str):
            self._problems.add(f"{kind}.base", f"expected the name of a section, got {told(base)}", origin)
            return section
        below = self._named(kind, base, origin, names)
        return merge(below, section) if below is not None else None

    def _named(self, kind: str, name: str, origin: Origin | None, names: tuple[str, ...]) -> Tree | None:
        if name in names:
            circle = " -> ".join((*names[names.index(name) :], name))
            self._problems.add(f"{kind}.base", f"sections name each other in a circle: {circle}", origin)
            return None
        file = config_file(kind, name, self._project)
        if file is None:
            message = missing_file_message(kind, name, self._project)
            if kind in (*COMPONENTS, *DEVICES) and name[:1].isupper():
                message += f". A class is written {{class: {name}}}"
            self._problems.add(kind, message, origin)
            return None
        return self._file(kind, file, "section", (*names, name))

    def _file(self, kind: str, file: Path, rank: OriginKind, names: tuple[str, ...]) -> Tree | None:
        section = read_yaml(file, rank, self._problems)
        return self._based(kind, section, names) if section is not None else None


def _origins_at(section: Tree, named_at: Origin | None) -> dict[KeyPath, Origin]:
    """A section's origins; the section itself stands where the task names it, if it does."""
    return section.origins if named_at is None else {**section.origins, (): named_at}
