from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from menura.evaluation.messages import Begin, Conduct, Execute
from menura.evaluation.pool import WorkerPool

WIDE = """
import numpy as np
from menura.envs.base import Outcome, SimEnv
from menura.features import CameraFeature, Features, VectorFeature


class WideEnv(SimEnv):
    '''Its one picture is larger than what the system keeps for a process that does not read.'''

    task, max_episode_steps, success_rule = "look", 10**9, "never"
    noisy_actions = np.array([True])

    def __init__(self):
        self.features = Features(None, VectorFeature(("step",)), {"wall": CameraFeature(1000, 1000)}, fps=10)
        self.declare_spaces([-1], [1])

    def start(self, seed):
        self._taken = 0

    def apply(self, action):
        self._taken += 1
        return Outcome(0.0, False)

    def state(self):
        return np.zeros(0, np.float32)

    def image(self, camera):
        return np.full((1000, 1000, 3), self._taken % 256, np.uint8)
"""


def test_a_long_plan_and_a_large_picture_can_be_under_way_at_once(tmp_path: Path) -> None:
    """Each side would otherwise wait for the other to read."""
    (tmp_path / "wide.py").write_text(WIDE)
    long = Execute(np.zeros((300_000, 1), np.float32))
    with WorkerPool({"class": f"{tmp_path / 'wide.py'}:WideEnv", "args": {}}, 1) as pool:
        pool.conduct(Conduct(cameras=("wall",), one_plan=False, stop_at_success=True, videos=None, video_fps=10))
        begun = {slot: Begin(slot, seed=slot, video=False) for slot in (0, 1)}
        for slot, job in begun.items():
            pool.send({slot: job})
        for slot, job in begun.items():
            pool.receive({slot: job})
        short = Execute(np.zeros((1, 1), np.float32))
        pool.send({0: short})
        pool.send({1: long})
        pool.send({0: short})
        after = [pool.receive(jobs) for jobs in ({0: short}, {1: long}, {0: short})]
    shown = [int(next(iter(replies.values()))["images"]["wall"][0, 0, 0]) for replies in after]
    assert [list(replies) for replies in after] == [[0], [1], [0]]
    assert shown == [1, 300_000 % 256, 2]


LOGGED = """
from pathlib import Path


class LoggedEnv(WideEnv):
    def __init__(self, log):
        super().__init__()
        self._log = Path(log)
        self._tell("made")

    def close(self):
        self._tell("closed")

    def _tell(self, word):
        with self._log.open("a") as log:
            log.write(word + "\\n")
"""


def test_the_first_environment_is_made_unasked_and_no_other_before_it_is_needed(tmp_path: Path) -> None:
    """A simulator is imported while the policy is loaded."""
    (tmp_path / "logged.py").write_text(WIDE + LOGGED)
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    first, second = ({"class": f"{tmp_path / 'logged.py'}:LoggedEnv", "args": {"log": str(log)}} for log in logs)

    def told(log: Path, words: list[str]) -> bool:
        deadline_s = time.monotonic() + 60
        while (found := log.read_text().split() if log.exists() else []) != words and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return found == words

    with WorkerPool(first, 1) as pool:
        assert told(logs[0], ["made"])
        pool.describe()
        assert told(logs[0], ["made"])
        pool.conduct(Conduct(cameras=(), one_plan=False, stop_at_success=True, videos=None, video_fps=10))
        begun = {slot: Begin(slot, seed=slot, video=False) for slot in (0, 1)}
        pool.send(begun)
        pool.receive(begun)
        assert told(logs[0], ["made", "made"])
        pool.change(second)
        assert told(logs[1], ["made"])
        assert told(logs[0], ["made", "made", "closed", "closed"])
        pool.change(first)
        assert told(logs[1], ["made", "closed"])
