"""Evaluate a run by its path: environment, settings and the blind baseline are found where training left them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from menura.config import EvaluationConfig, split_section
from menura.envs.perturbation import Perturbation
from menura.errors import ConfigError
from menura.evaluation.baselines import blind_run_of
from menura.evaluation.latency_execution import DelayedExecution, suffix_of
from menura.evaluation.policy import evaluate_policy
from menura.evaluation.progress import EpisodeTable
from menura.evaluation.report import Section, write_report
from menura.evaluation.request import Env, Request, default_output_dir
from menura.evaluation.results import FILE_NAME, Results
from menura.evaluation.sequential import stopping_rule
from menura.evaluation.shared import Shared
from menura.evaluation.subjects import AUDITS, AuditActions

if TYPE_CHECKING:
    from menura.meta_policy import MetaPolicy
    from menura.session import Execution

REPORT_FILE = "report.html"


def evaluate(
    model: str | Path | MetaPolicy | AuditActions,
    env: Env = None,
    *,
    output_dir: str | Path | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    num_envs: int | None = None,
    num_workers: int | None = None,
    videos: int | Literal["all"] | None = None,
    video_fps: float | None = None,
    execution: Execution | DelayedExecution | None = None,
    exact: bool | None = None,
    stop_at_success: bool = True,
    resume: bool = False,
    until_ci: float | None = None,
    against: str | Path | Results | None = None,
    baselines: bool = False,
    blind: str | Path | MetaPolicy | None = None,
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
    trust_remote_code: bool = False,
    perturb: Sequence[str] = (),
    ray: str | None = None,
    project: Path | None = None,
    progress: bool = True,
    shared: Shared | None = None,
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
        until_ci: stop when half of the success rate's interval is at most this (0.05: ±5 points); `episodes` is then
            the most, by default as many as any success rate takes (`most_episodes`).
        against: results of another policy on the same seeds, or where they are: stop when this one is shown to be
            better or worse. `episodes` is then the most; both it and `seed` are the other's by default.
        execution: how chunks are executed; a `DelayedExecution`, of answers that take time, in virtual time.
        dataset: whose statistics hold in the environment, of a run trained on several datasets.
        overrides: of the task, as on the command line: `env.args.max_episode_steps=400`; of an environment that is
            named by `env`, only such values.
        perturb: `["noise=0.05", "latency=2"]`: the same episodes also under these; see `menura.envs.perturbation`.
        ray: the address of a Ray cluster that runs the episodes (`auto`, `host:port`; `local` starts one here), in
            blocks of `num_envs`; nothing is filmed there. See `menura.evaluation.ray_cells`.
        shared: of several evaluations that share a policy and processes, and that write their report themselves.
        The others: see `menura.evaluation.policy.evaluate_policy`.

    Raises:
        CheckpointError: there is no such run.
        ConfigError: no environment is known, or a dataset is named for a policy in memory.
        FeatureMismatch: of several datasets none or another was named; and see `evaluate_policy`.
        EnvironmentFailure: see `evaluate_policy`.
        KeyboardInterrupt: Ctrl-C; finished episodes are kept, and its text says how to go on.
    """
    if dataset is not None and (not isinstance(model, (str, Path)) or model in AUDITS):
        raise ConfigError(f"evaluate: expected a dataset only for a policy that is loaded here, got {dataset!r}.")
    if isinstance(execution, DelayedExecution) and (model in AUDITS or isinstance(model, AuditActions)):
        raise ConfigError(f"latency: expected a policy whose answers can be late, got {model}, which acts unasked.")
    asked = Request.of(model, env, overrides, project)
    run, task, project = asked.run, asked.task, asked.project
    perturbation = Perturbation.of(perturb) if perturb else None
    videos = 0 if ray is not None and videos is None else videos
    config = task.config.evaluation if task is not None else EvaluationConfig()
    if output_dir is None:
        output_dir = default_output_dir(model, env, suffix=suffix_of(execution))
    if blind is None and baselines and run is not None:
        blind = blind_run_of(run)
    loading = {
        "device": device,
        "dataset": _or(dataset, config.dataset),
        "trust_remote_code": trust_remote_code,
        "project": project,
    }
    rule = stopping_rule(until_ci, Results.load(against) if isinstance(against, (str, Path)) else against)
    episodes = _or(episodes, config.episodes if rule is None else rule.most)
    seed = _or(seed, config.seed if rule is None else _or(rule.first_seed, config.seed))
    num_envs, num_workers = _or(num_envs, config.num_envs), _or(num_workers, config.num_workers)
    with ExitStack() as stack:
        alone = shared or stack.enter_context(Shared(EpisodeTable(progress)))
        stack.enter_context(_telling_how_to_go_on(output_dir))
        # Its processes import the simulator while the policy is loaded.
        pool = alone.pool(asked.env, num_envs, episodes, num_workers, project, ray)
        results = evaluate_policy(
            alone.policy(model, **loading),
            asked.env,
            episodes=episodes,
            seed=seed,
            num_envs=num_envs,
            num_workers=num_workers,
            output_dir=output_dir,
            videos=_or(videos, config.videos),
            video_fps=_or(video_fps, config.video_fps),
            execution=_or(execution, _execution(config)),
            exact=_or(exact, config.exact),
            stop_at_success=stop_at_success,
            resume=resume,
            stop=rule,
            baselines=baselines,
            blind=alone.blind(Path(blind), **loading) if isinstance(blind, (str, Path)) else blind,
            perturbation=perturbation,
            project=project,
            progress=alone.table,
            title=alone.title,
            pool=pool,
        )
    if output_dir is not None and shared is None:
        title = task.name if task is not None else str(results.policy["name"])
        command = _command(model, env, results, execution, overrides, baselines, dataset, against)
        section = Section(title, results, Path(output_dir), run, command)
        write_report(Path(output_dir) / REPORT_FILE, [section])
    return results


