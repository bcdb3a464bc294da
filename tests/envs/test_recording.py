"""What an expert answers is looked at before it is executed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from menura.envs.recording import record
from menura.errors import EnvironmentFailure


class Expert:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def reset(self, env: Any) -> None:
        pass

    def act(self, observation: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "got"), [(np.zeros(7), "shape (7,)"), (np.zeros((1, 2)), "shape (1, 2)"), ([np.nan, 0.5], "[nan, 0.5]")]
)
def test_a_wrong_action_is_named_with_who_gave_it(point_env: Any, answer: Any, got: str) -> None:
    env = point_env
    assert env.features.action_dim == 2
    message = f"Expert.act at step 0: expected 2 finite numbers, got {got}."
    with pytest.raises(EnvironmentFailure, match=re.escape(message)):
        record(env, Expert(answer), seed=0)
