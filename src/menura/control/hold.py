"""The action that keeps a robot where it is. Torch-free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from menura.features import Features, VectorFeature
from menura.processing.rotations import neutral

Float32 = NDArray[np.float32]


def hold_action(features: Features, last: Float32 | None, state: Float32 | None) -> Float32 | None:
    """(A,) what is sent when nothing is meant for now. None: nothing can be sent that surely moves nothing.

    Absolute actions: the last command, else what the state says of the same joints; speeds (units per second, `rad/s`)
    are 0. Differences: no difference, and grippers as they were. Where features do not say which of the two actions
    are, nothing is sent.

    Args:
        features: what actions and states mean.
        last: (A,) the last command that was sent in this episode; None before any was.
        state: (D,) measured; None where there is none.
    """
    if features.control_type is None:
        return None
    known = measured(features, state)
    if features.control_type == "abs":
        held = known if last is None else last.copy()
        held[speeds(features.action)] = 0
        return None if np.isnan(held).any() else held
    action = neutral(features.action)
    grippers = [features.action.names.index(name) for name in features.action.grippers]
    action[grippers] = (known if last is None else last)[grippers]
    return None if np.isnan(action).any() else action


def speeds(action: VectorFeature) -> list[int]:
    """The dimensions that are speeds: a wheel that is told the same again drives on."""
    return [place for place, unit in enumerate(action.units or ()) if unit.endswith("/s")]


def measured(features: Features, state: Float32 | None) -> Float32:
    """(A,) what the state says of each dimension of the action, as that would say it; NaN where it says nothing.

    It says something of a dimension where it has one of the same name that is the robot's, in the same unit, with the
    same ends of a gripper; of a rotation, in the same representation.
    """
    action = np.full(features.action_dim, np.nan, np.float32)
    if state is not None and features.state is not None:
        for place, own in same_dimensions(features.action, features.state):
            action[place] = state[own]
    return action


def same_dimensions(action: VectorFeature, state: VectorFeature) -> list[tuple[int, int]]:
    """(place in the action, place in the state) of each dimension that means the same in both."""
    rotated = {name for feature in (action, state) for rotation in feature.rotations for name in rotation.names}
    both = {name for rotation in action.rotations if rotation in state.rotations for name in rotation.names}
    found = []
    for place, name in enumerate(action.names):
        if name not in state.names or name in state.object_names or (name in rotated and name not in both):
            continue
        own = state.names.index(name)
        if action.units and state.units and action.units[place] != state.units[own]:
            continue
        if name in action.grippers and state.grippers.get(name, action.grippers[name]) != action.grippers[name]:
            continue
        found.append((place, own))
    return found
