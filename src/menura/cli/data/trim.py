"""`menura data trim SRC -o DST --idle`."""

from __future__ import annotations

from typing import Annotated

import typer

from menura.cli.data.options import Args, Codec, Format, InPlace, Keys, Lossless, OtherDir, Source, as_it_lies, encoding


def trim(
    source: Source,
    output_dir: OtherDir = None,
    start: Annotated[int, typer.Option("--start", help="So many frames off the beginning of each episode.")] = 0,
    stop: Annotated[int, typer.Option("--stop", help="So many frames off the end of each episode.")] = 0,
    idle: Annotated[
        bool, typer.Option("--idle", help="What lies before the first and after the last movement.")
    ] = False,
    in_place: InPlace = False,
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    codec: Codec = None,
    lossless: Lossless = False,
) -> None:
    """Cut frames off the beginnings and ends of episodes."""
    from menura.data.tools.editing import trim as trim_

    options = encoding(codec, lossless)
    dataset = as_it_lies(source, format, keys, args)
    typer.echo(trim_(dataset, output_dir, start=start, stop=stop, idle=idle, in_place=in_place, **options))
