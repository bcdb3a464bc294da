"""`menura data merge SRC SRC … -o DST`."""

from __future__ import annotations

from typing import Annotated

import typer

from menura.cli.data.options import Codec, Lossless, OutputDir, To, encoding


def merge(
    sources: Annotated[list[str], typer.Argument(help="Datasets of one kind, of any format.")],
    output_dir: OutputDir,
    to: To = "lerobot",
    codec: Codec = None,
    lossless: Lossless = False,
) -> None:
    """Write the episodes of several datasets, one after the other, as one."""
    from menura.data.tools.editing import merge as merge_

    typer.echo(merge_(sources, output_dir, to=to, **encoding(codec, lossless)))
