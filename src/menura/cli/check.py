"""`menura check policy NAME` and `menura check run RUN`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from menura.cli.options import TrustRemoteCode

if TYPE_CHECKING:
    from menura.policies.check import CheckResult

app = typer.Typer(help="Check a policy or a run.", no_args_is_help=True)


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


def _print(results: Iterable[CheckResult]) -> None:
    """One line a check; exit code 1 when one failed."""
    failed = False
    for result in results:
        failed |= not result.ok
        detail = f": {result.message}" if result.message else ""
        typer.echo(f"{'ok  ' if result.ok else 'FAIL'} {result.name}{detail}")
    if failed:
        raise typer.Exit(1)
