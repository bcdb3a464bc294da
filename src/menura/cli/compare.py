"""`menura compare A B`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    a: Annotated[Path, typer.Argument(help="Results of one policy: results.json or its folder.")],
    b: Annotated[Path, typer.Argument(help="Results of the other.")],
) -> None:
    """Compare two evaluations, paired by seed."""
    from menura import api

    typer.echo(str(api.compare(a, b)))
