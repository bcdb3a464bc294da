"""Padded steps of a chunk are read as the nearest that is none."""

from __future__ import annotations

import torch

from menura.policies.common.padding import repeat_nearest


def test_padding_is_the_nearest_step_that_is_none():
    actions = torch.arange(10.0).reshape(2, 5, 1)
    is_pad = torch.tensor([[0, 0, 0, 1, 1], [1, 0, 0, 0, 1]], dtype=torch.bool)
    nearest = repeat_nearest(actions, is_pad)[..., 0]
    assert nearest.tolist() == [[0, 1, 2, 2, 2], [6, 6, 7, 8, 8]]


def test_a_chunk_without_padding_or_of_nothing_else_stays():
    actions = torch.arange(10.0).reshape(2, 5, 1)
    assert repeat_nearest(actions, None) is actions
    for padded in (False, True):
        assert torch.equal(repeat_nearest(actions, torch.full((2, 5), padded)), actions)
