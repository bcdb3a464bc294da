"""What the commands of `menura data` share: how a dataset is named, where the new one goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Source = Annotated[str, typer.Argument(help="A dataset of any format: its path, or a Hub id.")]
Format = Annotated[str | None, typer.Option("--format", help="Its format, where it is not to be recognised.")]
Keys = Annotated[str | None, typer.Option("--keys", help="What is read as what: '{state: [a, b], images: {top: c}}'.")]
Args = Annotated[str | None, typer.Option("--args", help="Further arguments of the format: '{mask: train, fps: 20}'.")]
Filter = Annotated[str | None, typer.Option("--filter", help="Which episodes: 'success and length > 50'.")]
Wrappers = Annotated[
    str | None,
    typer.Option("--wrappers", help="What it passes through: '[{class: Resample, args: {fps: 10}}]'."),
]
OutputDir = Annotated[Path, typer.Option("--output_dir", "-o", help="Where the new dataset goes; new or empty.")]
OtherDir = Annotated[Path | None, typer.Option("--output_dir", "-o", help="Where the new dataset goes; new or empty.")]
InPlace = Annotated[bool, typer.Option("--in_place", help="Put the result in the place of the source.")]
To = Annotated[str, typer.Option("--to", help="lerobot (LeRobotDataset v3.0) or menura (HDF5).")]
Codec = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="Of videos: libx264, libx264-ultrafast, libx264-420 or libsvtav1; the source's where none is given.",
    ),
]
Lossless = Annotated[bool, typer.Option("--lossless", help="Cameras as PNG instead of video.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def opened(
    source: str,
    format: str | None,
    keys: str | None,
    args: str | None,
    filter: str | None = None,
    wrappers: str | None = None,
) -> Any:
    """The reader of what the options name."""
    from menura.data.opening import open_dataset

    return open_dataset(dataset_spec(source, format, keys, args, filter, wrappers))


def as_it_lies(source: str, format: str | None, keys: str | None, args: str | None) -> str | dict[str, Any]:
    """A path where nothing more is said: such a dataset may be changed in its place."""
    spec = dataset_spec(source, format, keys, args)
    return spec if format or keys or args else source


def dataset_spec(
    source: str,
    format: str | None,
    keys: str | None,
    args: str | None,
    filter: str | None = None,
    wrappers: str | None = None,
) -> dict[str, Any]:
    """What the options name, as a task's `datasets:` has it."""
    spec: dict[str, Any] = {"path": source, "format": format, "keys": mapping("keys", keys)}
    spec["args"] = mapping("args", args) or {}
    spec["wrappers"] = components("wrappers", wrappers)
    spec["filter"] = None if filter is None else {"episodes": filter}
    return {key: value for key, value in spec.items() if value is not None}


def encoding(codec: str | None, lossless: bool) -> dict[str, Any]:
    """How cameras are written; what is not said is left to what the source has."""
    return {"codec": codec, "lossless": lossless or None}


def mapping(what: str, text: str | None) -> dict[str, Any] | None:
    """A mapping written as YAML."""
    from menura.errors import ConfigError

    value: dict[str, Any] | None = _yaml(text)
    if text is not None and not isinstance(value, dict):
        raise ConfigError(f"--{what}: expected a mapping such as '{{key: value}}', got {text!r}.")
    return value


def components(what: str, text: str | None) -> list[dict[str, Any]] | None:
    """A list of components written as YAML, as a task has it."""
    from menura.errors import ConfigError

    value: list[dict[str, Any]] | None = _yaml(text)
    listed = isinstance(value, list) and all(isinstance(each, dict) and "class" in each for each in value)
    if text is not None and not listed:
        raise ConfigError(f"--{what}: expected a list such as '[{{class: …, args: {{…}}}}]', got {text!r}.")
    return value


def _yaml(text: str | None) -> Any:
    """What a text says; None where it cannot be read."""
    import yaml

    try:
        return None if text is None else yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def pairs(what: str, words: Sequence[str] | None, *, empty: bool = False) -> dict[str, str]:
    """`["old=new", …]` as a mapping; `empty` allows `=new`."""
    from menura.errors import ConfigError

    found = {}
    for word in words or ():
        old, equals, new = word.partition("=")
        if not ((old or empty) and equals and new):
            raise ConfigError(f"--{what}: expected old=new, got {word!r}.")
        found[old] = new
    return found


def numbers(what: str, text: str) -> list[int]:
    """`3,7,10-12` as a list."""
    from menura.errors import ConfigError

    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(f"--{what}: expected numbers such as 3,7,10-12, got {text!r}.")
        found += range(int(first), int(last or first) + 1)
    return found
