"""What can be evaluated: a policy, random or no actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from menura.data.episode import Float32
from menura.errors import ContractError
from menura.evaluation.latency_execution import DelayedExecution
from menura.evaluation.messages import Description
from menura.evaluation.rollout import PlanSession
from menura.features import Features

if TYPE_CHECKING:
    from menura.meta_policy import Execution, MetaPolicy
    from menura.served_policy import ServedPolicy


class Subject(Protocol):
    """What is evaluated.

    Attributes:
        cameras: those it looks at.
        one_plan: whether an episode ends with the first plan.
        identity: JSON-able: `name`, `hash` (None where it cannot be said), and what else describes it.
        execution: JSON-able, part of the protocol: how predicted actions are executed.
    """

    cameras: tuple[str, ...]
    one_plan: bool
    identity: dict[str, Any]
    execution: dict[str, Any]

    def check(self, environment: Description) -> None:
        """Raises FeatureMismatch when this cannot be evaluated in that environment."""

    def session(self, num_envs: int, environment: Description) -> PlanSession:
        """The state of `num_envs` running episodes."""
        ...


class PolicySubject:
    """A trained policy, here or behind a server, executed as `execution` says (open loop when None)."""

    one_plan = False

    def __init__(
        self,
        policy: MetaPolicy | ServedPolicy,
        execution: Execution | DelayedExecution | None = None,
        exact: bool = False,
    ) -> None:
        self.cameras = policy.required_cameras
        self.identity: dict[str, Any] = {"name": policy.name, "hash": policy.checkpoint_hash}
        self.execution = _describe_execution(execution, policy.features.fps)
        self._policy, self._execution, self._exact = policy, execution, exact

    @property
    def settings(self) -> dict[str, Any]:
        """What else this class is made with, of a policy loaded elsewhere."""
        return {"execution": self._execution, "exact": self._exact}

    def check(self, environment: Description) -> None:
        features = Features.from_dict(environment.features)
        refuse_differences(self._policy.features, features, "policy")
        refuse_missing_cameras(self.cameras, features)

    def session(self, num_envs: int, environment: Description) -> PlanSession:
        if isinstance(self._execution, DelayedExecution):
            return self._execution.session(self._policy, num_envs, environment, self._exact)
        session: PlanSession = self._policy.session(num_envs, execution=self._execution, exact=self._exact)
        return session


def _describe_execution(execution: Execution | DelayedExecution | None, fps: float = 0.0) -> dict[str, Any]:
    """`{"name": "temporal_ensemble", "coefficient": 0.01}`; a policy's own `n_action_steps` is not repeated."""
    if execution is None:
        return {"name": "open_loop"}
    if isinstance(execution, DelayedExecution):
        return execution.describe(fps)
    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in type(execution).__name__)
    settings = {key: value for key, value in dataclasses.asdict(execution).items() if value is not None}
    return {"name": name.lstrip("_"), **settings}


class AuditActions:
    """Acts without looking, by what the environment declares of its actions: a whole episode is one plan.

    `execution` is that of the policy it stands beside, so that the protocols agree; nothing here depends on it.
    """

    name: ClassVar[str]
    rule: ClassVar[str]
    cameras: tuple[str, ...] = ()
    one_plan = True

    def __init__(self, execution: Mapping[str, Any] | None = None) -> None:
        self.identity: dict[str, Any] = {"name": self.name, "hash": self.rule}
        self.execution = dict(execution or _describe_execution(None))

    def check(self, environment: Description) -> None:
        """ContractError where it cannot act in that environment."""

    def actions(self, environment: Description, seed: int) -> Float32:
        """(T, A) in physical units, for the episode of that seed."""
        raise NotImplementedError

    def session(self, num_envs: int, environment: Description) -> PlanSession:
        return _SeededSession(lambda seed: self.actions(environment, seed))


class RandomActions(AuditActions):
    """Uniform between the bounds that the environment declares of its actions, anew at every step.

    The actions of an episode depend on its seed alone.
    """

    name, rule = "random", "uniform"

    def check(self, environment: Description) -> None:
        bounds = np.array([environment.action_low, environment.action_high])
        if bounds.size == 0 or not np.isfinite(bounds).all():
            raise ContractError(
                "random policy: expected finite bounds in the environment's action_space, got "
                f"{bounds.tolist()}. Declare them, or evaluate without the random baseline."
            )

    def actions(self, environment: Description, seed: int) -> Float32:
        low, high = np.array(environment.action_low), np.array(environment.action_high)
        steps = (environment.max_episode_steps, len(low))
        drawn: Float32 = np.random.default_rng(seed).uniform(low, high, steps).astype(np.float32)
        return drawn


class ZeroActions(AuditActions):
    """The action nearest to 0 (in physical units) that the environment allows, at every step.

    Where actions are differences it moves nothing, so that what happens is the environment's own doing.
    """

    name, rule = "zero", "nearest to 0"

    def actions(self, environment: Description, seed: int) -> Float32:
        width = Features.from_dict(environment.features).action_dim
        zeros = np.zeros((environment.max_episode_steps, width), np.float32)
        if not environment.action_low:
            return zeros
        bounded: Float32 = np.clip(zeros, environment.action_low, environment.action_high).astype(np.float32)
        return bounded


#: What may be evaluated by its name, in the place of a run.
AUDITS: Mapping[str, type[AuditActions]] = {audit.name: audit for audit in (RandomActions, ZeroActions)}


class _SeededSession:
    """Whole episodes at once, each by its seed: nothing that is observed matters."""

    def __init__(self, actions: Callable[[int], Float32]) -> None:
        self._actions = actions
        self._seeds: dict[int, int] = {}

    def reset(self, rows: Sequence[int] | None = None, seeds: Sequence[int] | None = None) -> None:
        self._seeds.update(zip(rows or (), seeds or (), strict=True))

    def plan(self, obs: Mapping[str, Any], rows: Sequence[int]) -> list[Float32]:
        return [self._actions(self._seeds[row]) for row in rows]


def refuse_differences(features: Features, environment: Features, whose: str) -> None:
    """Raises FeatureMismatch that names every difference from the environment's features."""
    step = "Change the environment's args, or train anew."
    features.require_same(environment, where="environment", expected=f"what the {whose} was made with", step=step)


def refuse_missing_cameras(cameras: Sequence[str], environment: Features) -> None:
    """Raises FeatureMismatch where the environment lacks a camera that the policy looks at."""
    environment.require_cameras(cameras, where="environment", step="Add them to the environment's args.")
