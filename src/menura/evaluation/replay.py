"""Replay: execute a dataset's own actions through the path that a policy's actions take.

An audit of control space, scaling and gripper sign: when episodes that were recorded as solved are not solved again
from where they began, no policy trained on them can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

import menura
from menura import components
from menura.config import EnvConfig, ResolvedTask, load_env, load_task
from menura.data.episode import Episode
from menura.data.opening import open_dataset
from menura.data.readers.base import Reader
from menura.data.threads import available_cores
from menura.errors import ConfigError, DataError
from menura.evaluation.diagnosis import REPEATED, TRIED, Demonstration, Diagnosis, diagnose
from menura.evaluation.messages import Description
from menura.evaluation.progress import live_lines
from menura.evaluation.protocol import build_protocol
from menura.evaluation.replaying import Play, Player, Setup, Start, Trace
from menura.evaluation.results import EpisodeResult, Results
from menura.evaluation.runner import as_mapping, filmed
from menura.evaluation.state_error import Comparison, StateError
from menura.evaluation.subjects import refuse_differences
from menura.evaluation.worker import video_name
from menura.features import Features
from menura.files import write_json
from menura.processing.spaces import Spaces

FILE_NAME, PAGE = "replay.json", "replay.html"
#: What a recorder puts into an episode's facts: the simulator's own state at its first frame.
INITIAL_STATE = "initial_state"
#: What `menura collect` puts there: actions that were executed before the first frame, and the noise on all of them.
BEFORE, NOISE = "before", "noise"
SIMULATOR_STATES = "states"  # robomimic's name of them, one row a frame


@dataclass(frozen=True)
class Replay:
    """What became of the recorded episodes.

    Attributes:
        results: of all replayed episodes.
        recorded: index of an episode -> whether it was recorded as solved; None where the dataset does not say.
        errors: index -> how far its states are from the recorded ones; empty where no state can be compared.
        cut: episodes that ended before their actions did: at the step limit, or by the environment's doing.
        noisy: what was executed when it was recorded had noise, which is not among the recorded actions.
        diagnosis: what is probably wrong; None where nothing was looked for.
    """

    results: Results
    recorded: Mapping[int, bool | None]
    errors: Mapping[int, StateError] = field(default_factory=dict)
    cut: tuple[int, ...] = ()
    noisy: bool = False
    diagnosis: Diagnosis | None = None

    @property
    def lost(self) -> tuple[int, ...]:
        """Episodes that were recorded as solved, or of which nothing is said, and are not solved again."""
        return tuple(
            episode.index
            for episode in self.results.episodes
            if not episode.success and self.recorded[episode.index] is not False
        )

    @property
    def departed(self) -> tuple[int, ...]:
        """Episodes whose states are not the recorded ones."""
        return tuple(index for index, error in self.errors.items() if error.score > REPEATED)

    def __str__(self) -> str:
        expected = sum(solved is not False for solved in self.recorded.values())
        text = f"{expected - len(self.lost)} of {expected} solved episodes are solved again by their own actions"
        if self.lost:
            text += f"; not {', '.join(map(str, self.lost[:20]))}{' …' if len(self.lost) > 20 else ''}"
        sentences = [text, *self._of_states()]
        if self.lost and self.cut:
            limit = self.results.protocol["environment"].get("max_episode_steps")
            sentences.append(f"{len(self.cut)} ended before their actions did (the step limit is {limit})")
        if self.noisy and (self.lost or self.departed):
            sentences.append(
                "They were recorded with noise, which was executed and is not among the recorded actions: that alone "
                "makes states differ"
            )
        if self.diagnosis is not None:
            sentences.append(str(self.diagnosis).rstrip("."))
        elif self.lost and self.errors and not set(self.lost) & set(self.departed):
            sentences.append("The states are repeated, and success is not: the success rule or the step limit is other")
        return sentences[0] if len(sentences) == 1 else ". ".join(sentences) + "."

    def _of_states(self) -> Iterator[str]:
        if not self.errors or not self.departed:
            return
        worst = max(self.departed, key=lambda index: self.errors[index].score)
        begun = sorted(begins for index in self.departed if (begins := self.errors[index].begins) is not None)
        error = self.errors[worst]
        text = f"In {len(self.departed)} of {len(self.errors)} the states leave the recorded ones"
        if begun:
            text += f", from frame {begun[len(begun) // 2]} on (the median)"
        if error.leaving:
            text += f", first {', '.join(error.leaving[:3])}"
        yield text

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: everything but the results, which have their own file."""
        episodes = {
            str(index): {
                "score": round(error.score, 6),
                "begins": error.begins,
                "leaving": list(error.leaving),
                "largest": {
                    name: float(f"{value:.4g}")
                    for name, value in zip(error.names, np.abs(error.difference).max(axis=0), strict=True)
                },
            }
            for index, error in self.errors.items()
        }
        diagnosis = None if self.diagnosis is None else {**vars(self.diagnosis)}
        return {
            "verdict": str(self),
            "lost": list(self.lost),
            "cut": list(self.cut),
            "diagnosis": diagnosis,
            "state_error": episodes,
        }


