"""Chunks and features that controllers are tested with."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from menura.chunks import ActionChunk
from menura.features import Features, Rotation, VectorFeature

Chunk = Callable[..., ActionChunk]


@pytest.fixture
def joints() -> Features:
    """One joint, absolute, at 10 Hz."""
    return Features(None, VectorFeature(("joint",)), fps=10.0, control_type="abs")


@pytest.fixture
def pose() -> Features:
    """A position, a quaternion w, x, y, z and a gripper, at 10 Hz."""
    names = ("x", "qw", "qx", "qy", "qz", "gripper")
    action = VectorFeature(names, rotations=(Rotation(names[1:5], "quat_wxyz"),), grippers={"gripper": (0.0, 1.0)})
    return Features(None, action, fps=10.0, control_type="abs")


@pytest.fixture
def chunk() -> Chunk:
    """A chunk at 10 Hz of rows, or of single numbers."""

    def make(values: Sequence[float] | Sequence[Sequence[float]], start_s: float = 0.0, number: int = 0) -> ActionChunk:
        actions = np.array(values, np.float32)
        return ActionChunk(actions[:, None] if actions.ndim == 1 else actions, start_s, 0.1, number)

    return make
