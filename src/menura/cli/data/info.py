"""`menura data info PATH`."""

from __future__ import annotations

import json as json_
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from menura.cli.data.options import Args, Format, Json, Keys, Source, opened

if TYPE_CHECKING:
    from menura.data.tools.describing import DatasetInfo
    from menura.features import VectorFeature


def info(source: Source, format: Format = None, keys: Keys = None, args: Args = None, json: Json = False) -> None:
    """Say what a dataset is: episodes, tasks, state, action, cameras, size."""
    from menura.data.tools.describing import describe

    found = describe(opened(source, format, keys, args), source if Path(source).exists() else None)
    if json:
        typer.echo(json_.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    rows = _rows(found)
    indent = max(len(name) for name, _ in rows) + 2
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for name, value in rows:
        typer.echo(
            textwrap.fill(f"{name:<{indent}}{value}", width, subsequent_indent=" " * indent, break_on_hyphens=False)
        )


def _rows(found: DatasetInfo) -> list[tuple[str, str]]:
    features, minutes = found.features, found.seconds / 60
    control = " ".join(word for word in (features.control_space, features.control_type) if word)
    rows = [
        ("dataset", found.name),
        ("format", found.format or ""),
        ("robot", features.robot or ""),
        ("episodes", f"{found.episodes:,} of {_between(found.shortest, found.longest)} frames"),
        ("frames", f"{found.frames:,} at {features.fps:g} Hz: {minutes:,.1f} minutes"),
        ("success", f"{found.solved} solved, {found.unsolved} not" if found.solved + found.unsolved else ""),
        ("state", _vector(features.state) if features.state else "none"),
        ("action", _vector(features.action) + (f" ({control})" if control else "")),
    ]
    rows += [(f"camera {name}", f"{camera.height} x {camera.width}") for name, camera in features.cameras.items()]
    rows += [("task", f"{task!r}: {count:,} episodes") for task, count in list(found.tasks.items())[:10] if task]
    if len(found.tasks) > 10:
        rows.append(("", f"and {len(found.tasks) - 10:,} more tasks"))
    if found.unfinished is not None:
        rows.insert(1, ("unfinished", f"of {found.unfinished!r}: writing was interrupted; the same command goes on"))
    if found.disk_bytes is not None:
        rows.append(("on the disk", _size(found.disk_bytes)))
    return [row for row in rows if row[1]]


def _between(shortest: int, longest: int) -> str:
    return f"{shortest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"


def _size(count: int) -> str:
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{count / unit:,.1f} {name}"


def _vector(feature: VectorFeature) -> str:
    units = feature.units or [""] * feature.dim
    return f"{feature.dim}: " + ", ".join(
        f"{name} [{unit}]" if unit else name for name, unit in zip(feature.names, units, strict=True)
    )
