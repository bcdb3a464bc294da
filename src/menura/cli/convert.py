"""`menura convert CKPT -o OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        Path, typer.Argument(help="A checkpoint of another program; with --to lerobot or --merge one of Menura.")
    ],
    output_dir: Annotated[Path, typer.Option("--output_dir", "-o", help="Where the new checkpoint goes.")],
    origin: Annotated[
        str | None,
        typer.Option("--from", help="lerobot, act, diffusion_policy or openvla, where it is not to be recognised."),
    ] = None,
    to: Annotated[str, typer.Option("--to", help="menura, or lerobot (ACT and Diffusion).")] = "menura",
    args: Annotated[
        str | None, typer.Option("--args", help="What a checkpoint does not say: '{camera_names: [top], n_heads: 8}'.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge a run's adapters into its weights: an ordinary checkpoint.")
    ] = False,
) -> None:
    """Turn a checkpoint of LeRobot, of ACT's or Diffusion Policy's authors into one of Menura; or back, for LeRobot."""
    from menura import api

    if merge:
        typer.echo(api.merge_checkpoint(source, output_dir))
        return
    from menura.cli.data.options import mapping

    path = api.convert(source, output_dir, origin=origin, to=to, args=mapping("args", args), tell=typer.echo)
    typer.echo(path)
