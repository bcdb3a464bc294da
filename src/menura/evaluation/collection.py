"""A dataset while it is recorded: attempts in the order of their seeds, and going on with an earlier call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import menura
from menura.config.schema import CollectConfig
from menura.data.readers.lerobot import LeRobotReader
from menura.data.readers.lerobot_meta import OWN
from menura.data.threads import available_cores
from menura.data.writer import LeRobotWriter
from menura.envs.make import make_env
from menura.errors import ConfigError, DataError, EnvironmentFailure, did_you_mean
from menura.evaluation.progress import live_lines
from menura.evaluation.recorders import Attempt, Recording, attempts
from menura.evaluation.smoothness import Smoothness
from menura.features import Features
from menura.files import json_text, read_json, sha256, write_json

FACTS = "meta/collect.json"
FAILURES = "-failures"  # behind the name of a dataset: that of the attempts that failed
_PATIENCE = 10  # attempts for each episode asked for, before giving up


@dataclass(frozen=True)
class CollectResult:
    """What was recorded.

    Attributes:
        directory: the dataset.
        seeds: one for each episode in it, in order.
        attempts: episodes tried, the failed ones included.
        successes: how many of them succeeded.
        failures: the dataset of the failed ones; None where none are kept, or none failed.
        smoothness: the largest changes of an action (grippers apart) from one frame to the next.
    """

    directory: Path
    seeds: tuple[int, ...]
    attempts: int
    successes: int
    failures: Path | None = None
    smoothness: Smoothness = field(default_factory=Smoothness)

    @property
    def episodes(self) -> int:
        return len(self.seeds)

    @property
    def success_rate(self) -> float:
        """Of the expert or policy, over all attempts."""
        return self.successes / self.attempts if self.attempts else 0.0

    @property
    def largest_action_step(self) -> float:
        """The largest change of an action from one step to the next, in its units."""
        return self.smoothness.largest

    def __str__(self) -> str:
        lines = [f"{self.episodes} episodes ({self.success_rate:.0%} of all attempts succeeded): {self.directory}"]
        if self.failures is not None:
            lines.append(f"{self.attempts - self.successes} failed ones are kept apart: {self.failures}")
        return "\n".join([*lines, *self.smoothness.lines()])


class Collection:
    """The dataset that is being recorded, and that of what failed."""

    def __init__(
        self, root: Path, recording: Recording, config: CollectConfig, cameras: Sequence[str] = (), title: str = ""
    ) -> None:
        self._root = root
        self._apart = root.with_name(f"{root.name}{FAILURES}")
        self._recording = recording
        self._config = config
        self._cameras = cameras
        self._title = title or "recording"
        self._seeds: list[int] = []
        self._failed: list[int] = []
        self._attempts = 0

    @property
    def _kept(self) -> int:
        """What counts towards the episodes asked for."""
        return len(self._seeds) + len(self._failed)

    def run(self, show_progress: bool) -> CollectResult:
        env = make_env(self._recording.env, self._recording.project)
        try:
            features, protocol = env.features, env.protocol()
        finally:
            env.close()
        _require_cameras(self._cameras, features)
        facts = {
            "menura": menura.__version__,
            "env": self._recording.env,
            "expert": self._recording.expert,
            "policy": self._recording.policy,
            "policy_hash": _policy_hash(self._recording.policy),
            "dataset": self._recording.dataset,
            "seed": self._config.seed,
            "stride": self._recording.stride,
            "noise": self._config.noise,
            "recovery": self._recording.recovery,
            "extra_steps": self._config.extra_steps,
            "keep_failures": self._config.keep_failures,
            "protocol": protocol,
        }
        facts = json.loads(json_text(facts))  # as it is read back
        self._resume(facts)
        if self._kept < self._config.episodes:
            self._record(features, facts, show_progress)
            result = {
                "attempts": self._attempts,
                "successes": len(self._seeds),
                "seeds": self._seeds,
                "failures": self._failed,
            }
            write_json(self._root / FACTS, {**facts, "result": result})
        return CollectResult(
            self._root,
            tuple(self._seeds),
            self._attempts,
            len(self._seeds),
            self._apart if self._failed else None,
            Smoothness.of(LeRobotReader(self._root)) if self._seeds else Smoothness(),
        )

    def _resume(self, facts: Mapping[str, Any]) -> None:
        """Takes up what an earlier call left, after making sure that it recorded the same."""
        if not (self._root / FACTS).exists():  # killed before its first episode, or never begun
            if self._config.keep_failures and (self._apart / OWN).exists():
                raise DataError(
                    f"collect: expected {self._apart} to be free for what fails, got a dataset. "
                    "Choose another output_dir, or remove it."
                )
            return
        earlier = read_json(self._root / FACTS, DataError)
        different = [key for key in facts if earlier.get(key) != facts[key]]
        if different:
            listed = "; ".join(f"{key}: {earlier.get(key)!r} there, {facts[key]!r} now" for key in different)
            raise DataError(
                f"collect: expected {self._root} to hold what this call records, got {listed}. "
                "Choose another output_dir, or remove it."
            )
        self._seeds = _seeds_of(self._root)
        self._failed = _seeds_of(self._apart) if self._config.keep_failures else []
        # Attempts are made in the order of seeds, so those missing before the last one failed.
        made = [*self._seeds, *self._failed]
        self._attempts = (max(made) - self._config.seed) // self._recording.stride + 1 if made else 0

    def _record(self, features: Features, facts: Mapping[str, Any], show_progress: bool) -> None:
        workers = min(self._config.num_workers or available_cores(), self._config.episodes - self._kept)
        first_seed = self._config.seed + self._attempts * self._recording.stride
        begun = (self._root / OWN).exists()
        with ExitStack() as stack:
            writer = stack.enter_context(LeRobotWriter(self._root, features, resume=begun))
            if len(writer) != len(self._seeds):
                raise DataError(
                    f"collect: expected a dataset that collect recorded, got {self._root} without {FACTS}. "
                    "Choose another output_dir."
                )
            write_json(self._root / FACTS, facts)
            apart: LeRobotWriter | None = None
            bar = stack.enter_context(live_lines(show_progress))
            line = bar.add_task(self._title, total=self._config.episodes, completed=self._kept, rate="")
            # Closed whatever happens, so that no process goes on recording what nobody waits for.
            made = stack.enter_context(closing(attempts(self._recording, first_seed, workers)))
            while self._kept < self._config.episodes:
                attempt = next(made)
                self._attempts += 1
                if attempt.episode.success:
                    self._seeds.append(_added(attempt, writer))
                elif self._config.keep_failures:
                    if apart is None:
                        there = (self._apart / OWN).exists()
                        apart = stack.enter_context(LeRobotWriter(self._apart, features, resume=there))
                    self._failed.append(_added(attempt, apart))
                else:
                    self._require_hope()
                rate = f"{len(self._seeds)} of {self._attempts} succeed"
                bar.update(line, completed=self._kept, rate=rate)

    def _require_hope(self) -> None:
        if self._attempts >= _PATIENCE * self._config.episodes:
            raise EnvironmentFailure(
                f"collect: expected {self._config.episodes} successful episodes, got {len(self._seeds)} in "
                f"{self._attempts} attempts. See what fails with keep_failures, or lower the noise."
            )


def _added(attempt: Attempt, writer: LeRobotWriter) -> int:
    """The seed of an attempt, which is on disk now."""
    episode = attempt.episode
    assert episode.seed is not None
    facts = {**episode.extra, "largest_action_step": round(attempt.largest_step, 6)}
    writer.add_episode(replace(episode, extra=facts))
    return episode.seed


def _seeds_of(root: Path) -> list[int]:
    if not (root / OWN).exists():
        return []
    reader = LeRobotReader(root)
    return [int(reader.metadata(index)["seed"]) for index in range(len(reader))]


def _require_cameras(wanted: Sequence[str], features: Features) -> None:
    """What the policy will look at is recorded."""
    for camera in wanted:
        if camera not in features.cameras:
            near = did_you_mean(camera, features.cameras) or "."
            raise ConfigError(
                f"collect: expected the cameras that policy.args.camera_names names, got {camera!r} and an environment "
                f"that shows {', '.join(features.cameras) or 'none'}{near} Add it: env.args.cameras: "
                f"{{{camera}: [height, width]}}."
            )


def _policy_hash(policy: str | None) -> str | None:
    """Of the manifest, which holds the hashes of a checkpoint's files; None for an expert or a server."""
    manifest = None if policy is None else Path(policy) / "menura.json"
    return sha256(manifest) if manifest is not None and manifest.is_file() else None