def replay(
    dataset: Reader | str | Path,
    env: str | Path | EnvConfig | Mapping[str, Any] | None = None,
    *,
    task: str | Path | None = None,
    episodes: int | None = None,
    num_workers: int | None = None,
    output_dir: str | Path | None = None,
    videos: int | Literal["all"] | None = None,
    look_for_faults: bool = True,
    project: Path | None = None,
    progress: bool = True,
) -> Replay:
    """Executes the actions of a dataset's first `episodes` episodes (all, when None) from where they began.

    An episode begins with the simulator's own state where the dataset has it (`initial_state` among the episode's
    facts, or robomimic's `states` as the state: `keys={"state": "states"}`), else with its seed. Where episodes are
    lost, or lead elsewhere, what may be wrong is looked for (`menura.evaluation.diagnosis`).

    Args:
        env: an environment's name, YAML or mapping; the task's, when None.
        task: whose `processor:` the actions are encoded and decoded by, `n_action_steps` at a time, as those of a
            policy trained on it would be; None executes them as they are.
        output_dir: where results, `replay.html` and videos are written; None writes nothing.
        videos: how many of the first episodes are filmed; None films all where the environment can be drawn.
        look_for_faults: whether a diagnosis is made where one is needed.

    Raises:
        DataError: an episode has neither a seed nor a state to begin with.
        FeatureMismatch: the dataset says that its actions are not what the environment expects.
    """
    resolved = None if task is None else load_task(task, project=project)
    project = project or (None if resolved is None else resolved.project)
    reader = open_dataset(dataset, project=project)
    count = len(reader) if episodes is None else min(episodes, len(reader))
    recorded = [reader.episode(index) for index in range(count)]
    demonstrations = [_demonstration(reader, index, episode) for index, episode in enumerate(recorded)]
    spaces, chunk = _spaces(resolved, reader.features)
    setup = Setup(_environment(env, resolved, project), project, spaces, chunk)
    directory = None if output_dir is None else Path(output_dir)
    workers = min(num_workers or available_cores(), count)
    with Player(setup, workers) as player, live_lines(progress) as bar:
        description = player.describe(film=directory is not None and videos != 0)
        environment = Features.from_dict(description.features)
        _refuse_other_actions(reader.features, environment, with_state=spaces is not None)
        films = _films(count, directory, videos, description)
        line = bar.add_task("replaying", total=count, rate="")
        plays = [Play(d.start, d.actions, d.states, film) for d, film in zip(demonstrations, films, strict=True)]
        traces = player.play(plays, told=lambda _: bar.advance(line))
    comparison = Comparison(reader.features.state, environment.state, [demo.states for demo in demonstrations])
    found = _collected(reader.name, recorded, demonstrations, traces, films, comparison, description)
    wanted = list(dict.fromkeys([*found.lost, *(() if found.noisy else found.departed)]))[:TRIED]
    if look_for_faults and wanted and (found.departed or not found.errors):
        chosen = [demonstrations[index] for index in wanted]
        with Player(replace(setup, spaces=None), workers) as player:
            as_recorded = [traces[index] for index in wanted]
            if spaces is not None:
                as_recorded = player.play([Play(demo.start, demo.actions) for demo in chosen])
            diagnosis = diagnose(player, description, reader.features, chosen, as_recorded, comparison)
        found = replace(found, diagnosis=diagnosis)
    if directory is not None:
        from menura.evaluation.replay_page import write_replay_page

        found.results.save(directory)
        write_json(directory / FILE_NAME, found.to_dict())
        write_replay_page(directory / PAGE, found, reader.name)
    return found


