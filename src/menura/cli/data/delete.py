"""`menura data delete SRC -o DST --episodes 3,7`."""

from __future__ import annotations

from typing import Annotated

import typer

from menura.cli.data.options import Codec, InPlace, Lossless, OtherDir, Source, encoding, numbers


def delete(
    source: Source,
    episodes: Annotated[str, typer.Option("--episodes", help="Which: 3,7,10-12.")],
    output_dir: OtherDir = None,
    in_place: InPlace = False,
    codec: Codec = None,
    lossless: Lossless = False,
) -> None:
    """Leave episodes out; the others move up."""
    from menura.data.tools.editing import delete as delete_

    chosen = numbers("episodes", episodes)
    typer.echo(delete_(source, output_dir, episodes=chosen, in_place=in_place, **encoding(codec, lossless)))