@contextmanager
def _telling_how_to_go_on(output_dir: str | Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        if str(stop) or output_dir is None or not (Path(output_dir) / FILE_NAME).exists():
            raise
        kept = Results.load(output_dir)
        told = (
            f"Interrupted: {len(kept.episodes)} of {kept.asked} episodes are kept in {output_dir}. "
            "The same command with --resume goes on."
        )
        print(told, file=sys.stderr)
        raise KeyboardInterrupt(told) from None


def _execution(config: EvaluationConfig) -> Execution | None:
    """None: open loop."""
    if config.execution != "temporal_ensemble":
        return None
    from menura.session import TemporalEnsemble

    return TemporalEnsemble(config.ensemble_coefficient)


def _words_of(execution: Execution | DelayedExecution | None) -> list[str]:
    """Of the command line, what asks for latency."""
    if not isinstance(execution, DelayedExecution):
        return []
    words = ["--latency", str(execution.latency), "--controller", execution.controller]
    words += [f"--{override}" for override in split_section(execution.overrides, "controller")[0]]
    return words if execution.control_hz is None else [*words, "--control_hz", f"{execution.control_hz:g}"]


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _command(
    model: Any,
    env: Any,
    results: Results,
    execution: Execution | DelayedExecution | None,
    overrides: Sequence[str],
    baselines: bool,
    dataset: str | None,
    against: Any,
) -> str | None:
    """The command line that repeats the evaluation, where one can."""
    if not isinstance(model, (str, Path)) or not (env is None or isinstance(env, (str, Path))):
        return None
    words = ["menura", "eval", "-m", str(model)]
    if env is not None:
        words += ["-e", str(env)]
    words += ["--episodes", str(results.asked), "--seed", str(results.protocol["seeds"]["first"])]
    if isinstance(against, (str, Path)):
        words += ["--against", str(against)]
    elif results.stopping is not None and "half_width" in results.stopping:
        words += ["--until_ci", f"{results.stopping['half_width']:g}"]
    words += ["--num_envs", str(results.run["num_envs"])]
    words += _words_of(execution)
    for name in results.perturbed:
        for change in name.split(", "):
            words += ["--perturb", change]
    words += ["--baselines"] if baselines else []
    words += ["--dataset", dataset] if dataset is not None else []
    of_env, others = split_section(overrides, "env")
    words += [f"--{override}" for override in (*of_env, *others)]
    return shlex.join(words)
