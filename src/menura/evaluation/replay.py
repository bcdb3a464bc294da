"""Replay: execute a dataset's own actions through the path that a policy's actions take.

An audit of control space, scaling and gripper sign: when episodes that were recorded as solved are not solved again
from their own seeds, no policy trained on them can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from menura.config import EnvConfig, load_env
from menura.data.episode import Float32
from menura.data.readers.base import Reader
from menura.errors import DataError
from menura.evaluation.results import Results
from menura.evaluation.runner import open_pool, run_episodes
from menura.evaluation.subjects import RecordedActions


@dataclass(frozen=True)
class Replay:
    """What became of the recorded episodes.

    Attributes:
        results: of all replayed episodes, by their recorded seeds.
        recorded: index of an episode -> whether it was recorded as solved; None where the dataset does not say.
    """

    results: Results
    recorded: Mapping[int, bool | None]

    @property
    def lost(self) -> tuple[int, ...]:
        """Episodes that were recorded as solved, or of which nothing is said, and are not solved again."""
        return tuple(
            episode.index
            for episode in self.results.episodes
            if not episode.success and self.recorded[episode.index] is not False
        )

    def __str__(self) -> str:
        expected = sum(solved is not False for solved in self.recorded.values())
        text = f"{expected - len(self.lost)} of {expected} solved episodes are solved again by their own actions"
        if self.lost:
            text += (
                f"; not {', '.join(map(str, self.lost[:20]))}{' …' if len(self.lost) > 20 else ''}. "
                "Look at the control space, the scaling, the gripper's sign, and whether the environment is the same."
            )
        return text


def replay(
    dataset: Reader | str | Path,
    env: str | Path | EnvConfig | Mapping[str, Any],
    *,
    episodes: int | None = None,
    num_envs: int = 8,
    num_workers: int | None = None,
    output_dir: str | Path | None = None,
    videos: int | Literal["all"] = 0,
    project: Path | None = None,
    progress: bool = True,
) -> Replay:
    """Executes the actions of a dataset's first `episodes` episodes (all, when None) from their recorded seeds.

    Raises:
        DataError: an episode has no seed, so that its start cannot be set.
        FeatureMismatch: the dataset's actions are not what the environment expects.
    """
    reader = _open(dataset, project)
    count = len(reader) if episodes is None else min(episodes, len(reader))
    actions: dict[int, Float32] = {}  # by seed
    recorded: dict[int, bool | None] = {}
    for index in range(count):
        episode = reader.episode(index)
        if episode.seed is None:
            raise DataError(
                f"replay: expected the environment's seed of each episode, got none for episode {index} of "
                f"{reader.name}. Record with `menura collect`, which writes it."
            )
        if episode.seed in actions:
            raise DataError(f"replay: expected a seed of its own for each episode, got {episode.seed} twice.")
        actions[episode.seed] = episode.action
        recorded[index] = episode.success
    config = load_env(env, project) if isinstance(env, (str, Path)) else env
    with open_pool(config, num_envs=min(num_envs, count), num_workers=num_workers, project=project) as pool:
        results = run_episodes(
            RecordedActions(reader.name, reader.features, actions),
            pool,
            seeds=list(actions),
            num_envs=num_envs,
            output_dir=output_dir,
            videos=videos,
            progress=progress,
        )
    return Replay(results, recorded)


def _open(dataset: Reader | str | Path, project: Path | None) -> Reader:
    if isinstance(dataset, Reader):
        return dataset
    from menura.data import open_dataset

    reader: Reader = open_dataset(dataset, project=project)
    return reader
