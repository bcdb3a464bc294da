"""Records one episode of an expert or a policy. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from menura.data.episode import Episode, Float32, UInt8
from menura.envs.base import SimEnv
from menura.errors import EnvironmentFailure

_NOISE_MEMORY = 0.9


class Actor(Protocol):
    """What is recorded: an expert, or a policy dressed as one."""

    def reset(self, env: Any) -> None:
        """An episode begins in `env`, which may be looked into by `env.unwrapped`."""

    def act(self, observation: Mapping[str, Any]) -> Float32:
        """The action (A,) for what is seen."""


def record(env: SimEnv, actor: Actor, *, seed: int, noise: float = 0.0, extra_steps: int = 10) -> Episode:
    """One episode: until it ends, or until `extra_steps` steps after the first success.

    With `noise`, what is executed is the action plus a noise that remembers, n ← 0.9 n + N(0, noise²), on
    `env.noisy_actions`; what is recorded is the action itself, so that a learner sees how the actor comes back from
    where it did not mean to be. Noise is drawn from `seed` alone.
    """
    observation, _ = env.reset(seed=seed)
    actor.reset(env)
    random = np.random.default_rng([seed, 1])
    wobble = np.zeros(env.features.action_dim)
    states: list[Float32] = []
    actions: list[Float32] = []
    frames: dict[str, list[UInt8]] = {camera: [] for camera in env.features.cameras}
    first_success: int | None = None
    while True:
        action = _checked(actor.act(observation), env, actor, step=len(actions))
        states.append(observation["state"])
        actions.append(action)
        for camera, seen in frames.items():
            seen.append(observation["images"][camera])
        if noise:
            wobble = _NOISE_MEMORY * wobble + random.normal(0.0, noise, len(wobble)) * env.noisy_actions
        _, terminated, truncated, info = env.advance((action + wobble).astype(np.float32))
        if info["success"] and first_success is None:
            first_success = len(actions)
        enough = first_success is not None and len(actions) >= first_success + extra_steps
        if terminated or truncated or enough:
            break
        observation = env.observe()
    return Episode(
        state=np.stack(states),
        action=np.stack(actions),
        images={camera: np.stack(seen) for camera, seen in frames.items()},
        task=env.task,
        fps=env.features.fps,
        success=first_success is not None,
        seed=seed,
    )


def _checked(answer: Any, env: SimEnv, actor: Actor, step: int) -> Float32:
    """What an actor answered, as an action (A,) float32."""
    action: Float32 = np.asarray(answer, dtype=np.float32)
    if action.shape != (env.features.action_dim,):
        got = f"shape {action.shape}"
    elif not np.isfinite(action).all():
        got = str(action.tolist())
    else:
        return action
    raise EnvironmentFailure(
        f"{type(actor).__name__}.act at step {step}: expected {env.features.action_dim} finite numbers, got {got}."
    )


def largest_action_step(episode: Episode, dims: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """How smooth a demonstration is: the largest change of an action between steps, over `dims` (A,) bool."""
    steps = np.abs(np.diff(episode.action[:, dims], axis=0))
    return float(steps.max()) if steps.size else 0.0
