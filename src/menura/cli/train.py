"""`menura train TASK`."""

from __future__ import annotations

from typing import Annotated

import typer

from menura.cli.options import OutputDir


def train(
    context: typer.Context,
    task: Annotated[
        str, typer.Argument(help="A task's name, the path of its YAML, or of the run.yaml of a run to repeat.")
    ],
    output_dir: OutputDir = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Without the object's state or without cameras: a baseline.")
    ] = False,
    allow_bad_data: Annotated[
        bool, typer.Option("--allow_bad_data", help="Train although the check of the data finds errors.")
    ] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Stores are built on Ray: data.ray.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no_resume", help="Go on with a run that is there, or set it aside.")
    ] = True,
) -> None:
    """Train a policy; a run that was interrupted goes on where it was."""
    from menura.config import load_task

    overrides = [*(context.obj or ()), *(["--data.ray=true"] if ray else [])]
    load_task(task, overrides, need_data=True)  # a wrong YAML is refused before torch is imported

    from menura import api

    result = api.train(
        task,
        output_dir=output_dir,
        overrides=overrides,
        resume=resume,
        blind=blind,
        allow_bad_data=allow_bad_data,
    )
    typer.echo(f"The run is in {result.directory}")
