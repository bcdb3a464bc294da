"""A process that steps environments: it knows no policy and never imports torch.

It holds some of the slots, one environment each, made when first needed and kept until another is asked for; the first
is made at once, while the policy is loaded elsewhere.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from menura.data.episode import Float32
from menura.envs import make_env
from menura.envs.base import Observation, SimEnv
from menura.envs.perturbation import Perturbation, perturbed
from menura.errors import EnvironmentFailure, MenuraError
from menura.evaluation.child import Parent, attend
from menura.evaluation.messages import Begin, Conduct, Describe, Description, Job, Reply, Setup
from menura.evaluation.results import EpisodeResult, finite_or_none
from menura.evaluation.video import VideoWriter, is_video_step
from menura.user_code import naming_users_line


class Slot:
    """One environment and the episode that runs in it."""

    def __init__(self, env: SimEnv, conduct: Conduct, project: Path) -> None:
        self._env = env
        self._conduct = conduct
        self._project = project
        self._fps = env.features.fps
        self._video: VideoWriter | None = None

    def run(self, job: Job) -> Reply:
        with naming_users_line(self._project, EnvironmentFailure, lambda: f"in {self._place()}"):
            return self._run(job)

    def _run(self, job: Job) -> Reply:
        try:
            return self._begin(job) if isinstance(job, Begin) else self._execute(job.actions)
        except MenuraError as error:
            raise type(error)(f"{self._place()}: {error}") from error
        except Exception:
            print(f"In {self._place()}:", file=sys.stderr)
            raise

    def _place(self) -> str:
        return f"episode {self._episode.index} (seed {self._episode.seed}), after {self._steps} steps"

    def _begin(self, episode: Begin) -> Observation:
        self._episode = episode
        self._steps, self._return, self._success = 0, 0.0, False
        self._measures: dict[str, float] = {}
        self._env.begin(episode.seed)
        if episode.video and self._conduct.videos is not None:
            self._video = VideoWriter(
                Path(self._conduct.videos) / video_name(episode.index), min(self._conduct.video_fps, self._fps)
            )
        self._film()
        return self._observation()

    def _execute(self, actions: Float32) -> Reply:
        for action in actions:
            reward, terminated, truncated, info = self._env.advance(action)
            self._steps += 1
            self._return += float(reward)
            self._success = self._success or bool(info["success"])
            self._measure(info.get("measures", {}))
            over = terminated or truncated or self._steps >= self._env.max_episode_steps
            over = over or (self._success and self._conduct.stop_at_success)
            over = over or (self._conduct.one_plan and self._steps == len(actions))
            self._film(last=over)
            if over:
                return self._finish()
        return self._observation()

    def _finish(self) -> EpisodeResult:
        video = None
        if self._video is not None:
            self._video.close()
            self._video = None
            video = f"videos/{video_name(self._episode.index)}"
        return EpisodeResult(
            index=self._episode.index,
            seed=self._episode.seed,
            success=self._success,
            return_=finite_or_none(self._return),
            steps=self._steps,
            time_s=self._steps / self._fps,
            video=video,
            measures=self._measures,
        )

    def _measure(self, now: Mapping[str, float]) -> None:
        """Keeps the largest of each measure."""
        for name, value in now.items():
            if not math.isfinite(value):
                raise EnvironmentFailure(f"measure {name}: expected a finite number, got {value}. Mend its apply().")
            self._measures[name] = max(float(value), self._measures.get(name, -math.inf))

    def _observation(self) -> Observation:
        """What the policy looks at; no other camera is drawn, and none during a plan."""
        images = {camera: self._env.image(camera) for camera in self._conduct.cameras}
        return {"state": self._env.state(), "images": images, "task": self._env.task}

    def _film(self, last: bool = False) -> None:
        if self._video is not None and (last or is_video_step(self._steps, self._fps, self._conduct.video_fps)):
            self._video.add(self._env.render())


def video_name(index: int) -> str:
    return f"episode_{index:05d}.mp4"


def serve(parent: Parent) -> None:
    """Answers messages, in order, for ever: the process ends when its parent hangs up."""
    setup: Setup = parent.receive()
    project = setup.project or Path.cwd()
    environments: dict[int, SimEnv] = {}
    slots: dict[int, Slot] = {}
    conduct: Conduct | None = None

    def make() -> SimEnv:
        with naming_users_line(project, EnvironmentFailure):
            env = make_env(setup.env, setup.project)
            return perturbed(env, Perturbation(**setup.perturbation))

    def environment(number: int) -> SimEnv:
        if number not in environments:
            environments[number] = unused.pop() if unused else make()
        return environments[number]

    unused = [make()]
    while True:
        message = parent.receive()
        if isinstance(message, Setup):
            for made in (*environments.values(), *unused):
                made.close()
            setup, environments, slots = message, {}, {}
            unused = [make()]
        elif isinstance(message, Conduct):
            conduct, slots = message, {}
        elif isinstance(message, Describe):
            env = environment(message.slot)
            with naming_users_line(project, EnvironmentFailure):
                undrawn = why_undrawn(env) if message.film else None
            parent.answer(replace(describe(env, setup.env), undrawn=undrawn))
        else:
            assert conduct is not None
            replies: dict[int, Reply] = {}
            for number, job in message.items():
                if number not in slots:
                    slots[number] = Slot(environment(number), conduct, project)
                replies[number] = slots[number].run(job)
            parent.answer(replies)


def describe(env: SimEnv, config: Mapping[str, Any]) -> Description:
    space = env.action_space
    return Description(
        features=env.features.to_dict(),
        # What a user's environment does not say of itself, its arguments may.
        protocol={**env.protocol(), "args": dict(config.get("args") or {})},
        max_episode_steps=env.max_episode_steps,
        action_low=np.asarray(getattr(space, "low", []), np.float64).ravel().tolist(),
        action_high=np.asarray(getattr(space, "high", []), np.float64).ravel().tolist(),
    )


def why_undrawn(env: SimEnv) -> str | None:
    """Why no picture can be taken of an environment, which is reset for it; None when one can."""
    try:
        env.begin(0)
        env.render()
    except EnvironmentFailure as failure:
        return str(failure)
    return None


def main(descriptor: int) -> None:
    """The process; `descriptor` is its end of the connection."""
    attend(descriptor, serve)
