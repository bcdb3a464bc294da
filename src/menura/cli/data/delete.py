"""`menura data delete SRC -o DST --episodes 3,7`."""

from __future__ import annotations

from typing import Annotated

import typer

from menura.cli.data.options import (
    Args,
    Codec,
    Format,
    InPlace,
    Keys,
    Lossless,
    OtherDir,
    Source,
    as_it_lies,
    encoding,
    numbers,
)


def delete(
    source: Source,
    episodes: Annotated[str, typer.Option("--episodes", help="Which: 3,7,10-12.")],
    output_dir: OtherDir = None,
    in_place: InPlace = False,
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    codec: Codec = None,
    lossless: Lossless = False,
) -> None:
    """Leave episodes out; the others move up."""
    from menura.data.tools.editing import delete as delete_

    chosen = numbers("episodes", episodes)
    dataset = as_it_lies(source, format, keys, args)
    typer.echo(delete_(dataset, output_dir, episodes=chosen, in_place=in_place, **encoding(codec, lossless)))
