"""`menura compare A B`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    a: Annotated[Path, typer.Argument(help="Results of one policy: a run, or a results.json or its folder.")],
    b: Annotated[Path, typer.Argument(help="Results of the other.")],
    allow_different_protocols: Annotated[
        bool, typer.Option("--allow_different_protocols", help="Compare all the same, and list what differs.")
    ] = False,
) -> None:
    """Compare two evaluations, paired by seed."""
    from menura import api

    typer.echo(str(api.compare(a, b, allow_different_protocols=allow_different_protocols)))
