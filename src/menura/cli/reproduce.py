"""`menura reproduce PLAN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from menura.cli.options import OutputDir


def reproduce(
    plan: Annotated[Path, typer.Argument(help="What the table is made of: bench/metaworld_state.yaml.")],
    output_dir: OutputDir = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="Of the plan, this one alone; again for more.")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option("--num_workers", min=1, help="Trainings at a time, each on one core; all cores.")
    ] = None,
) -> None:
    """Make a table of results: record, train and evaluate every policy on every task with every seed."""
    from menura import api

    table = api.reproduce(plan, output_dir=output_dir, policies=policy or (), num_workers=num_workers)
    typer.echo(table.to_markdown())
