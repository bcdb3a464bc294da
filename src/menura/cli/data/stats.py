"""`menura data stats PATH`."""

from __future__ import annotations

import json as json_
from typing import Annotated

import typer

from menura.cli.data.options import Args, Filter, Format, Json, Keys, Source, opened

_FIELDS = ("mean", "std", "min", "q01", "q99", "max")


def stats(
    source: Source,
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    filter: Filter = None,
    json: Json = False,
    ray: Annotated[bool, typer.Option("--ray", help="Read the episodes on a Ray cluster.")] = False,
) -> None:
    """Compute exact statistics of state and action from the data."""
    from rich.console import Console
    from rich.table import Table

    from menura.data.tools.describing import dataset_statistics

    reader = opened(source, format, keys, args, filter)
    found = dataset_statistics(reader, ray=ray, progress=True)
    if json:
        typer.echo(json_.dumps({name: each.to_dict() for name, each in found.items()}, indent=2))
        return
    for name, each in found.items():
        table = Table(title=f"{name}, {each.count:,} frames", title_justify="left", box=None, pad_edge=False)
        table.add_column("", overflow="fold")  # names differ at their ends
        for field in _FIELDS:
            table.add_column(field, justify="right")
        for row, dimension in enumerate(getattr(reader.features, name).names):
            table.add_row(dimension, *(f"{getattr(each, field)[row]:.4g}" for field in _FIELDS))
        Console(soft_wrap=True).print(table, highlight=False)
