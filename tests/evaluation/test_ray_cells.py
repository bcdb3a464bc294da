"""Episodes on a cluster: the same outcome as here, and a lost machine loses nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.checkpoint import save_checkpoint
from menura.evaluation.evaluate import evaluate
from menura.evaluation.ray_cells import RayCells, in_turn
from menura.evaluation.results import EpisodeResult
from menura.evaluation.runner import open_pool, run_episodes
from menura.evaluation.sequential import until_interval
from menura.evaluation.subjects import RandomActions
from menura.evaluation.suite import evaluate_tasks


def episode(index: int) -> EpisodeResult:
    return EpisodeResult(index, index, True, 0.0, 1, 0.1)


def test_blocks_are_handed_out_so_many_at_a_time_and_come_back_as_they_finish() -> None:
    begun: list[int] = []

    def begin(block: int) -> int:
        begun.append(block)
        return block

    def last_done(running: Sequence[int]) -> tuple[int, list[EpisodeResult]]:
        assert len(running) <= 2
        return running[-1], [episode(2 * running[-1]), episode(2 * running[-1] + 1)]

    found = [result.index for result in in_turn(range(4), begin, last_done, pytest.fail, 2)]
    assert begun == [0, 1, 2, 3]
    assert found == [2, 3, 4, 5, 6, 7, 0, 1]


def test_who_has_seen_enough_cancels_what_is_under_way() -> None:
    cancelled: list[int] = []
    running = in_turn(range(9), lambda block: block, lambda given: (given[0], [episode(given[0])]), cancelled.append, 3)
    assert next(running).index == 0
    running.close()
    assert cancelled == [1, 2]


def test_places_are_spare_when_all_blocks_are_handed_out() -> None:
    told: list[int] = []
    done = in_turn(range(5), lambda b: b, lambda given: (given[0], [episode(given[0])]), pytest.fail, 2, told.append)
    assert len(list(done)) == 5
    assert told == [0, 0, 0, 0, 1]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes, connected to: `(ray, cluster, second node)`."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = made.add_node(num_cpus=1)
    ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
    yield ray, made, second
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_killed_node_loses_nothing_and_the_outcome_is_that_of_one_machine(
    cluster: Any, toy_env: Any, tmp_path: Path
) -> None:
    ray, made, second = cluster
    env = toy_env()
    here = evaluate("random", env, episodes=40, num_envs=2, num_workers=1, videos=0, progress=False)
    cells = RayCells(ray, 2, env, None)
    killed = threading.Event()

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not (tmp_path / "results.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        made.remove_node(second, allow_graceful=False)
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    there = run_episodes(
        RandomActions(),
        cells,
        seeds=range(100_000, 100_040),
        num_envs=2,
        output_dir=tmp_path,
        videos=0,
        progress=False,
    )
    thread.join()
    assert killed.is_set()
    assert there.episodes == here.episodes
    assert there.fingerprint == here.fingerprint
    options: dict[str, Any] = {"seeds": range(40), "num_envs": 2, "stop": until_interval(0.3), "progress": False}
    stopped = run_episodes(RandomActions(), cells, **options)
    with open_pool(env, num_envs=2, num_workers=1) as pool:
        assert stopped.episodes == run_episodes(RandomActions(), pool, **options).episodes
    assert 0 < len(stopped.episodes) < 40


TOGETHER = """
import time
from pathlib import Path
import numpy as np
from menura.envs.base import Outcome, SimEnv
from menura.features import Features, VectorFeature

class Together(SimEnv):
    suites = {"both": ("left", "right")}

    def __init__(self, task="left", met=None):
        self._task, self._met = task, Path(met)
        self.features = Features(state=VectorFeature(("x",)), action=VectorFeature(("dx",)), fps=10)
        self.task, self.max_episode_steps = task, 2
        self.success_rule, self.noisy_actions = "there", np.array([True])
        self.declare_spaces([-1], [1])

    def start(self, seed):
        self._x = float(seed)

    def apply(self, action):
        (self._met / self._task).touch()
        deadline = time.monotonic() + 60
        while len(list(self._met.iterdir())) < 2:
            assert time.monotonic() < deadline, "the other task is not run at the same time"
            time.sleep(0.01)
        self._x += float(action[0])
        return Outcome(0.0, self._x % 1 > 0.5)

    def state(self):
        return np.array([self._x], np.float32)
"""


@pytest.mark.slow
def test_several_tasks_are_run_at_the_same_time(cluster: Any, tmp_path: Path) -> None:
    _, made, _ = cluster
    met = tmp_path / "met"
    met.mkdir()
    (tmp_path / "together.py").write_text(TOGETHER)
    env = {"class": f"{tmp_path / 'together.py'}:Together", "args": {"met": str(met)}}
    options: dict[str, Any] = {"episodes": 2, "num_envs": 2, "videos": 0, "progress": False}
    there = evaluate_tasks("random", env, "both", ray=made.address, output_dir=tmp_path / "out", **options)
    here = evaluate_tasks("random", env, "both", num_workers=1, **options)
    assert {task: found.episodes for task, found in there.items()} == {t: found.episodes for t, found in here.items()}


@pytest.mark.slow
def test_each_worker_loads_the_policy_itself(
    cluster: Any, toy: Any, toy_meta: Any, toy_env: Any, tmp_path: Path
) -> None:
    _, made, _ = cluster
    save_checkpoint(
        tmp_path / "run",
        policy=toy_meta.policy,
        processor=toy_meta.processor,
        features=toy.ToyEnv().features,
        task=None,
        datasets={"demos": "f" * 64},
        seed=1,
        golden={"state": np.zeros((2, 2), np.float32), "images": {}, "task": ["drive to the goal"] * 2},
    )
    options: dict[str, Any] = {"episodes": 6, "num_envs": 2, "exact": True, "videos": 0, "progress": False}
    there = evaluate(tmp_path / "run", toy_env(), ray=made.address, output_dir=tmp_path / "there", **options)
    here = evaluate(tmp_path / "run", toy_env(), num_workers=1, output_dir=tmp_path / "here", **options)
    assert there.episodes == here.episodes
    assert there.policy == here.policy