def _collected(
    name: str,
    recorded: Sequence[Episode],
    demonstrations: Sequence[Demonstration],
    traces: Sequence[Trace],
    films: Sequence[str | None],
    comparison: Comparison,
    description: Description,
) -> Replay:
    seeds = [demo.start.seed for demo in demonstrations]
    episodes = tuple(
        EpisodeResult(
            index=index,
            seed=seeds[index],
            success=trace.success,
            return_=trace.return_,
            steps=trace.steps,
            time_s=trace.steps / description.features["fps"],
            video=None if films[index] is None else f"videos/{video_name(index)}",
            measures=trace.measures,
        )
        for index, trace in enumerate(traces)
    )
    execution = {"name": "recorded"}
    protocol = build_protocol(description.protocol, seeds=seeds, stop_at_success=False, execution=execution)
    policy = {"name": name, "hash": None}
    return Replay(
        Results(episodes, len(episodes), protocol, policy, {"menura": menura.__version__}),
        {index: episode.success for index, episode in enumerate(recorded)},
        {
            index: comparison.error(demonstrations[index].states, trace.states)
            for index, trace in enumerate(traces)
            if comparison.names
        },
        cut=tuple(index for index, trace in enumerate(traces) if trace.steps < len(demonstrations[index].actions)),
        noisy=any(episode.extra.get(NOISE) for episode in recorded),
    )


def _demonstration(reader: Reader, index: int, episode: Episode) -> Demonstration:
    """An episode, and how it begins."""
    facts = {**reader.metadata(index), **episode.extra}
    state = facts.get(INITIAL_STATE)
    names = () if reader.features.state is None else reader.features.state.names
    if state is None and names and all(name.rpartition("_")[0] == SIMULATOR_STATES for name in names):
        state = episode.state[0]
    if state is None and episode.seed is None:
        raise DataError(
            f"replay: expected the environment's seed of each episode, or the simulator's state at its first frame, "
            f"got none for episode {index} of {reader.name}. Record with `menura collect`, which writes the seed; of "
            "robomimic's files read the simulator's states: --keys '{state: states}'."
        )
    before = facts.get(BEFORE)
    start = Start(
        seed=0 if episode.seed is None else episode.seed,
        state=None if state is None else np.asarray(state, np.float64),
        before=None if before is None else np.asarray(before, np.float32),
    )
    return Demonstration(index, start, episode.state, episode.action)


def _environment(
    env: str | Path | EnvConfig | Mapping[str, Any] | None, task: ResolvedTask | None, project: Path | None
) -> dict[str, Any]:
    if env is None:
        if task is None or task.config.env is None:
            raise ConfigError("replay: expected an environment, got none. Name it (-e ENV), or a task that has one.")
        env = task.config.env
    return dict(as_mapping(load_env(env, project) if isinstance(env, (str, Path)) else env))


def _spaces(task: ResolvedTask | None, features: Features) -> tuple[Spaces | None, int]:
    """How a policy of the task is taught actions, and how many of them it decodes at a time."""
    if task is None:
        return None, 1
    spaces = Spaces.of(task.config.processor, features)
    if not spaces.encodes_actions:
        return None, 1
    policy = task.config.policy
    config_class = components.find("policy", policy.class_, task.project).config_class()
    defaults = {} if config_class is None else config_class.parameters().defaults
    chunk = policy.args.get("n_action_steps") or defaults.get("n_action_steps") or 1
    return spaces, int(chunk)


def _refuse_other_actions(dataset: Features, environment: Features, *, with_state: bool) -> None:
    """What the dataset itself says of its actions is what the environment takes; its state may be another one, but not
    where actions are decoded against it."""
    state = dataset.state if with_state else None
    refuse_differences(replace(dataset, state=state, cameras={}), replace(environment, cameras={}), "dataset")


def _films(
    count: int, directory: Path | None, videos: int | Literal["all"] | None, description: Description
) -> list[str | None]:
    if directory is None or videos == 0:
        return [None] * count
    first = filmed(videos, count, description.undrawn)
    return [str(directory / "videos" / video_name(index)) if index < first else None for index in range(count)]
