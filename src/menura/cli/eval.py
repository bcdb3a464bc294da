"""`menura eval -m RUN`."""

from __future__ import annotations

from typing import Annotated

import typer

from menura.cli.options import Model, OutputDir, TrustRemoteCode


def evaluate(
    model: Model,
    env: Annotated[
        str | None, typer.Option("--env", "-e", help="An environment's name; by default the task's own.")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option("--episodes", min=1, help="Rollouts; by default as the task says.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Episode i is seeded by (seed, i).")] = None,
    num_envs: Annotated[int | None, typer.Option("--num_envs", min=1, help="Environments stepped together.")] = None,
    num_workers: Annotated[
        int | None, typer.Option("--num_workers", min=1, help="Processes; changes only the speed.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also a random policy and, if trained, the blind one.")
    ] = False,
    output_dir: OutputDir = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a policy's success rate in simulation."""
    from menura.config import load_env

    if env is not None:
        load_env(env)  # a wrong YAML is refused before torch is imported

    from menura import api

    results = api.evaluate(
        model,
        env,
        output_dir=output_dir,
        episodes=episodes,
        seed=seed,
        num_envs=num_envs,
        num_workers=num_workers,
        baselines=baselines,
        trust_remote_code=trust_remote_code,
    )
    typer.echo(str(results))
