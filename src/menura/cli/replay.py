"""`menura replay DATASET -e ENV`."""

from __future__ import annotations

from typing import Annotated

import typer


def replay(
    dataset: Annotated[str, typer.Argument(help="The root of a dataset.")],
    env: Annotated[str, typer.Option("--env", "-e", help="An environment's name, or the path of its YAML.")],
) -> None:
    """Execute a dataset's own actions and count successes."""
    from menura.config import load_env

    load_env(env)  # a wrong YAML is refused before torch is imported

    from menura import api

    typer.echo(str(api.replay(dataset, env)))
