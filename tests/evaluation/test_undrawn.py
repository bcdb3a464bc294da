"""An environment that cannot be drawn is evaluated all the same, without videos and saying so."""

from __future__ import annotations

from pathlib import Path

import pytest

from menura.errors import EnvironmentFailure
from menura.evaluation.evaluate import evaluate
from menura.evaluation.results import Results
from menura.evaluation.subjects import RandomActions

ENV = """
import gymnasium
import numpy as np


class Dark(gymnasium.Env):
    metadata = {"render_fps": 10}
    max_episode_steps = 5
    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-1, 1, (2,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"state": np.zeros(2, np.float32)}, {}

    def step(self, action):
        return {"state": np.zeros(2, np.float32)}, 0.0, False, False, {"success": True}
"""
REASON = "Dark.render(): expected a picture for the video, got a class without render()."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "dark.py").write_text(ENV)
    return tmp_path


def test_by_default_it_goes_on_without_videos(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = evaluate(
        RandomActions(), {"class": "Dark"}, episodes=2, output_dir=project / "out", project=project, num_workers=1
    )
    assert results.successes == 2
    assert [episode.video for episode in results.episodes] == [None, None]
    assert f"No videos are taken. {REASON}" in capsys.readouterr().out


def test_videos_asked_for_are_an_error_that_costs_no_earlier_results(project: Path) -> None:
    given = {"env": {"class": "Dark"}, "output_dir": project / "out", "project": project, "num_workers": 1}
    earlier = evaluate(RandomActions(), episodes=2, videos=0, **given)
    with pytest.raises(EnvironmentFailure) as error:
        evaluate(RandomActions(), episodes=3, videos=1, **given)
    assert str(error.value).startswith(f"videos: {REASON}")
    assert Results.load(project / "out").episodes == earlier.episodes
