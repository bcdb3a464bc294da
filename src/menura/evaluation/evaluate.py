"""Evaluate a run by its path: environment, settings and the blind baseline are found where training left them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from menura.config import EnvConfig, EvaluationConfig, ResolvedTask, load_env, load_task
from menura.errors import CheckpointError, ConfigError, did_you_mean
from menura.evaluation.baselines import blind_run_of
from menura.evaluation.policy import evaluate_policy
from menura.evaluation.report import Section, write_report
from menura.evaluation.results import Results
from menura.evaluation.subjects import AUDITS, AuditActions
from menura.files import recover_directory
from menura.serving.client import is_address

if TYPE_CHECKING:
    from menura.meta_policy import MetaPolicy
    from menura.served_policy import ServedPolicy
    from menura.session import Execution

RUN_FILE = "run.yaml"
REPORT_FILE = "report.html"


def evaluate(
    model: str | Path | MetaPolicy | AuditActions,
    env: str | Path | EnvConfig | Mapping[str, Any] | None = None,
    *,
    output_dir: str | Path | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    num_envs: int | None = None,
    num_workers: int | None = None,
    videos: int | Literal["all"] | None = None,
    video_fps: float | None = None,
    execution: Execution | None = None,
    exact: bool | None = None,
    stop_at_success: bool = True,
    resume: bool = False,
    baselines: bool = False,
    blind: str | Path | MetaPolicy | None = None,
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
    trust_remote_code: bool = False,
    project: Path | None = None,
    progress: bool = True,
) -> Results:
    """Evaluates a run or checkpoint in simulation and writes `results.json`, `videos/` and `report.html`.

    What is None is as the run's own task says (`run.yaml`, sections `env` and `evaluation`).

    Args:
        model: a run, a checkpoint, a server's address (`ws://host:port`) or a MetaPolicy; `random` or `zero`
            (RandomActions, ZeroActions), to audit an environment with. A directory of that name is `./random`.
        env: the name of `configs/env/<name>.yaml`, the path of an environment's or a task's YAML, or `{class, args}`;
            the task's own by default.
        output_dir: where everything is written. By default `<run>/evaluation`, in another environment than the run's
            own `<run>/evaluation-<environment>`; nowhere for a MetaPolicy or a server.
        blind: the blind baseline; `<run>-blind` by default, when it is there.
        dataset: whose statistics hold in the environment, of a run trained on several datasets.
        overrides: of the task, as on the command line: `env.args.max_episode_steps=400`.
        The others: see `menura.evaluation.policy.evaluate_policy`.

    Raises:
        CheckpointError: there is no such run.
        ConfigError: no environment is known, or a dataset is named for a policy in memory.
        FeatureMismatch: of several datasets none or another was named; and see `evaluate_policy`.
        EnvironmentFailure: see `evaluate_policy`.
    """
    if dataset is not None and (not isinstance(model, (str, Path)) or model in AUDITS):
        raise ConfigError(f"evaluate: expected a dataset only for a policy that is loaded here, got {dataset!r}.")
    run = _run_of(model)
    task = _task_of(run, overrides, project)
    _require_effect(overrides, task, env)
    config = task.config.evaluation if task is not None else EvaluationConfig()
    project = project or (task.project if task is not None else None)
    chosen = env if env is not None else task.config.env if task is not None else None
    if chosen is None:
        raise ConfigError(f"evaluate: expected an environment, got none in {_place(run)}. Give env (-e).")
    if output_dir is None:
        output_dir = default_output_dir(model, env)
    if blind is None and baselines and run is not None:
        blind = blind_run_of(run)
    loading = {
        "device": device,
        "dataset": _or(dataset, config.dataset),
        "trust_remote_code": trust_remote_code,
        "project": project,
    }
    with _opened(model, **loading) as policy:
        results = evaluate_policy(
            policy,
            load_env(chosen, project) if isinstance(chosen, (str, Path)) else chosen,
            episodes=_or(episodes, config.episodes),
            seed=_or(seed, config.seed),
            num_envs=_or(num_envs, config.num_envs),
            num_workers=_or(num_workers, config.num_workers),
            output_dir=output_dir,
            videos=_or(videos, config.videos),
            video_fps=_or(video_fps, config.video_fps),
            execution=_or(execution, _execution(config)),
            exact=_or(exact, config.exact),
            stop_at_success=stop_at_success,
            resume=resume,
            baselines=baselines,
            blind=_load(Path(blind), **loading) if isinstance(blind, (str, Path)) else blind,
            project=project,
            progress=progress,
        )
    if output_dir is not None:
        title = task.name if task is not None else str(results.policy["name"])
        section = Section(
            title, results, Path(output_dir), run, _command(model, env, results, overrides, baselines, dataset)
        )
        write_report(Path(output_dir) / REPORT_FILE, [section])
    return results


def default_output_dir(model: object, env: str | Path | EnvConfig | Mapping[str, Any] | None) -> Path | None:
    """Where an evaluation is written by default: `<run>/evaluation[-<environment>]`, without a run nowhere."""
    run = _run_of(model)
    if run is None:
        return None
    return run / ("evaluation" if env is None else f"evaluation-{_name_of(env)}")


def _run_of(model: object) -> Path | None:
    if not isinstance(model, (str, Path)) or is_address(model) or model in AUDITS:
        return None
    return Path(model)


def _require_effect(overrides: Sequence[str], task: ResolvedTask | None, env: Any) -> None:
    """Refuse overrides that would change nothing: there is no task, or its environment is not the one evaluated in."""
    if overrides and task is None:
        raise ConfigError(
            f"{overrides[0]}: expected a run whose task it overrides, got a policy without one. Remove it."
        )
    lost = [word for word in overrides if word.removeprefix("--").startswith("env.")]
    if lost and env is not None:
        raise ConfigError(
            f"{lost[0]}: expected no override of the run's own environment, for another one is given. "
            "Change that one's YAML."
        )


def _task_of(run: Path | None, overrides: Sequence[str], project: Path | None) -> ResolvedTask | None:
    """The task a run was trained with; a checkpoint in a run without a `run.yaml` of its own has the run's."""
    if run is None:
        return None
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


