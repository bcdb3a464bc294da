"""`menura check policy NAME`, `menura check run RUN` and `menura check robot NAME`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from menura.cli.options import TrustRemoteCode

if TYPE_CHECKING:
    from menura.policies.checking.result import CheckResult

app = typer.Typer(help="Check a policy, a run or a robot.", no_args_is_help=True)


@app.command("policy")
def policy(name: Annotated[str, typer.Argument(help="The class's name, or path/to/file.py:Class.")]) -> None:
    """Build a policy, train it a little, save and load it, and say what is wrong."""
    from menura.components import find

    find("policy", name, Path.cwd())  # a wrong name is refused before torch is imported

    from menura import api

    _print(api.check_policy(name))


@app.command("run")
def run(
    directory: Annotated[Path, typer.Argument(help="A run or checkpoint.")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Send training samples through training, evaluation and server, which must agree."""
    from menura import api

    _print(api.check_run(directory, trust_remote_code=trust_remote_code))


@app.command("robot")
def robot(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A robot's name (configs/robot), its YAML or its class.")],
    hold: Annotated[bool, typer.Option("--hold", help="Also command it to stay where it is.")] = False,
) -> None:
    """Connect a robot, read it a while, disconnect it, and say what is wrong. Without --hold nothing is sent."""
    from menura import api

    _print(api.check_robot(name, context.obj or (), hold=hold))


def _print(results: Iterable[CheckResult]) -> None:
    """One line a check; exit code 1 when one failed."""
    failed = False
    for result in results:
        failed |= not result.ok
        detail = f": {result.message}" if result.message else ""
        typer.echo(f"{'ok  ' if result.ok else 'FAIL'} {result.name}{detail}")
    if failed:
        raise typer.Exit(1)
