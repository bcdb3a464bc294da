"""ExpertTakeover: a simulator's scripted expert takes over a `SimRobot`: interventions without a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from menura.envs.make import make_expert
from menura.errors import ContractError
from menura.robots.base import Float32, Robot, RobotObservation
from menura.robots.sensing import TOLERANCE_S
from menura.robots.sim import SimRobot
from menura.teleop.base import Teleoperator


class ExpertTakeover(Teleoperator):
    """The expert drives during given times of an episode, or when nothing has succeeded for long.

    It is asked once for each step of the simulation. Choose an expert that acts on what it sees: one that plans a whole
    episode (ALOHA's) begins its plan when it takes over. Time counts from the first action of the episode.

    Args:
        expert: `{class: …, args: …}`, one of the environment's experts.
        between_s: times of the episode, `[[from, to], …]` in seconds, in which it drives.
        after_s: from when on it drives whatever is not solved by then; None: never.
        project: where a user's own experts are looked for.
    """

    name = "expert"

    def __init__(
        self,
        expert: Mapping[str, Any],
        between_s: Sequence[Sequence[float]] = (),
        after_s: float | None = None,
        project: Path | None = None,
    ) -> None:
        for stretch in between_s:
            if len(stretch) != 2 or not stretch[0] <= stretch[1]:
                raise ContractError(f"ExpertTakeover.between_s: expected [from, to] each, got {list(stretch)}.")
        self._config = expert
        self._between_s = [(float(start), float(end)) for start, end in between_s]
        self._after_s = after_s
        self._project = project
        self._robot: SimRobot | None = None
        self._begun_s: float | None = None
        self._driving = False
        self._asked_at = -1  # step of the simulation
        self._action: Float32 | None = None

    def begin(self, robot: Robot) -> None:
        """ContractError where the robot is no `SimRobot`: an expert reads the simulator's state."""
        if not isinstance(robot, SimRobot):
            raise ContractError(f"ExpertTakeover: expected a SimRobot, got {type(robot).__name__}.")
        super().begin(robot)
        self._robot = robot
        with robot.simulator() as env:
            self._expert = make_expert(self._config, self._project, env)

    def sent(self, action: Float32 | None) -> None:
        if action is None:
            self._begun_s, self._driving = None, False
        elif self._begun_s is None:
            self._begun_s = self.clock.now()

    def act(self, observation: RobotObservation) -> Float32 | None:
        if self._robot is None:
            raise ContractError("ExpertTakeover: expected begin(robot) to be called first, got act().")
        if not self._wanted(self._robot):
            self._driving = False
            return None
        with self._robot.simulator() as env:
            if not self._driving:
                self._expert.reset(env)
            if not self._driving or self._action is None or self._asked_at != self._robot.steps:
                seen = {"state": observation["state"], "images": observation["images"], "task": env.task}
                action = np.asarray(self._expert.act(seen), np.float32)
                self._action = action if self._robot.limits is None else self._robot.limits.clip(action)
                self._asked_at = self._robot.steps
            self._driving = True
        return self._action

    def _wanted(self, robot: SimRobot) -> bool:
        passed_s = 0.0 if self._begun_s is None else self.clock.now() - self._begun_s + TOLERANCE_S
        if any(start <= passed_s < end for start, end in self._between_s):
            return True
        return self._after_s is not None and passed_s >= self._after_s and (self._driving or not robot.success())
