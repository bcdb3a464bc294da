"""`menura replay DATASET -e ENV`, `menura replay DATASET -m RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from menura.cli.data.options import Args, Format, Keys, opened
from menura.cli.options import Dataset, OutputDir, TrustRemoteCode


def replay(
    dataset: Annotated[str, typer.Argument(help="The root of a dataset.")],
    env: Annotated[
        str | None, typer.Option("--env", "-e", help="An environment's name, or the path of its YAML.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Actions go through its processor; its environment where -e says none.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="A run, a checkpoint or a server, which is asked instead: what does it answer?"
        ),
    ] = None,
    format: Format = None,
    keys: Keys = None,
    args: Args = None,
    episodes: Annotated[int | None, typer.Option("--episodes", min=1, help="The first so many.")] = None,
    num_workers: Annotated[int | None, typer.Option("--num_workers", min=1, help="Processes.")] = None,
    statistics: Dataset = None,
    output_dir: OutputDir = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Execute a dataset's own actions: are its episodes solved again, and if not, what is wrong?

    With -m nothing is executed: a policy is shown the recorded observations, and its answers are compared with the
    recorded actions.
    """
    if model is not None:
        if env is not None or task is not None:
            raise typer.BadParameter(
                "expected no environment beside a policy, which only answers here; `menura eval` lets it act",
                param_hint="--model",
            )
        _ask(model, opened(dataset, format, keys, args), episodes, statistics, output_dir, trust_remote_code)
        return
    if env is None and task is None:
        raise typer.BadParameter(
            "expected an environment (-e), a task that has one or a policy (-m), got none", param_hint="--env"
        )

    from menura.config import load_env, load_task

    if env is not None:
        load_env(env)  # a wrong YAML is refused before any data is opened
    if task is not None:
        load_task(task)

    from menura import api

    reader = opened(dataset, format, keys, args)
    result = api.replay(
        reader, env, task=task, episodes=episodes, num_workers=num_workers, output_dir=output_dir, progress=True
    )
    typer.echo(str(result))
    if output_dir is not None:
        from menura.evaluation.replay import PAGE

        typer.echo(f"Page: {output_dir / PAGE}")


def _ask(
    model: str,
    reader: Any,
    episodes: int | None,
    statistics: str | None,
    output_dir: Path | None,
    trust_remote_code: bool,
) -> None:
    from menura import api

    found = api.evaluate_offline(
        model,
        reader,
        episodes=episodes,
        dataset_name=statistics,
        output_dir=output_dir,
        trust_remote_code=trust_remote_code,
        progress=True,
    )
    typer.echo(str(found))
    if output_dir is not None:
        from menura.evaluation.offline import PAGE

        typer.echo(f"Page: {output_dir / PAGE}")
