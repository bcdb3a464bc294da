"""What rows lack is read as 0, and what nobody gave is said."""

from __future__ import annotations

import pytest
import torch

from menura.policies.common.observed import camera_steps, given_images, state_steps


@pytest.mark.parametrize("n_steps", [1, 3])
def test_states_without_what_a_row_lacks(n_steps):
    state = torch.arange(2.0 * n_steps * 2).reshape(2, n_steps, 2) + 1
    mask = torch.tensor([[True, True], [False, True]])
    given = state[:, 0] if n_steps == 1 else state
    assert torch.equal(state_steps(given, None, 2, "P"), state)
    masked = state_steps(given, mask, 2, "P")
    assert torch.equal(masked[0], state[0])
    assert torch.equal(masked[1, :, 1], state[1, :, 1])
    assert not masked[1, :, 0].any()


def test_features_without_the_cameras_that_a_row_lacks():
    features = torch.arange(2.0 * 3 * 2 * 4).reshape(12, 4) + 1  # 2 rows, 3 steps, 2 cameras
    whole = camera_steps(features, None, 2, 2)
    assert torch.equal(whole, features.reshape(2, 3, 2, 4))
    masked = camera_steps(features, torch.tensor([[True, False], [True, True]]), 2, 2)
    assert not masked[0, :, 1].any()
    assert torch.equal(masked[0, :, 0], whole[0, :, 0])
    assert torch.equal(masked[1], whole[1])


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="P: expected a state of width 2, got none"):
        state_steps(None, None, 2, "P")
    with pytest.raises(ValueError, match=r"P: expected images of \['front'\], got none"):
        given_images(None, ["front"], "P")
