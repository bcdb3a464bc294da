"""`datasets:` of a task: shorthands, paths, names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from menura.config.origins import KeyPath, Problems, Tree, dotted
from menura.config.yaml_tree import told
from menura.data.expression import Expression, ExpressionError
from menura.data.hub import HubDataset, is_remote
from menura.errors import nearest

# Arguments that hold the place of a dataset on disk.
_PATH_ARGS = ("root", "path", "file", "directory")


def spell_out_datasets(tree: Tree) -> None:
    """A plain string in `datasets` is the path of a dataset whose format is recognised."""
    datasets = tree.value.get("datasets")
    if not isinstance(datasets, list):
        return
    for index, dataset in enumerate(datasets):
        if not isinstance(dataset, str):
            continue
        place: KeyPath = ("datasets", index)
        datasets[index] = {"path": dataset}
        if (origin := tree.origin(place)) is not None:
            path: KeyPath = (*place, "path")
            tree.origins[path] = origin


def anchor_datasets(tree: Tree, project: Path) -> None:
    """Make relative paths absolute: those of a file begin at the project, those of the command line where one stands.

    A path that exists in neither place is left as it is; `check_datasets` reports it when data is needed.
    """
    for key, args, name in _path_args(tree):
        origin = tree.origin(key)
        typed = origin is not None and origin.kind == "command line"
        bases = (Path.cwd(), project) if typed else (project, Path.cwd())
        path = Path(args[name]).expanduser()
        existing = (str(base / path) for base in bases if (base / path).exists())
        args[name] = next(existing, args[name])


def check_datasets(tree: Tree, problems: Problems, *, need_data: bool) -> None:
    """Report names given twice and, when data is needed, that there is none or that its files are missing.

    Whether the Hub or another machine has a dataset is not asked here.
    """
    datasets = tree.value.get("datasets")
    names: dict[str, int] = {}
    for index, dataset in enumerate(datasets if isinstance(datasets, list) else ()):
        name = dataset.get("name") if isinstance(dataset, dict) else None
        if not isinstance(name, str):
            continue
        if name in names:
            place: KeyPath = ("datasets", index, "name")
            problems.add(dotted(place), f"{told(name)} is the name of datasets.{names[name]} too", tree.origin(place))
        names.setdefault(name, index)
    _check_weights(datasets, tree, problems)
    _check_expressions(datasets, tree, problems)
    if not need_data:
        return
    if not datasets:
        problems.add("datasets", "expected at least one dataset, got none", tree.origin(("datasets",)))
    for key, args, name in _path_args(tree):
        path = problems.project / Path(args[name]).expanduser()
        elsewhere = is_remote(args[name]) or HubDataset.of(args[name], problems.project, Path.cwd()) is not None
        if not path.exists() and not (len(key) == 3 and elsewhere):
            message = f"no such file or folder: {args[name]}{_near(path, args[name])}"
            problems.add(dotted(key), message, tree.origin(key))


def _check_weights(datasets: Any, tree: Tree, problems: Problems) -> None:
    """Report weights given to some datasets only: what share the others should have is anybody's guess."""
    mappings = (
        [dataset for dataset in datasets or () if isinstance(dataset, dict)] if isinstance(datasets, list) else []
    )
    weighted = [dataset.get("weight") is not None for dataset in mappings]
    if any(weighted) and not all(weighted):
        place: KeyPath = ("datasets", weighted.index(False))
        message = "expected a weight for every dataset or for none, got some"
        problems.add(dotted(place), message, tree.origin(place) or tree.origin(("datasets",)))


def _check_expressions(datasets: Any, tree: Tree, problems: Problems) -> None:
    """Report expressions of filters that cannot be read. Whether their names exist is known when the data is."""
    for index, dataset in enumerate(datasets if isinstance(datasets, list) else ()):
        given = dataset.get("filter") if isinstance(dataset, dict) else None
        for key in ("episodes", "frames"):
            if not isinstance(given, dict) or not isinstance(text := given.get(key), str):
                continue
            try:
                Expression.parse(text)
            except ExpressionError as error:
                place: KeyPath = ("datasets", index, "filter", key)
                problems.add(dotted(place), str(error), tree.origin(place))


def _path_args(tree: Tree) -> Iterator[tuple[KeyPath, dict[str, Any], str]]:
    """Each path of a dataset, its own or an argument of its class: its key, the mapping that holds it, its name."""
    datasets = tree.value.get("datasets")
    for index, dataset in enumerate(datasets if isinstance(datasets, list) else ()):
        if not isinstance(dataset, dict):
            continue
        if isinstance(dataset.get("path"), str):
            yield ("datasets", index, "path"), dataset, "path"
        args = dataset.get("args")
        if isinstance(args, dict):
            for name in _PATH_ARGS:
                if isinstance(args.get(name), str):
                    yield ("datasets", index, "args", name), args, name


def _near(path: Path, written: str) -> str:
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, siblings)
    return f"; did you mean {Path(written).with_name(near)}?" if near is not None else ""
