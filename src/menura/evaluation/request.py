"""What an evaluation is asked for by name: the run, the task it was trained with, the environment. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from menura.config import EnvConfig, ResolvedTask, load_env, load_task, split_section
from menura.errors import CheckpointError, ConfigError, did_you_mean
from menura.evaluation.subjects import AUDITS
from menura.files import recover_directory
from menura.serving.client import is_address

RUN_FILE = "run.yaml"

#: An environment by name or path, as configuration, as a mapping; None: that of the run's own task.
Env = str | Path | EnvConfig | Mapping[str, Any] | None


@dataclass(frozen=True)
class Request:
    """What was found.

    Attributes:
        run: the run or checkpoint; None for a policy in memory, behind a server, or an audit.
        task: what it was trained with, where that is known.
        env: what it is evaluated in.
        project: where a user's own classes are.
    """

    run: Path | None
    task: ResolvedTask | None
    env: EnvConfig | Mapping[str, Any]
    project: Path | None

    @classmethod
    def of(cls, model: object, env: Env, overrides: Sequence[str], project: Path | None) -> Request:
        """Overrides of `env` are of the environment named; without one, of the run's own.

        Raises:
            CheckpointError: there is no such run.
            ConfigError: no environment is known, or an override would change nothing.
        """
        of_env, others = split_section(overrides, "env")
        run = run_of(model)
        task = None if run is None else _task_of(run, [*of_env, *others] if env is None else others, project)
        if others and task is None:
            raise ConfigError(
                f"{others[0]}: expected a run whose task it overrides, got a policy without one. Remove it."
            )
        project = project or (None if task is None else task.project)
        if isinstance(env, (str, Path)):
            return cls(run, task, load_env(env, project, of_env), project)
        if of_env and (env is not None or task is None):
            raise ConfigError(
                f"{of_env[0]}: expected an environment by its name or YAML, or a run's own, got "
                f"{'none' if env is None else 'one in Python, whose args can be changed there'}."
            )
        chosen = env if env is not None else None if task is None else task.config.env
        if chosen is None:
            raise ConfigError(f"evaluate: expected an environment, got none in {_place(run)}. Give env (-e).")
        return cls(run, task, chosen, project)


def run_of(model: object) -> Path | None:
    """The directory that `model` names; None where it is no directory."""
    if not isinstance(model, (str, Path)) or is_address(model) or model in AUDITS:
        return None
    return Path(model)


def default_output_dir(
    model: object, env: Env, tasks: str | Sequence[str] | None = None, suffix: str = ""
) -> Path | None:
    """Where an evaluation is written by default: `<run>/evaluation[-<environment>][-<suffix>][-<tasks>]`; without run
    nowhere."""
    run = run_of(model)
    if run is None:
        return None
    name = "evaluation" if env is None else f"evaluation-{_name_of(env)}"
    name += f"-{suffix}" if suffix else ""
    if tasks is not None:
        name += "-" + (tasks.replace(",", "+") if isinstance(tasks, str) else "+".join(tasks))[:100]
    return run / name


def _task_of(run: Path, overrides: Sequence[str], project: Path | None) -> ResolvedTask | None:
    """The task a run was trained with; a checkpoint in a run without a `run.yaml` of its own has the run's."""
    recover_directory(run)
    if not run.is_dir():
        raise CheckpointError(_no_run(run))
    for directory in (run, run.resolve().parent):
        if (directory / RUN_FILE).is_file():
            return load_task(directory / RUN_FILE, overrides, project, kinds=("env",))
    return None


def _no_run(run: Path) -> str:
    word, _, rest = str(run).partition(":")
    if word == "replay":
        return (
            f"model: expected a run, a checkpoint or {' or '.join(AUDITS)}, got {run}. A dataset's own actions are "
            f"executed by `menura replay {rest or 'DATASET'} -e ENV`."
        )
    near = did_you_mean(str(run), AUDITS) or ". Train it first."
    return f"model: expected a run or a checkpoint, got no directory {run}{near}"


def _name_of(env: str | Path | EnvConfig | Mapping[str, Any]) -> str:
    if isinstance(env, (str, Path)):
        return Path(env).stem
    return env.class_ if isinstance(env, EnvConfig) else str(env["class"]).rpartition(":")[2]


def _place(run: Path | None) -> str:
    if run is None:
        return "the call"
    return f"{run / RUN_FILE}" if (run / RUN_FILE).is_file() else f"{run}, which has no {RUN_FILE}"
