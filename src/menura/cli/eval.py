"""`menura eval -m RUN`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from menura.cli.options import Dataset, OutputDir, TrustRemoteCode

if TYPE_CHECKING:
    from menura.evaluation.results import Results


def evaluate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A run, a checkpoint or a server; or `random` or `zero` actions."),
    ],
    env: Annotated[
        str | None, typer.Option("--env", "-e", help="An environment's name; by default the task's own.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", metavar="A,B|SUITE", help="Several tasks of the environment, one after the other."),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option("--episodes", min=1, help="Rollouts; by default as the task says.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Episode i begins from seed + i.")] = None,
    num_envs: Annotated[int | None, typer.Option("--num_envs", min=1, help="Environments stepped together.")] = None,
    num_workers: Annotated[
        int | None, typer.Option("--num_workers", min=1, help="Processes; changes only the speed.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also a random policy and, if trained, the blind one.")
    ] = False,
    videos: Annotated[
        str | None, typer.Option("--videos", metavar="N|all", help="How many of the first episodes are filmed.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the finished episodes of an evaluation that was interrupted.")
    ] = False,
    until_ci: Annotated[
        float | None,
        typer.Option(
            "--until_ci", metavar="W", help="Stop when the interval is at most ± W (0.05); --episodes at most."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="RESULTS", help="Stop when shown to be better or worse than these results."),
    ] = None,
    perturb: Annotated[
        list[str] | None,
        typer.Option("--perturb", metavar="NAME=VALUE", help="Also the same episodes with noise=0.05, latency=2, …"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Spread the episodes over a Ray cluster; `local` starts one."),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(
            "--latency", metavar="MODEL", help='Answers take "120ms", or "normal(120ms, 30ms)", in virtual time.'
        ),
    ] = None,
    latency_sweep: Annotated[
        str | None,
        typer.Option("--latency_sweep", metavar="MS,MS,…", help="Success over latency, of each controller."),
    ] = None,
    controller: Annotated[
        list[str] | None,
        typer.Option("--controller", metavar="NAME", help="Who makes commands of late answers; in a sweep several."),
    ] = None,
    control_hz: Annotated[
        float | None, typer.Option("--control_hz", help="Commands per second; by default the environment's.")
    ] = None,
    dataset: Dataset = None,
    output_dir: OutputDir = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a policy's success rate in simulation."""
    filmed = None if videos is None else _count_or_all(videos)
    controllers = [name for words in controller or () for name in words.split(",")]
    _refuse_together(latency, latency_sweep, controllers, control_hz, tasks, baselines)

    from menura.config import load_env, split_section

    of_controller, overrides = split_section(context.obj or (), "controller")
    if of_controller and not controllers:
        raise typer.BadParameter(
            "expected the controller that is meant beside it, got none", param_hint=f"--{of_controller[0]}"
        )
    if env is not None:
        load_env(env, overrides=split_section(overrides, "env")[0])  # a wrong YAML is refused before torch is imported

    from menura import api

    settings: dict[str, Any] = {
        "output_dir": output_dir,
        "episodes": episodes,
        "seed": seed,
        "num_envs": num_envs,
        "num_workers": num_workers,
        "baselines": baselines,
        "videos": filmed,
        "resume": resume,
        "until_ci": until_ci,
        "against": against,
        "perturb": perturb or (),
        "ray": ray,
        "dataset": dataset,
        "overrides": overrides,
        "trust_remote_code": trust_remote_code,
    }
    if latency_sweep is not None:
        settings["overrides"] = [*overrides, *of_controller]
        _sweep(model, env, latency_sweep, controllers, control_hz, settings)
        return
    if latency is not None:
        from menura.evaluation.latency_execution import DEFAULT_CONTROLLER, DelayedExecution
        from menura.evaluation.latency_model import LatencyModel

        name = controllers[0] if controllers else DEFAULT_CONTROLLER
        settings["execution"] = DelayedExecution(LatencyModel.of(latency), name, control_hz, overrides=of_controller)
    if tasks is None:
        results = api.evaluate(model, env, **settings)
        typer.echo(str(results))
        _tell_perturbed(results)
    else:
        from menura.evaluation.suite import summary

        found = api.evaluate_tasks(model, env, tasks, command=shlex.join(["menura", *sys.argv[1:]]), **settings)
        typer.echo(summary(found))
        for name, of_task in found.items():
            _tell_perturbed(of_task, f"{name}, ")

    from menura.evaluation.evaluate import REPORT_FILE
    from menura.evaluation.latency_execution import suffix_of
    from menura.evaluation.request import default_output_dir

    suffix = suffix_of(settings.get("execution"))
    written = output_dir if output_dir is not None else default_output_dir(model, env, tasks, suffix)
    if written is not None:
        typer.echo(f"Report: {written / REPORT_FILE}")


def _refuse_together(
    latency: str | None,
    sweep: str | None,
    controllers: list[str],
    control_hz: float | None,
    tasks: str | None,
    baselines: bool,
) -> None:
    if latency is not None and sweep is not None:
        raise typer.BadParameter("expected one latency or a sweep, got both", param_hint="--latency_sweep")
    if latency is None and sweep is None and (controllers or control_hz is not None):
        option = "--controller" if controllers else "--control_hz"
        raise typer.BadParameter("expected --latency or --latency_sweep beside it, got neither", param_hint=option)
    if latency is not None and len(controllers) > 1:
        raise typer.BadParameter("expected one with --latency; several with --latency_sweep", param_hint="--controller")
    if sweep is not None and (tasks is not None or baselines):
        option = "--tasks" if tasks is not None else "--baselines"
        raise typer.BadParameter("expected a sweep of one task without baselines", param_hint=option)


def _sweep(
    model: str,
    env: str | None,
    sweep: str,
    controllers: list[str],
    control_hz: float | None,
    settings: dict[str, Any],
) -> None:
    from menura import api
    from menura.evaluation.evaluate import REPORT_FILE
    from menura.evaluation.latency_execution import CONTROLLERS
    from menura.evaluation.latency_sweep import CHART_FILE, show
    from menura.evaluation.request import default_output_dir

    try:
        latencies_ms = [float(word.strip().removesuffix("ms")) for word in sweep.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected milliseconds such as 0,50,100, got {sweep!r}", param_hint="--latency_sweep"
        ) from None
    settings = {key: value for key, value in settings.items() if key != "baselines"}
    settings["videos"] = settings["videos"] or 0
    found = api.latency_sweep(
        model,
        env,
        latencies_ms=latencies_ms,
        controllers=controllers or CONTROLLERS,
        control_hz=control_hz,
        command=shlex.join(["menura", *sys.argv[1:]]),
        **settings,
    )
    typer.echo(show(found))
    output_dir = settings["output_dir"]
    written = output_dir if output_dir is not None else default_output_dir(model, env, suffix="latency_sweep")
    if written is not None:
        typer.echo(f"Picture: {written / CHART_FILE}\nReport: {written / REPORT_FILE}")


def _tell_perturbed(results: Results, prefix: str = "") -> None:
    from menura.evaluation.robustness import sentence

    for name in results.perturbed:
        typer.echo(prefix + sentence(results, name))


def _count_or_all(value: str) -> int | Literal["all"]:
    if value == "all":
        return "all"
    if not value.isdecimal():
        raise typer.BadParameter(f"expected a whole number or 'all', got {value!r}", param_hint="--videos")
    return int(value)
