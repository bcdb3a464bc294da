"""`menura data convert SRC -o DST`."""

from __future__ import annotations

import typer

from menura.cli.data.options import (
    Args,
    Codec,
    Filter,
    Format,
    Keys,
    Lossless,
    OutputDir,
    Source,
    To,
    Wrappers,
    encoding,
    opened,
)


def convert(
    source: Source,
    output_dir: OutputDir,
    to: To = "lerobot",
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    filter: Filter = None,
    wrappers: Wrappers = None,
    codec: Codec = None,
    lossless: Lossless = False,
) -> None:
    """Write a dataset of any format as another one; the same command goes on after an interruption."""
    from menura.data.tools.editing import convert as convert_

    reader = opened(source, format, keys, args, filter, wrappers)
    typer.echo(convert_(reader, output_dir, to=to, **encoding(codec, lossless)))
