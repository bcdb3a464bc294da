"""A real policy, its checkpoint and its baselines, evaluated by path."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from menura.checkpoint import save_checkpoint
from menura.config.schema import ProcessorConfig
from menura.errors import CheckpointError, ConfigError, ContractError, EnvironmentFailure, FeatureMismatch
from menura.evaluation.evaluate import evaluate
from menura.evaluation.messages import Description
from menura.evaluation.results import Results
from menura.evaluation.robustness import sentence
from menura.evaluation.subjects import RandomActions, ZeroActions
from menura.features import Features, VectorFeature
from menura.meta_policy import MetaPolicy, TemporalEnsemble
from menura.policies.contract import build_policy
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.processing.normalizer import Rows
from menura.processing.processor import Processor
from menura.serving import background
from menura.serving.server import PolicyServer

CONFIG = ProcessorConfig(state="identity")


def rows(width: int) -> Rows:
    ones = np.ones(width)
    return Rows(0 * ones, 0.2 * ones, -ones, ones, -ones, ones)


def parts(features: Features, **settings: Any) -> tuple[MLPPolicy, Processor]:
    torch.manual_seed(0)
    args = {"hidden_size": 32, "chunk_size": 8, "n_action_steps": 4, **settings}
    policy = build_policy(MLPPolicy, args, features)
    statistics = {"demos": {"state": rows(2), "action": rows(1)}}
    return policy, Processor.build(CONFIG, features, statistics, policy.config)


@pytest.fixture
def features(toy: Any) -> Features:
    found: Features = toy.ToyEnv().features
    return found


@pytest.fixture
def meta(features: Features) -> MetaPolicy:
    return MetaPolicy(*parts(features), checkpoint_hash="abc")


OPTIONS: dict[str, Any] = {"episodes": 5, "seed": 100, "num_envs": 4, "progress": False}


@pytest.mark.parametrize("settings", [{}, {"n_obs_steps": 2}])
def test_a_real_policy_does_the_same_in_1_2_and_4_processes(
    features: Features, toy_env: Any, settings: dict[str, Any]
) -> None:
    policy, processor = parts(features, **settings)
    meta = MetaPolicy(policy, processor)
    for options in ({}, {"execution": TemporalEnsemble(0.1)}):
        found = [evaluate(meta, toy_env(), num_workers=n, **options, **OPTIONS) for n in (1, 2, 4)]
        assert found[0].episodes == found[1].episodes == found[2].episodes
        assert found[0].fingerprint == found[1].fingerprint
    assert found[0].protocol["execution"] == {"name": "temporal_ensemble", "coefficient": 0.1}


def test_exact_does_not_even_depend_on_num_envs(meta: MetaPolicy, toy_env: Any) -> None:
    found = [evaluate(meta, toy_env(), exact=True, **{**OPTIONS, "num_envs": n}).episodes for n in (1, 3, 5)]
    assert found[0] == found[1] == found[2]


def test_threads_are_as_before(meta: MetaPolicy, toy_env: Any) -> None:
    before = torch.get_num_threads()
    evaluate(meta, toy_env(), **OPTIONS)
    assert torch.get_num_threads() == before


def test_an_environment_that_means_something_else_is_refused(
    meta: MetaPolicy, features: Features, toy_env: Any
) -> None:
    policy, processor = parts(replace(features, fps=50.0))
    with pytest.raises(FeatureMismatch, match=r"fps: 50\.0 here, 20\.0 there"):
        evaluate(MetaPolicy(policy, processor), toy_env(), **OPTIONS)


def test_fast_and_full_rendering_never_meet(toy: Any, toy_env: Any, features: Features) -> None:
    trained = toy.ToyEnv(cameras=True).features
    policy, processor = parts(trained)
    with pytest.raises(FeatureMismatch, match="render mode of camera 'front': fast here, full there"):
        evaluate(MetaPolicy(policy, processor), toy_env(cameras=True, render="full"), **OPTIONS)


def test_random_actions_are_a_baseline_of_their_own(toy_env: Any) -> None:
    first, second = (evaluate(RandomActions(), toy_env(), num_workers=n, **OPTIONS) for n in (1, 3))
    assert first.episodes == second.episodes
    assert first.policy == {"name": "random", "hash": "uniform"}
    with pytest.raises(ContractError, match="finite bounds"):
        evaluate(RandomActions(), toy_env(bounded=False), **OPTIONS)


def test_an_environment_is_audited_by_a_word(toy_env: Any, tmp_path: Path) -> None:
    assert evaluate("random", toy_env(), **OPTIONS).episodes == evaluate(RandomActions(), toy_env(), **OPTIONS).episodes
    nothing = evaluate("zero", toy_env(), output_dir=tmp_path, **OPTIONS)
    assert nothing.policy == {"name": "zero", "hash": "nearest to 0"}
    unbounded = evaluate("zero", toy_env(bounded=False), **OPTIONS)
    assert [episode.return_ for episode in unbounded.episodes] == [episode.return_ for episode in nothing.episodes]
    assert (tmp_path / "report.html").is_file()


def test_zero_is_the_nearest_that_the_environment_allows() -> None:
    features = Features(VectorFeature.of_width(1, "s"), VectorFeature.of_width(3, "a"), {}, fps=10.0)
    values: dict[str, Any] = {field.name: None for field in fields(Description)}
    bounds = {"action_low": [-1.0, 0.2, -3.0], "action_high": [1.0, 0.8, -2.0]}
    described = Description(**{**values, **bounds, "features": features.to_dict(), "max_episode_steps": 2})
    assert ZeroActions().actions(described, seed=0).tolist() == [pytest.approx([0.0, 0.2, -2.0])] * 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("randm", "no directory randm; did you mean random?"),
        ("replay:data/reach", "`menura replay data/reach -e ENV`"),
        ("./random", "no directory random"),
    ],
)
def test_a_word_that_is_none_is_told(model: str, message: str, toy_env: Any) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        evaluate(model, toy_env(), **OPTIONS)


def test_random_actions_need_no_torch(toy_env: Any) -> None:
    code = (
        "import sys, menura.evaluation.evaluate as e\n"
        f"e.evaluate('random', {toy_env()!r}, episodes=1, num_workers=1, progress=False)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.fixture
def run(tmp_path: Path, features: Features, toy_env: Any) -> Path:
    """A run and the blind run beside it, each with a `run.yaml`."""
    env = toy_env()
    lines = [
        f"project: {tmp_path}",
        f"env: {json.dumps(env)}",
        "policy: {class: MLPPolicy, args: {}}",
        "evaluation: {episodes: 4, seed: 7, num_envs: 2}",
    ]
    policy, processor = parts(features)
    golden = {"state": np.zeros((2, 2), np.float32), "images": {}, "task": ["drive to the goal"] * 2}
    for name in ("toy", "toy-blind"):
        save_checkpoint(
            tmp_path / name,
            policy=policy,
            processor=processor,
            features=features,
            task=None,
            datasets={"demos": "f" * 64},
            seed=1,
            golden=golden,
        )
        (tmp_path / name / "run.yaml").write_text("\n".join(lines))
    return tmp_path / "toy"


def test_a_run_is_evaluated_by_its_path_with_its_baselines(run: Path) -> None:
    results = evaluate(str(run), baselines=True, progress=False)
    assert [episode.seed for episode in results.episodes] == [7, 8, 9, 10]
    assert results.policy["name"] == "MLPPolicy"
    assert len(str(results.policy["hash"])) == 64
    assert set(results.baselines) == {"random", "blind"}
    assert all(baseline.fingerprint == results.fingerprint for baseline in results.baselines.values())
    assert results.baselines["blind"].episodes == tuple(replace(e, video=None) for e in results.episodes)

    assert Results.load(run / "evaluation") == results
    assert "menura eval -m" in (run / "evaluation" / "report.html").read_text()
    assert len(list((run / "evaluation" / "videos").iterdir())) == 4
    MetaPolicy.from_pretrained(run)  # what was written beside it does not disturb the checkpoint

    again = evaluate(run, resume=True, episodes=4, progress=False)
    assert again.episodes == results.episodes


def test_settings_and_environment_can_be_given(run: Path, toy_env: Any, tmp_path: Path) -> None:
    overridden = evaluate(
        run, overrides=["env.args.max_episode_steps=9"], episodes=2, videos=0, output_dir=tmp_path / "o", progress=False
    )
    assert overridden.protocol["environment"]["max_episode_steps"] == 9
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"results.json", "report.html"}
    (tmp_path / "env.yaml").write_text(json.dumps(toy_env()))
    words = ["--env.args.max_episode_steps", "3", "--evaluation.num_envs", "3"]  # a value of both
    named = evaluate(run, tmp_path / "env.yaml", overrides=words, episodes=3, videos=0, progress=False)
    assert (named.protocol["environment"]["max_episode_steps"], named.run["num_envs"]) == (3, 3)
    with pytest.raises(CheckpointError, match="got no directory"):
        evaluate(run.with_name("tyo"), progress=False)
    with pytest.raises(ConfigError, match="by its name or YAML"):
        evaluate(run, toy_env(), overrides=["env.args.max_episode_steps=9"], progress=False)
    (run / "run.yaml").unlink()
    with pytest.raises(ConfigError, match="expected an environment"):
        evaluate(run, progress=False)
    with pytest.raises(ConfigError, match="expected a run whose task it overrides"):
        evaluate(run, toy_env(), overrides=["evaluation.exact=true"], progress=False)


def test_overrides_are_of_the_environment_that_is_named(toy_env: Any, tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text(json.dumps(toy_env()))
    words = ["--env.args.max_episode_steps", "9"]
    options: dict[str, Any] = {"episodes": 2, "num_workers": 1, "videos": 0, "progress": False}
    results = evaluate("random", tmp_path / "env.yaml", overrides=words, output_dir=tmp_path / "out", **options)
    assert results.protocol["environment"]["max_episode_steps"] == 9
    assert f"{words[0]}=9" in (tmp_path / "out" / "report.html").read_text()  # how to repeat it
    with pytest.raises(ConfigError, match=r"evaluation.exact.*expected a run whose task it overrides"):
        evaluate("random", tmp_path / "env.yaml", overrides=[*words, "--evaluation.exact=true"], progress=False)


def test_an_earlier_evaluation_is_kept_and_not_replaced(toy_env: Any, tmp_path: Path) -> None:
    first, second = (
        evaluate("random", toy_env(), episodes=2, seed=seed, output_dir=tmp_path, num_workers=1, progress=False)
        for seed in (5, 50)
    )
    assert Results.load(tmp_path).episodes == second.episodes
    assert Results.load(tmp_path / "earlier-1").episodes == first.episodes
    assert (tmp_path / "earlier-1" / "report.html").exists()


def test_a_perturbed_arm_runs_on_the_same_seeds(toy: Any, toy_env: Any, tmp_path: Path) -> None:
    given = {"output_dir": tmp_path, "num_workers": 1, "episodes": 8, "progress": False}
    results = evaluate("random", toy_env(), perturb=["latency=2"], **given)
    arm = results.perturbed["latency=2"]
    assert [episode.seed for episode in arm.episodes] == [episode.seed for episode in results.episodes]
    assert [e.return_ for e in arm.episodes] != [e.return_ for e in results.episodes]
    assert arm.protocol["environment"]["perturbation"] == {"latency": 2}
    assert Results.load(tmp_path) == results
    assert "latency=2: the success rate changes by" in sentence(results, "latency=2")
    again = evaluate("random", toy_env(), perturb=["latency=2"], resume=True, **given)
    assert again.perturbed["latency=2"].episodes == arm.episodes
    with pytest.raises(ConfigError, match="expected what random can notice, got noise"):
        evaluate("random", toy_env(cameras=True), perturb=["noise=0.1"], **given)
    with pytest.raises(EnvironmentFailure, match="ToyEnv: expected a perturbation it can do"):
        evaluate("random", toy_env(), perturb=["start_spread=1"], **{**given, "output_dir": None})


@contextmanager
def serving(meta: MetaPolicy) -> Iterator[str]:
    """The address of a server of `meta`."""
    with background.serving(PolicyServer(meta, port=0)) as server:
        yield server.address


@pytest.mark.parametrize("settings", [{}, {"n_obs_steps": 2}])
def test_a_served_policy_does_what_it_does_here(features: Features, toy_env: Any, settings: dict[str, Any]) -> None:
    meta = MetaPolicy(*parts(features, **settings), checkpoint_hash="abc")
    here = evaluate(meta, toy_env(), exact=True, **OPTIONS)
    with serving(meta) as address:
        there = evaluate(address, toy_env(), exact=True, **OPTIONS)
    assert there.episodes == here.episodes
    assert there.policy == {"name": f"policy at {address}", "hash": "abc"}
    assert there.fingerprint == here.fingerprint


class Timed(MLPPolicy):
    """Answers the step of the episode, and looks at one of the two cameras."""

    def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
        chunk = (self.config.chunk_size, self.config.action_dim)
        brightness = obs_dict["image"].flatten(1).mean(1)
        return (obs_dict["timestep"] % 7 / 7 + brightness)[:, None, None].expand(-1, *chunk)


def test_a_served_policy_is_shown_what_it_looks_at_and_the_step(toy: Any, toy_env: Any, tmp_path: Path) -> None:
    features = toy.ToyEnv(cameras=True).features
    policy = build_policy(Timed, {"chunk_size": 8, "n_action_steps": 4, "n_obs_steps": 2}, features)
    policy.config.camera_names, policy.config.observation_offsets = ["front"], [-3, 0]
    statistics = {"demos": {"state": rows(2), "action": rows(1)}}
    processor = Processor.build(CONFIG, features, statistics, policy.config, uses=("image", "state"))
    meta = MetaPolicy(policy, processor)
    env = toy_env(cameras=True, log=str(tmp_path / "drawn"))
    with serving(meta) as address:
        there = evaluate(address, env, exact=True, **{**OPTIONS, "num_workers": 1})
    drawn = [line.split() for line in (tmp_path / "drawn").read_text().splitlines()]
    assert {camera for camera, _, step in drawn if step != "0"} == {"front"}  # a reset draws them all
    assert there.episodes == evaluate(meta, env, exact=True, **OPTIONS).episodes
