"""`menura data rename SRC -o DST --cameras old=new`."""

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
    pairs,
)

_Pairs = list[str] | None


def rename(
    source: Source,
    output_dir: OtherDir = None,
    state: Annotated[_Pairs, typer.Option("--state", help="A dimension of the state: old=new.")] = None,
    action: Annotated[_Pairs, typer.Option("--action", help="A dimension of the action: old=new.")] = None,
    cameras: Annotated[_Pairs, typer.Option("--cameras", help="A camera: old=new.")] = None,
    tasks: Annotated[
        _Pairs, typer.Option("--tasks", help="An instruction: old=new; =new gives one to episodes without.")
    ] = None,
    in_place: InPlace = False,
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    codec: Codec = None,
    lossless: Lossless = False,
) -> None:
    """Give dimensions, cameras and tasks other names; an option may be given several times."""
    from menura.data.tools.editing import rename as rename_

    renamed = rename_(
        as_it_lies(source, format, keys, args),
        output_dir,
        state=pairs("state", state),
        action=pairs("action", action),
        cameras=pairs("cameras", cameras),
        tasks=pairs("tasks", tasks, empty=True),
        in_place=in_place,
        **encoding(codec, lossless),
    )
    typer.echo(renamed)
