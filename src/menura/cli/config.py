"""`menura config TASK`: the whole configuration, and where each value comes from."""

from __future__ import annotations

from typing import Annotated

import typer


def config(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="A task's name, or the path of its YAML.")],
) -> None:
    """Print a task with every value, and where each comes from."""
    from menura.config import load_task

    typer.echo(load_task(task, context.obj or ()).to_yaml(with_origins=True), nl=False)
