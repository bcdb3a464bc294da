"""`menura data compact DIR -o DST`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from menura.cli.data.options import InPlace, OtherDir


def compact(
    source: Annotated[Path, typer.Argument(help="A LeRobotDataset v3.0.")],
    output_dir: OtherDir = None,
    in_place: InPlace = False,
) -> None:
    """Join the many small files of a recording into few large ones; nothing is encoded again."""
    from menura.data.compaction import compact as compact_

    typer.echo(compact_(source, output_dir, in_place=in_place))