@contextmanager
def _opened(
    model: str | Path | MetaPolicy | AuditActions, **loading: Any
) -> Iterator[MetaPolicy | ServedPolicy | AuditActions]:
    """What is evaluated; a connection to a server is closed at the end."""
    if not isinstance(model, (str, Path)):
        yield model
        return
    if model in AUDITS:
        yield AUDITS[str(model)]()
        return
    from menura.meta_policy import MetaPolicy, ServedPolicy

    policy = MetaPolicy.from_pretrained(model, **loading)
    with closing(policy) if isinstance(policy, ServedPolicy) else nullcontext():
        yield policy


def _load(path: Path, **loading: Any) -> MetaPolicy:
    from menura.meta_policy import MetaPolicy

    return MetaPolicy.from_pretrained(path, **loading)


def _execution(config: EvaluationConfig) -> Execution | None:
    """None: open loop."""
    if config.execution != "temporal_ensemble":
        return None
    from menura.session import TemporalEnsemble

    return TemporalEnsemble(config.ensemble_coefficient)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _name_of(env: str | Path | EnvConfig | Mapping[str, Any]) -> str:
    if isinstance(env, (str, Path)):
        return Path(env).stem
    return env.class_ if isinstance(env, EnvConfig) else str(env["class"]).rpartition(":")[2]


def _place(run: Path | None) -> str:
    if run is None:
        return "the call"
    return f"{run / RUN_FILE}" if (run / RUN_FILE).is_file() else f"{run}, which has no {RUN_FILE}"


def _command(
    model: Any, env: Any, results: Results, overrides: Sequence[str], baselines: bool, dataset: str | None
) -> str | None:
    """The command line that repeats the evaluation, where one can."""
    if not isinstance(model, (str, Path)) or not (env is None or isinstance(env, (str, Path))):
        return None
    words = ["menura", "eval", "-m", str(model)]
    if env is not None:
        words += ["-e", str(env)]
    words += ["--episodes", str(results.asked), "--seed", str(results.protocol["seeds"]["first"])]
    words += ["--num_envs", str(results.run["num_envs"])]
    words += ["--baselines"] if baselines else []
    words += ["--dataset", dataset] if dataset is not None else []
    words += [f"--{override.removeprefix('--')}" for override in overrides]
    return shlex.join(words)
