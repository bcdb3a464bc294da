"""The limits of a robot as Safety applies them: by dimension, and checked against what actions mean. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.control.hold import same_dimensions
from menura.errors import ContractError
from menura.features import Features
from menura.robots.base import Limits, RobotError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Rotations whose numbers have no range of their own.
_WITHOUT_RANGE = ("quat_wxyz", "quat_xyzw", "6d", "matrix")


class Bounds:
    """Range, steps and, of absolute actions, the workspace; each (A,), infinite where nothing is bounded.

    Attributes:
        low, high: the range; rotations whose numbers have none are left out.
        box_low, box_high: the workspace, as far as it bounds commands.

    Raises:
        ContractError: limits that cannot be kept.
    """

    def __init__(self, features: Features, limits: Limits) -> None:
        action = features.action
        if limits.low.shape != (action.dim,):
            raise ContractError(
                f"limits: expected {action.dim} numbers, one for each of the action, got {len(limits.low)}."
            )
        self.names = action.names
        self.low, self.high = limits.low.astype(np.float64), limits.high.astype(np.float64)
        for rotation in action.rotations:
            if rotation.representation in _WITHOUT_RANGE:
                places = [action.names.index(name) for name in rotation.names]
                self.low[places], self.high[places] = -np.inf, np.inf
        self.box_low, self.box_high = np.full(action.dim, -np.inf), np.full(action.dim, np.inf)
        if features.control_type == "delta":
            self._require_rest(features)
        else:
            self._set_box(features, limits)
        biggest = np.finfo(np.float32).max  # an infinite velocity times no time is no number
        self._velocity = None if limits.velocity is None else np.minimum(limits.velocity.astype(np.float64), biggest)
        self._step = np.full(action.dim, np.inf) if limits.step is None else limits.step.astype(np.float64)

    def steps(self, seconds: float) -> Float64:
        """(A,) by how much a command may differ from one so long before."""
        return self._step if self._velocity is None else np.minimum(self._step, self._velocity * seconds)

    def clip(self, action: NDArray[np.floating[Any]]) -> Float32:
        """(A,) the nearest in the range and in the workspace; NaN stays."""
        inside = np.clip(action, np.maximum(self.low, self.box_low), np.minimum(self.high, self.box_high))
        clipped: Float32 = inside.astype(np.float32)
        return clipped

    def contains(self, action: Float32) -> bool:
        """Whether an action (A,) lies in the range and in the workspace."""
        return bool((self.clip(action) == action).all())

    def start(self, measured: Float32, seconds: float) -> Float32:
        """(A,) what was measured, NaN where nothing was -> the nearest within the bounds.

        Raises:
            RobotError: that is further than a step of so many seconds.
        """
        within = self.clip(measured)
        outside = np.abs(measured - within) > self.steps(seconds)
        if outside.any():
            place = int(outside.argmax())
            raise RobotError(
                f"{self.names[place]}: expected the robot to stand within its limits before it is driven, got "
                f"{measured[place]:g}, with {within[place]:g} the nearest allowed. Move it there, or correct limits."
            )
        return within

    def _require_rest(self, features: Features) -> None:
        """Differences: no motion must be allowed."""
        for place, name in enumerate(self.names):
            if name not in features.action.grippers and not self.low[place] <= 0 <= self.high[place]:
                raise ContractError(
                    f"limits of {name}: expected a range that holds 0, as it is a difference and 0 is to stay, got "
                    f"{self.low[place]:g} to {self.high[place]:g}."
                )

    def _set_box(self, features: Features, limits: Limits) -> None:
        rotated = {name for rotation in features.action.rotations for name in rotation.names}
        for name, (lowest, highest) in (limits.workspace or {}).items():
            place = self.names.index(name)
            if name in rotated or lowest > self.high[place] or highest < self.low[place]:
                raise ContractError(
                    f"limits.workspace.{name}: expected a position, some of whose range, {self.low[place]:g} to "
                    f"{self.high[place]:g}, is in the box, got {lowest:g} to {highest:g}."
                )
            self.box_low[place], self.box_high[place] = lowest, highest


def unbounded(features: Features, limits: Limits) -> Iterator[str]:
    """What limits leave open, one sentence each."""
    action = features.action
    for rotation in action.rotations:
        if rotation.representation in _WITHOUT_RANGE:
            yield (
                f"The rotation {', '.join(rotation.names)} has no range ({rotation.representation}): only how fast it "
                "turns is bounded."
            )
    if limits.velocity is None and limits.step is None:
        yield "Limits name no velocity and no step: a command may lead anywhere in the range at once, at the start too."
    elif features.control_type == "abs":
        known = {place for place, _ in same_dimensions(action, features.state)} if features.state else set()
        if unknown := [name for place, name in enumerate(action.names) if place not in known]:
            yield f"The state does not tell {', '.join(unknown)}: the first command may be anywhere in its range."
    if features.control_type == "delta" and not limits.workspace:
        yield "Actions are differences and limits have no workspace: where they lead in the end is not bounded."
