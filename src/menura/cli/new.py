"""`menura new policy NAME`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Write the files to start from.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A callback keeps `policy` a sub-command while it is the only one."""


@app.command("policy")
def policy(name: Annotated[str, typer.Argument(help="The file's name, such as my_cool_policy.")]) -> None:
    """Write a policy and a task that trains it."""
    from menura import api

    for file in api.new_policy(name):
        typer.echo(f"wrote {file}")
