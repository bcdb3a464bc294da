"""`menura control -m RUN --robot NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from menura.cli.options import Dataset, OutputDir, TrustRemoteCode


def control(
    context: typer.Context,
    robot: Annotated[str, typer.Option("--robot", help="A robot's name (configs/robot), its YAML or its class.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="A run, a checkpoint or a server (ws://…); without it --teleop drives alone."
        ),
    ] = None,
    task: Annotated[str, typer.Option("--task", help="The instruction in words; by default a simulation's own.")] = "",
    controller: Annotated[
        str | None,
        typer.Option("--controller", help="How chunks become commands; by default real_time_chunking."),
    ] = None,
    control_hz: Annotated[
        float | None, typer.Option("--control_hz", min=0.1, help="Commands per second; by default the robot's fps.")
    ] = None,
    sensing_hz: Annotated[
        float | None, typer.Option("--sensing_hz", min=0.1, help="Readings per second; by default the robot's fps.")
    ] = None,
    chunk_hz: Annotated[
        float | None, typer.Option("--chunk_hz", min=0.1, help="Actions per second of the policy, if it says none.")
    ] = None,
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="How many, one after the other.")] = 1,
    max_seconds: Annotated[
        float, typer.Option("--max_seconds", min=0.1, help="An episode's, from its first command on.")
    ] = 60.0,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="DIR", help="Write a dataset there, or go on with it.")
    ] = None,
    teleop: Annotated[
        str | None, typer.Option("--teleop", help="Who may take over (configs/teleop), as `--robot`.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of a simulation's first episode.")] = None,
    max_observation_age: Annotated[
        float, typer.Option("--max_observation_age", metavar="S", min=0.01, help="Hold when what is seen is older.")
    ] = 0.5,
    patience: Annotated[
        float, typer.Option("--patience", metavar="S", min=0.1, help="End an episode that has held for so long.")
    ] = 30.0,
    slow_start: Annotated[
        float, typer.Option("--slow_start", metavar="S", min=0.0, help="How long until full speed is allowed.")
    ] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Everything but sending commands.")] = False,
    dataset: Dataset = None,
    output_dir: OutputDir = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Drive a robot by a policy or a teleoperator. Keys: space holds, enter ends an episode, q the run, e stops."""
    from menura.config import load_controller, load_robot, load_teleop, split_section

    overrides = context.obj or ()  # wrong YAMLs are refused before anything heavy is imported
    load_robot(robot, split_section(overrides, "robot")[0])
    if controller is not None:
        load_controller(controller, split_section(overrides, "controller")[0])
    if teleop is not None:
        load_teleop(teleop, split_section(overrides, "teleop")[0])

    from menura import api
    from menura.control.loop import SafetySettings
    from menura.control.watchdog import WatchdogSettings

    report = api.control(
        model,
        robot,
        task=task,
        controller=controller,
        control_hz=control_hz,
        chunk_hz=chunk_hz,
        sensing_hz=sensing_hz,
        episodes=episodes,
        max_seconds=max_seconds,
        record=record,
        teleop=teleop,
        dry_run=dry_run,
        output_dir=output_dir,
        seed=seed,
        dataset=dataset,
        safety=SafetySettings(slow_start_s=slow_start),
        watchdog=WatchdogSettings(max_observation_age_s=max_observation_age, patience_s=patience),
        overrides=overrides,
        trust_remote_code=trust_remote_code,
    )
    if report.exit_code:
        raise typer.Exit(report.exit_code)
