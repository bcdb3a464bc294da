"""A session's history is what an evaluation's is, and no longer than the policy looks back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from menura.serving.engine.errors import RequestRefused
from menura.serving.engine.sessions import ServingSession


class Looking:
    """Looks at these steps relative to now, and draws."""

    def __init__(self, *offsets: int) -> None:
        self.observation_offsets = offsets

    def generator(self, seed: int | None) -> torch.Generator:
        generator = torch.Generator()
        generator.manual_seed(0 if seed is None else seed)
        return generator


def step(number: int, shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"state": np.full(shape, number, np.float32), "images": {"top": np.zeros((2, 2, 3), np.uint8)}}


@given(
    offsets=st.sets(st.integers(-6, 0), min_size=1, max_size=4).map(sorted),
    first=st.integers(0, 5),
    count=st.integers(1, 20),
)
def test_what_is_seen(offsets: list[int], first: int, count: int) -> None:
    session = ServingSession(Looking(*offsets))
    for number in range(count):
        session.observe(step(number), first if first and number == 0 else None)
        if not session.looks_back:
            continue
        views, is_pad = session.views()
        assert [view["state"][0] for view in views] == [max(number + offset, 0) for offset in offsets]
        assert is_pad.tolist() == [number + offset < 0 for offset in offsets]
    assert len(session._history) <= 1 - offsets[0]


def test_nothing_is_kept_of_what_is_not_looked_at() -> None:
    session = ServingSession(Looking(0))
    session.observe(step(0), None)
    assert not session.looks_back
    assert not session._history


def test_a_new_episode_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ServingSession(Looking(-1, 0))
    for number in range(3):
        session.observe(step(number), None)
    drawn = torch.randn(3, generator=session.generator)
    session.begin(4)
    session.observe(step(9, (5,)), None)  # another form, for it is another episode
    views, is_pad = session.views()
    assert [view["state"][0] for view in views] == [9, 9]
    assert is_pad.tolist() == [True, False]
    assert not torch.equal(torch.randn(3, generator=session.generator), drawn)


def test_the_newest_step_may_be_sent_again() -> None:
    """As after an answer that was late."""
    session = ServingSession(Looking(-1, 0))
    for number, timestep in ((0, 0), (1, 1), (2, 1)):
        session.observe(step(number), timestep)
    assert [view["state"][0] for view in session.views()[0]] == [0, 2]


def test_what_does_not_go_on_is_refused() -> None:
    session = ServingSession(Looking(-1, 0))
    session.observe(step(0), 3)
    with pytest.raises(RequestRefused, match="at least 3"):
        session.observe(step(1), 2)
    with pytest.raises(RequestRefused, match=r"form of those before it, images/top .* state \(2,\) float32, got"):
        session.observe(step(1, (3,)), 4)
    session.observe(step(1), 6)
    with pytest.raises(RequestRefused, match=r"observation of step 5, .* in step 6, got those of \[6\]"):
        session.views()
