"""Faults of evaluation that imitation-learning frameworks have had, and ours must not."""

from __future__ import annotations

import json
from pathlib import Path

import menura

OPTIONS = {"progress": False, "videos": 0}
COUNTED = r"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from reach_env import ReachEnv


class CountedEnv(ReachEnv):
    def __init__(self):
        with open(Path(__file__).parent / "made", "a") as file:
            file.write("made ")
        self.over = True

    def reset(self, *, seed=None, options=None):
        self.over = False
        return super().reset(seed=seed)

    def step(self, action):
        assert not self.over, "stepped after its end"
        result = super().step(action)
        self.over = result[2]
        return result
"""


def trained(steps: int = 2) -> Path:
    return menura.train("reach", output_dir="out", overrides=[f"--training.max_steps={steps}"]).directory


def test_no_rollout_is_left_out_and_none_is_counted_twice(project: Path) -> None:
    """Silent wrong results 21: 5 episodes in 2 environments gave 4, 1 in 2 a division by zero."""
    run = trained()
    for episodes, num_envs in ((5, 2), (1, 2), (17, 8)):
        results = menura.evaluate(run, episodes=episodes, num_envs=num_envs, **OPTIONS)
        assert [episode.index for episode in results.episodes] == list(range(episodes))


def test_no_success_is_zero_and_not_nan(project: Path) -> None:
    """Silent wrong results 21: NaN in the JSON of a policy that never succeeds."""
    env = project / "env" / "reach_env.py"
    env.write_text(env.read_text().replace("< 0.05)", "< -1)"))
    results = menura.evaluate(trained(), episodes=3, output_dir="eval", **OPTIONS)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    written = json.loads((project / "eval" / "results.json").read_text(), parse_constant=refuse)
    assert written["success_rate"] == results.success_rate == 0
    assert written["interval"][0] == 0
    assert 0 < written["interval"][1] < 1


def test_the_same_seeds_give_the_same_episodes_and_others_do_not(project: Path) -> None:
    """Silent wrong results 21: seeds of the process's number and the clock."""
    env = project / "env" / "reach_env.py"
    env.write_text(env.read_text().replace("float(success)", "float(-np.abs(self.position - self.goal).max())"))
    run = trained()
    first, again, other = (menura.evaluate(run, episodes=4, seed=seed, **OPTIONS) for seed in (3, 3, 90))
    assert first.episodes == again.episodes
    assert [e.return_ for e in first.episodes] != [e.return_ for e in other.episodes]
    assert first.protocol["seeds"]["first"] == 3


def test_environments_are_made_once_and_not_stepped_after_their_end(project: Path) -> None:
    """Performance, Silent wrong results 21: processes and renderers rebuilt for each batch; environments stepped on."""
    (project / "env" / "counted_env.py").write_text(COUNTED.replace("\\\\n", "\\n"))
    results = menura.evaluate(trained(200), {"class": "CountedEnv"}, episodes=12, num_envs=2, num_workers=1, **OPTIONS)
    assert results.complete
    assert (project / "env" / "made").read_text().count("made") == 2


def test_settings_on_the_command_line_are_those_of_the_evaluation(project: Path) -> None:
    """Silent wrong results 21: a chunk size and a device that the checkpoint's config writes over."""
    run = trained()
    whole = menura.evaluate(run, episodes=3, **OPTIONS)
    ensembled = menura.evaluate(run, episodes=3, overrides=["--evaluation.execution=temporal_ensemble"], **OPTIONS)
    assert ensembled.protocol["execution"]["name"] == "temporal_ensemble"
    assert whole.fingerprint != ensembled.fingerprint
