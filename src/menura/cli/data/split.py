"""`menura data split SRC -o DST --parts train=0.9,val=0.1`."""

from __future__ import annotations

from typing import Annotated

import typer

from menura.cli.data.options import (
    Args,
    Codec,
    Format,
    Keys,
    Lossless,
    OutputDir,
    Source,
    To,
    as_it_lies,
    encoding,
    pairs,
)


def split(
    source: Source,
    output_dir: OutputDir,
    parts: Annotated[str, typer.Option("--parts", help="Shares that sum to 1: train=0.9,val=0.1.")],
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of episodes.")] = 0,
    to: To = "lerobot",
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    codec: Codec = None,
    lossless: Lossless = False,
) -> None:
    """Write a dataset's episodes as several datasets, drawn at random."""
    from menura.data.tools.editing import split as split_
    from menura.errors import ConfigError

    try:
        shares = {name: float(share) for name, share in pairs("parts", parts.split(",")).items()}
    except ValueError as error:
        raise ConfigError(f"--parts: expected shares such as train=0.9,val=0.1, got {parts!r}.") from error
    dataset = as_it_lies(source, format, keys, args)
    for directory in split_(dataset, output_dir, shares, seed=seed, to=to, **encoding(codec, lossless)):
        typer.echo(directory)
