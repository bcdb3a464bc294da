"""Offline: what a policy answers to recorded observations, against the actions that were recorded.

It needs no environment and moves no robot. It is no success rate either: small errors may fail a task, and large ones
may be another way to solve it. What it shows is whether a policy, here or behind a server, is given what it was trained
on and answers in the units it should.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from menura.data.episode import Episode, Float32
from menura.data.opening import open_dataset
from menura.data.readers.base import Reader
from menura.evaluation.progress import live_lines
from menura.evaluation.rollout import batch
from menura.evaluation.shared import opened_policy
from menura.evaluation.state_error import Comparison, Float64, StateError
from menura.files import write_json

if TYPE_CHECKING:
    from menura.meta_policy import MetaPolicy
    from menura.served_policy import ServedPolicy

FILE_NAME, PAGE = "offline.json", "offline.html"
_ROWS = 8  # episodes that are asked for together
_NAMED = 3


@dataclass(frozen=True)
class OfflineEvaluation:
    """How far a policy's answers are from the recorded actions.

    Attributes:
        dataset: its name.
        policy: JSON-able: `name` and `hash`.
        recorded: episode -> (T, d) its actions; rotations as matrices.
        errors: episode -> answer minus recorded action, as a `StateError` over the action's dimensions.
    """

    dataset: str
    policy: Mapping[str, Any]
    recorded: Mapping[int, Float64]
    errors: Mapping[int, StateError]

    @property
    def names(self) -> tuple[str, ...]:
        """The action's dimensions; rotations as matrices."""
        return next(iter(self.errors.values())).names

    @property
    def absolute(self) -> Float64:
        """(d,) the mean absolute error of each dimension, in the action's units."""
        found: Float64 = np.abs(self._difference).mean(axis=0)
        return found

    @property
    def in_spreads(self) -> Float64:
        """(d,) the root mean square error of each dimension, in its standard deviation over the recorded frames: 0
        where the recording is repeated, 1 for who always answers the mean action."""
        spread = next(iter(self.errors.values())).spread
        found: Float64 = np.sqrt((self._difference**2).mean(axis=0)) / spread
        return found

    @property
    def score(self) -> float:
        """`in_spreads`, the root mean square over the dimensions."""
        return float(np.sqrt((self.in_spreads**2).mean()))

    @property
    def _difference(self) -> Float64:
        """(frames of all episodes, d)"""
        return np.concatenate([error.difference for error in self.errors.values()])

    def __str__(self) -> str:
        frames = sum(error.frames for error in self.errors.values())
        farthest = np.argsort(-self.in_spreads, kind="stable")[:_NAMED]
        named = ", ".join(f"{self.names[place]} {self.in_spreads[place]:.2f}" for place in farthest)
        return (
            f"Its answers are off the recorded actions by {self.score:.2f} of their spread (0: the same, 1: no better "
            f"than the mean action), over {frames} frames of {len(self.errors)} episodes. Farthest: {named}."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        dimensions = {
            name: {"absolute": float(f"{absolute:.6g}"), "in_spreads": float(f"{share:.6g}")}
            for name, absolute, share in zip(self.names, self.absolute, self.in_spreads, strict=True)
        }
        return {
            "dataset": self.dataset,
            "policy": dict(self.policy),
            "score": round(self.score, 6),
            "dimensions": dimensions,
            "episodes": {
                str(index): {"frames": error.frames, "score": round(error.score, 6)}
                for index, error in self.errors.items()
            },
        }


def evaluate_offline(
    model: str | Path | MetaPolicy | ServedPolicy,
    dataset: Reader | str | Path,
    *,
    episodes: int | None = None,
    dataset_name: str | None = None,
    output_dir: str | Path | None = None,
    project: Path | None = None,
    trust_remote_code: bool = False,
    progress: bool = False,
) -> OfflineEvaluation:
    """Ask a policy for the actions of recorded episodes, as it would be asked while they happen.

    It sees the recorded observations whatever it answers, with the history it was trained with, and its chunks are
    executed open loop (`n_action_steps`). A policy that samples draws for episode i from seed i.

    Args:
        model: a run, a checkpoint, a server's address, or the policy itself.
        episodes: the first so many; None for all.
        dataset_name: whose statistics hold, of a policy trained on several datasets.
        output_dir: where `offline.json` and `offline.html` are written; None writes nothing.
        project: where a user's own classes are.
        trust_remote_code: allow code stored in the checkpoint to run when it is not in the project.

    Raises:
        FeatureMismatch: the dataset's observations or actions are not what the policy was trained on.
    """
    loading = {"dataset": dataset_name, "project": project, "trust_remote_code": trust_remote_code}
    with opened_policy(model, **loading) as policy:
        found = _compared(policy, open_dataset(dataset, project=project), episodes, progress)
    if output_dir is not None:
        from menura.evaluation.offline_page import write_offline_page

        write_json(Path(output_dir) / FILE_NAME, found.to_dict())
        write_offline_page(Path(output_dir) / PAGE, found)
    return found


def _compared(
    policy: MetaPolicy | ServedPolicy, dataset: Reader, episodes: int | None, progress: bool
) -> OfflineEvaluation:
    policy.features.require_same(
        dataset.features,
        where="dataset",
        expected="what the policy was trained on",
        step="Ask it about a dataset like its own, or name this one's dimensions (keys).",
    )
    dataset.features.require_cameras(policy.required_cameras, where="dataset", step="Name them: keys.")
    count = len(dataset) if episodes is None else min(episodes, len(dataset))
    recorded: dict[int, Float32] = {}
    answered: dict[int, Float32] = {}
    with live_lines(progress) as bar:
        line = bar.add_task("asking", total=count, rate="")
        for first in range(0, count, _ROWS):
            group = {index: dataset.episode(index) for index in range(first, min(first + _ROWS, count))}
            answered |= _answers(policy, group)
            recorded |= {index: episode.action for index, episode in group.items()}
            bar.advance(line, len(group))
    action = policy.features.action
    comparison = Comparison(action, action, list(recorded.values()))
    return OfflineEvaluation(
        dataset=dataset.name,
        policy={"name": policy.name, "hash": policy.checkpoint_hash},
        recorded={index: comparison.recorded(actions) for index, actions in recorded.items()},
        errors={index: comparison.error(recorded[index], answered[index]) for index in recorded},
    )


def _answers(policy: MetaPolicy | ServedPolicy, episodes: Mapping[int, Episode]) -> dict[int, Float32]:
    """Episode -> (T, A): the action that would have been executed at each of its frames."""
    session = policy.session(len(episodes), seeds=list(episodes))
    rows = list(episodes)
    plans: dict[int, list[Float32]] = {index: [] for index in rows}
    position = dict.fromkeys(rows, 0)
    while running := [index for index in rows if position[index] < len(episodes[index])]:
        seen = [_observation(episodes[index], position[index], policy.required_cameras) for index in running]
        for index, plan in zip(running, session.plan(batch(seen), [rows.index(i) for i in running]), strict=True):
            plans[index].append(plan)
            position[index] += len(plan)
    return {index: np.concatenate(of_episode)[: len(episodes[index])] for index, of_episode in plans.items()}


def _observation(episode: Episode, frame: int, cameras: tuple[str, ...]) -> dict[str, Any]:
    return {
        "state": episode.state[frame],
        "images": {camera: np.asarray(episode.images[camera][frame]) for camera in cameras},
        "task": episode.task,
    }
