"""Convert, merge, split, trim, delete, rename: each writes a new dataset of what a wrapper shows of the old."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from menura.data.concatenation import Concatenation
from menura.data.formats import recognise
from menura.data.opening import open_dataset
from menura.data.readers.base import Reader
from menura.data.tools.writing import UNFINISHED, WRITERS, claim, write_dataset, written_in_place
from menura.data.wrappers.rename import Rename
from menura.data.wrappers.select import Select
from menura.data.wrappers.trim import Trim
from menura.errors import ConfigError, DataError, did_you_mean
from menura.files import recover_directory

Source = str | Path | Mapping[str, Any] | Reader


def convert(
    source: Source, output_dir: str | Path, *, to: str = "lerobot", progress: bool = True, **encoding: Any
) -> Path:
    """Write a dataset of any format as another one.

    Args:
        source: as `open_dataset` takes it; a mapping may choose keys, a filter, and wrappers on the way.
        output_dir: new or empty; after an interruption the same call goes on.
        to: `lerobot` or `menura`.
        progress: show a bar on stderr.
        encoding: `lossless` and `codec`, as `write_dataset` takes them.

    Returns:
        The new dataset's directory.
    """
    return write_dataset(open_dataset(source), output_dir, to=to, progress=progress, **encoding)


def merge(
    sources: Sequence[Source], output_dir: str | Path, *, to: str = "lerobot", progress: bool = True, **encoding: Any
) -> Path:
    """Write the episodes of several datasets of one kind, one after the other, as one.

    Raises:
        FeatureMismatch: they mean different things; says what.
    """
    readers = [open_dataset(source) for source in sources]
    return write_dataset(Concatenation(readers), output_dir, to=to, progress=progress, **encoding)


def split(
    source: Source,
    output_dir: str | Path,
    parts: Mapping[str, float | Sequence[int]],
    *,
    seed: int = 0,
    to: str = "lerobot",
    progress: bool = True,
    **encoding: Any,
) -> list[Path]:
    """Write a dataset's episodes as several: `output_dir/<part>`.

    Args:
        source: as `open_dataset` takes it.
        output_dir: of all parts; new or empty; after an interruption the same call goes on.
        parts: name -> the numbers of its episodes, or its share of them; shares are drawn at random and sum to 1.
        seed: of the draw.

    Raises:
        ConfigError: shares that do not sum to 1, an episode in two parts, a part without any.
    """
    reader, directory = open_dataset(source), Path(output_dir).expanduser()
    chosen = _parts(parts, len(reader), seed)
    claim(directory, reader, [chosen, to, encoding])
    for name, episodes in chosen.items():
        if not _is_whole(directory / name):
            write_dataset(Select(reader, episodes), directory / name, to=to, progress=progress, **encoding)
    (directory / UNFINISHED).unlink()
    return [directory / name for name in chosen]


def trim(
    source: Source,
    output_dir: str | Path | None = None,
    *,
    start: int = 0,
    stop: int = 0,
    idle: bool = False,
    in_place: bool = False,
    progress: bool = True,
    **encoding: Any,
) -> Path:
    """Cut frames off the beginnings and the ends of all episodes.

    Args:
        source: as `open_dataset` takes it; a path when `in_place`.
        output_dir: new or empty; not with `in_place`.
        start, stop: so many frames off the beginning and the end.
        idle: those before the first and after the last movement.
        in_place: put the result in the place of the source.
    """
    return _edit(
        source, output_dir, lambda reader: Trim(reader, start=start, stop=stop, idle=idle), in_place, progress, encoding
    )


def delete(
    source: Source,
    output_dir: str | Path | None = None,
    *,
    episodes: Sequence[int],
    in_place: bool = False,
    progress: bool = True,
    **encoding: Any,
) -> Path:
    """Leave episodes out; the others move up."""

    def without(reader: Reader) -> Reader:
        doomed = Select(reader, episodes).episodes  # a number that is not there is refused
        left = np.setdiff1d(np.arange(len(reader)), doomed)
        if not len(left):
            raise DataError(f"{reader.name!r}: expected some of its {len(reader)} episodes to be left, got none.")
        return Select(reader, left)

    return _edit(source, output_dir, without, in_place, progress, encoding)


def rename(
    source: Source,
    output_dir: str | Path | None = None,
    *,
    state: Mapping[str, str] | None = None,
    action: Mapping[str, str] | None = None,
    cameras: Mapping[str, str] | None = None,
    tasks: Mapping[str, str] | None = None,
    in_place: bool = False,
    progress: bool = True,
    **encoding: Any,
) -> Path:
    """Other names for dimensions and cameras, and other words for tasks: old -> new; "" is no instruction."""

    def renamed(reader: Reader) -> Reader:
        known = set(reader.tasks()) if tasks else set()
        for task in tasks or ():
            if task not in known:
                near = did_you_mean(task, known)
                raise DataError(f"tasks: expected some of {sorted(known)}, got {task!r}{near or '.'}")
        return Rename(reader, state, action, cameras, tasks)

    return _edit(source, output_dir, renamed, in_place, progress, encoding)


def _edit(
    source: Source,
    output_dir: str | Path | None,
    change: Callable[[Reader], Reader],
    in_place: bool,
    progress: bool,
    encoding: Mapping[str, Any],
) -> Path:
    """Writes what `change` makes of the source: as a LeRobotDataset elsewhere, or in its place in its own format."""
    if in_place and isinstance(source, (str, Path)):
        recover_directory(Path(source).expanduser())  # what another change left that was killed in its last moment
    reader = change(open_dataset(source))
    if not in_place:
        if output_dir is None:
            raise ConfigError("output_dir: expected a directory, got none. Say where to write (-o), or in_place.")
        return write_dataset(reader, output_dir, progress=progress, **encoding)
    if output_dir is not None or not isinstance(source, (str, Path)):
        raise ConfigError(
            "in_place: expected the path of a dataset, and no output_dir, format, keys or args. Leave those out, or it."
        )
    path = Path(source).expanduser()
    format = recognise(path)
    if format not in WRITERS:
        raise DataError(f"{path}: in_place: expected one of {list(WRITERS)}, got {format}. Give an output_dir.")
    with written_in_place(path) as temporary:
        write_dataset(reader, temporary, to=format, progress=progress, **encoding)
    return path


def _is_whole(directory: Path) -> bool:
    """Whether a dataset was written here to its end."""
    return directory.exists() and any(directory.iterdir()) and not (directory / UNFINISHED).exists()


def _parts(parts: Mapping[str, float | Sequence[int]], total: int, seed: int) -> dict[str, list[int]]:
    """Part -> its episodes, in order."""
    shares = {name: float(share) for name, share in parts.items() if isinstance(share, (int, float))}
    if shares and (len(shares) < len(parts) or abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) <= 0):
        got = ", ".join(f"{name}={share}" for name, share in parts.items())
        raise ConfigError(f"parts: expected shares > 0 that sum to 1, or episodes of every part, got {got}.")
    if shares:
        order = np.random.default_rng(seed).permutation(total)
        ends = np.round(np.cumsum(list(shares.values())) * total).astype(int)
        chosen = {name: sorted(order[a:b].tolist()) for name, a, b in zip(shares, [0, *ends], ends, strict=False)}
    else:
        chosen = {name: [int(number) for number in numbers] for name, numbers in parts.items()}  # type: ignore[union-attr]
    empty = next((name for name, numbers in chosen.items() if not numbers), None)
    if empty is not None:
        raise ConfigError(f"parts: expected episodes in every part, got none in {empty!r}, of {total} in all.")
    every = [number for numbers in chosen.values() for number in numbers]
    if len(set(every)) < len(every):
        raise ConfigError(f"parts: expected each episode in one part, got {chosen}.")
    return chosen
