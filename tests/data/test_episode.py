"""What an episode accepts, and what it answers to anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from menura.data import Episode
from menura.errors import DataError

ACTION = np.zeros((3, 2))


def test_arrays_become_float32() -> None:
    episode = Episode(state=np.ones((3, 4)), action=ACTION, fps=10)
    assert episode.state.dtype == episode.action.dtype == np.float32
    assert len(episode) == 3


def test_no_state_has_width_zero() -> None:
    assert Episode(state=None, action=ACTION, fps=10).state.shape == (3, 0)  # type: ignore[arg-type]


def test_lists_are_accepted() -> None:
    frames = [np.zeros((4, 5, 3), np.uint8)] * 2
    episode = Episode(state=[[1, 2], [3, 4]], action=[[0], [1]], images={"top": frames}, fps=5)  # type: ignore
    assert episode.state.shape == (2, 2)
    assert episode.images["top"].shape == (2, 4, 5, 3)


def test_timestamps_follow_the_rate() -> None:
    np.testing.assert_allclose(Episode(state=ACTION, action=ACTION, fps=4).timestamps, [0, 0.25, 0.5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": np.zeros(3)}, "Episode.action: expected shape (T, A) with T > 0, got (3,)."),
        ({"action": np.zeros((0, 2))}, "Episode.action: expected shape (T, A) with T > 0, got (0, 2)."),
        ({"action": [["a"]]}, "Episode.action: expected numbers of shape (T, A) with T > 0, got list."),
        ({"state": np.zeros((2, 4))}, "Episode.state: expected shape (3, D) as action has, got (2, 4)."),
        ({"state": np.zeros(3)}, "Episode.state: expected shape (3, D) as action has, got (3,)."),
        ({"fps": 0}, "Episode.fps: expected steps per second > 0, got 0."),
        ({"timestamps": [0.0]}, "Episode.timestamps: expected shape (3,) as action has, got (1,)."),
        (
            {"images": {"top": np.zeros((2, 4, 4, 3), np.uint8)}},
            "Episode.images['top']: expected 3 frames as action has, got 2.",
        ),
        (
            {"images": {"top": np.zeros((3, 3, 4, 4), np.uint8)}},
            "Episode.images['top']: expected shape (T, H, W, 3), got (3, 3, 4, 4).",
        ),
        (
            {"images": {"top": np.zeros((3, 4, 4, 3), np.float32)}},
            "Episode.images['top']: expected uint8 in 0 … 255, got float32. "
            "Multiply by 255 and round if it is in [0, 1].",
        ),
        (
            {"images": {"top": [np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), np.zeros((4, 5, 3))]}},
            "Episode.images['top']: expected frames of one shape (H, W, 3), got [(4, 4, 3), (4, 5, 3)].",
        ),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"state": np.zeros((3, 4)), "action": ACTION, "fps": 10} | changes
    with pytest.raises(DataError) as caught:
        Episode(**arguments)
    assert str(caught.value) == message
