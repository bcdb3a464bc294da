"""MetaPolicy and sessions: raw observations in, physical actions out, one row apart from the other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from menura.blending import blended
from menura.chunks import PreviousChunk
from menura.config.schema import ProcessorConfig
from menura.errors import CheckpointError, ContractError, FeatureMismatch, MenuraError
from menura.features import CameraFeature, Features, Rotation, VectorFeature
from menura.meta_policy import MetaPolicy, OpenLoop, TemporalEnsemble
from menura.processing.normalizer import Rows
from menura.processing.processor import Processor

FEATURES = Features(VectorFeature(("x", "y")), VectorFeature(("dx", "dy")), fps=10.0)


class TinyConfig(PretrainedConfig):
    def __init__(self, chunk_size: int | None = 6, n_action_steps: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps


class Tiny(PreTrainedModel):
    """A random net from the states to a chunk; notes what it was asked."""

    config_class = TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.net = nn.LazyLinear((config.chunk_size or 1) * 2)
        self.asked: list[dict[str, Any]] = []

    def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.asked.append(dict(obs_dict))
        answer = self.net(obs_dict["state"].flatten(1)).sin()
        return answer if self.config.chunk_size is None else answer.reshape(len(answer), -1, 2)


def rows_of(width: int) -> Rows:
    one = np.ones(width)
    return Rows(one * 0.5, one * 2, one * -3, one * 5, one * -2, one * 4)


def meta(policy: type[PreTrainedModel] = Tiny, datasets: tuple[str, ...] = ("demos",), **config: Any) -> MetaPolicy:
    torch.manual_seed(0)
    model = policy(policy.config_class(**config))
    section = ProcessorConfig()
    statistics = {name: {"state": rows_of(2), "action": rows_of(2)} for name in datasets}
    processor = Processor.build(section, FEATURES, statistics, model.config, uses=("state",))
    made = MetaPolicy(model, processor, dataset=datasets[0])
    shape = (1, 2) if made.n_obs_steps == 1 else (1, made.n_obs_steps, 2)
    made.predict({"state": np.zeros(shape)})  # the lazy layer takes its shape
    getattr(made.policy, "asked", []).clear()
    return made


def states(step: int, rows: int = 3) -> dict[str, Any]:
    return {"state": np.random.default_rng(step).normal(size=(rows, 2)).astype(np.float32)}


class Broken(Tiny):
    """Fails on batches."""

    def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
        return super().select_action(obs_dict) / (1 if len(obs_dict["state"]) == 1 else 1 // 0)


class Noisy(Tiny):
    """Answers its noise, too."""

    noise_shape = (6, 2)

    def select_action(self, obs_dict: dict[str, Any], noise: torch.Tensor | None = None) -> torch.Tensor:
        answer = super().select_action(obs_dict)
        return answer if noise is None else answer + noise


class TestPredict:
    def test_is_the_policy_between_the_normalizers(self) -> None:
        policy, obs = meta(), states(0)
        got = policy.predict(obs)
        with torch.inference_mode():
            normalized = policy.policy.select_action({"state": torch.from_numpy((obs["state"] - 0.5) / 2)})
        assert got.shape == (3, 6, 2)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, normalized.numpy() * 2 + 0.5, rtol=1e-5)

    def test_one_action_is_a_chunk_of_one(self) -> None:
        policy = meta(chunk_size=None)
        assert policy.predict(states(0)).shape == (3, 1, 2)
        assert policy.session(3).select_action(states(0)).shape == (3, 2)
        assert policy.chunk_size is None
        assert policy.n_action_steps == 1

    def test_facts(self) -> None:
        policy = meta(n_action_steps=4, n_obs_steps=2)
        assert (policy.chunk_size, policy.n_action_steps, policy.n_obs_steps) == (6, 4, 2)
        assert policy.features is FEATURES
        assert policy.checkpoint_hash is None
        assert meta().n_action_steps == 6

    def test_answers_in_evaluation_mode(self) -> None:
        policy = meta()
        policy.policy.train()
        policy.predict(states(0))
        assert not policy.policy.training

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (lambda rows: torch.zeros(rows, 6, 3), r"expected shape \(3, 2\) or \(3, 6, 2\), got \(3, 6, 3\)"),
            (lambda rows: torch.zeros(rows + 1, 6, 2), r"got \(4, 6, 2\)"),
            (lambda rows: torch.zeros(rows), r"got \(3,\)"),
            (lambda rows: torch.zeros(rows, 2, 2), r"got \(3, 2, 2\)"),
            (lambda rows: np.zeros((rows, 2)), "expected a tensor of actions, got ndarray"),
            (lambda rows: torch.full((rows, 2), torch.nan), "expected finite actions, got NaN or infinity in row 0"),
            (lambda rows: torch.tensor([[0.0, 0], [0, 0], [torch.inf, 0]]), "row 2"),
        ],
    )
    def test_a_wrong_answer_is_named(self, answer: Any, message: str) -> None:
        class Wrong(Tiny):
            def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
                super().select_action(obs_dict)
                return answer(len(obs_dict["state"])) if len(obs_dict["state"]) == 3 else torch.zeros(1, 2)

        with pytest.raises(ContractError, match="Wrong.select_action: .*" + message):
            meta(Wrong).predict(states(0))

    def test_a_wrong_observation_is_named(self) -> None:
        with pytest.raises(FeatureMismatch, match="state: expected shape"):
            meta().predict({"state": np.zeros((3, 5))})
        with pytest.raises(FeatureMismatch, match="got 'x' not finite"):
            meta().predict({"state": np.full((3, 2), np.nan)})

    def test_several_datasets_must_be_told_apart(self) -> None:
        policy = meta(datasets=("one", "two"))
        with pytest.raises(FeatureMismatch, match=r"expected one of \['one', 'two'\], .* got none"):
            MetaPolicy(policy.policy, policy.processor)
        with pytest.raises(FeatureMismatch, match="did you mean two"):
            MetaPolicy(policy.policy, policy.processor, dataset="tow")
        second = MetaPolicy(policy.policy, policy.processor, dataset="two")
        second.predict(states(0))
        assert second.policy.asked[-1]["dataset_id"].tolist() == [1, 1, 1]

    def test_an_error_in_the_policys_own_code_is_told_with_its_line(self) -> None:
        with pytest.raises(ContractError, match=r"^tests/test_meta_policy.py:\d+: ZeroDivisionError: ") as caught:
            meta(Broken).predict(states(0))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize(
        ("noise", "message"),
        [
            (np.zeros((3, 4, 2)), r"expected noise of shape \(3, 6, 2\), got \(3, 4, 2\)"),
            (torch.zeros(1, 6, 2), r"expected noise of shape \(3, 6, 2\), got \(1, 6, 2\)"),
            ([0.0], "expected noise as a tensor or an array, got list"),
        ],
    )
    def test_noise_of_another_shape_is_refused(self, noise: Any, message: str) -> None:
        with pytest.raises(ContractError, match=message):
            meta(Noisy).predict(states(0), noise=noise)

    def test_noise_may_be_an_array(self) -> None:
        noise = np.random.default_rng(0).normal(size=(3, 6, 2))
        policy = meta(Noisy)
        np.testing.assert_array_equal(
            policy.predict(states(0), noise=noise), policy.predict(states(0), noise=torch.from_numpy(noise))
        )

    def test_noise_needs_a_policy_that_takes_it(self) -> None:
        with pytest.raises(ContractError, match="expected no noise"):
            meta().predict(states(0), noise=torch.zeros(3, 6, 2))


class TestOpenLoop:
    def test_executes_the_first_actions_of_each_chunk(self) -> None:
        policy = meta(n_action_steps=4)
        session = policy.session(3)
        for step in range(9):
            assert session.needs_observation().all() == (step % 4 == 0)
            action = session.select_action(states(step))
            np.testing.assert_array_equal(action, policy.predict(states(step - step % 4))[:, step % 4])

    def test_queued_actions_need_no_observation(self) -> None:
        session = meta(n_action_steps=2).session(2)
        session.select_action(states(0, 2))
        assert session.select_action(None).shape == (2, 2)
        with pytest.raises(ContractError, match="expected an observation, got None"):
            session.select_action(None)

    def test_plan_gives_a_workers_actions_at_once(self) -> None:
        policy = meta(n_action_steps=4)
        session = policy.session(3)
        plans = session.plan(states(0), rows=[0, 1, 2])
        assert [plan.shape for plan in plans] == [(4, 2)] * 3
        np.testing.assert_array_equal(np.stack(plans), policy.predict(states(0))[:, :4])
        assert session.needs_observation().all()
        one = session.plan(states(1, 1), rows=[2])
        np.testing.assert_array_equal(one[0], policy.predict(states(1, 1))[0, :4])

    def test_plan_and_select_action_execute_the_same(self) -> None:
        for config in (
            {"n_action_steps": 4},
            {"n_action_steps": 3, "n_obs_steps": 2},
            {"observation_offsets": (-5, 0)},
        ):
            policy = meta(**config)
            stepping, planning = policy.session(1), policy.session(1)
            planned: list[np.ndarray] = []
            for step in range(20):
                if step == len(planned):
                    planned += list(planning.plan(states(step, 1))[0])
                np.testing.assert_array_equal(stepping.select_action(states(step, 1))[0], planned[step])

    def test_fewer_steps_can_be_asked_for(self) -> None:
        assert len(meta().session(execution=OpenLoop(2)).plan(states(0, 1))[0]) == 2
        with pytest.raises(ContractError, match="expected 1 to chunk_size = 6, got 7"):
            meta().session(execution=OpenLoop(7))

    def test_rows_reset_by_themselves(self) -> None:
        session = meta(n_action_steps=4).session(3)
        session.select_action(states(0))
        session.reset(rows=[1])
        assert session.needs_observation().tolist() == [False, True, False]
        asked = session.policy.policy.asked
        asked.clear()
        session.select_action(states(1))
        assert [len(inputs["state"]) for inputs in asked] == [1]

    def test_rows_may_be_asked_in_any_order(self) -> None:
        policy = meta(n_action_steps=1)
        session = policy.session(4)
        got = session.select_action(states(0, 2), rows=[3, 1])
        np.testing.assert_array_equal(got, policy.predict(states(0, 2))[:, 0])
        assert session.needs_observation(rows=[0, 3]).all()

    def test_images_may_come_first_in_an_observation(self) -> None:
        features = Features(None, FEATURES.action, {"top": CameraFeature(4, 4)}, 10.0)
        section = ProcessorConfig()

        class Seeing(Tiny):
            def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
                self.asked.append(dict(obs_dict))
                return torch.zeros(len(obs_dict["image"]), 6, 2)

        model = Seeing(TinyConfig(n_action_steps=2))
        policy = MetaPolicy(model, Processor.build(section, features, {"d": {"action": rows_of(2)}}, model.config))
        session = policy.session(3)
        obs = {"images": {"top": np.zeros((3, 4, 4, 3), np.uint8)}}
        session.select_action(obs)
        session.reset(rows=[1])
        session.select_action(obs)
        assert [len(inputs["image"]) for inputs in model.asked] == [3, 1]


class TestHistory:
    def run(self, offsets: tuple[int, ...], n_action_steps: int, steps: int = 14) -> None:
        policy = meta(observation_offsets=offsets, n_action_steps=n_action_steps)
        session = policy.session(2)
        for step in range(steps):
            session.select_action(states(step, 2))
            if step % n_action_steps == 0:
                inputs = policy.policy.asked[-1]
                expected = [states(max(step + offset, 0), 2)["state"] for offset in offsets]
                np.testing.assert_allclose(inputs["state"] * 2 + 0.5, np.stack(expected, 1), atol=1e-6)
                assert inputs["observation_is_pad"].tolist() == [[step + offset < 0 for offset in offsets]] * 2

    @pytest.mark.parametrize("offsets", [(-1, 0), (-2, -1, 0), (-7, -3, 0), (-13, 0)])
    @pytest.mark.parametrize("n_action_steps", [1, 3, 5])
    def test_is_what_training_saw(self, offsets: tuple[int, ...], n_action_steps: int) -> None:
        self.run(offsets, n_action_steps)

    def test_only_the_observations_that_count_are_asked_for(self) -> None:
        session = meta(n_obs_steps=2, n_action_steps=5).session(1)
        needed = []
        for step in range(10):
            needed.append(bool(session.needs_observation()[0]))
            session.select_action(states(step, 1) if needed[-1] else None)
        assert needed == [True, False, False, False, True] * 2

    def test_a_reset_begins_a_new_history(self) -> None:
        policy = meta(n_obs_steps=2, n_action_steps=1)
        session = policy.session(2)
        for step in range(3):
            session.select_action(states(step, 2))
        session.reset(rows=[0])
        session.select_action(states(9, 2))
        assert policy.policy.asked[-1]["observation_is_pad"].tolist() == [[True, False], [False, False]]

    def test_an_environment_may_reuse_its_arrays(self) -> None:
        policy = meta(n_obs_steps=2, n_action_steps=1)
        session, buffer = policy.session(1), np.zeros((1, 2), np.float32)
        session.select_action({"state": buffer})
        buffer[:] = 7
        session.select_action({"state": buffer})
        np.testing.assert_allclose(policy.policy.asked[-1]["state"][0] * 2 + 0.5, [[0, 0], [7, 7]])

    def test_old_observations_are_let_go(self) -> None:
        session = meta(n_obs_steps=2, n_action_steps=1).session(1)
        for step in range(100):
            session.select_action(states(step, 1))
        assert len(session._rows[0].history) < 6

    def test_images_and_task_have_a_history_too(self) -> None:
        class Seeing(Tiny):
            def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
                self.asked.append(dict(obs_dict))
                return torch.zeros(len(obs_dict["image"]), 6, 2)

        features = Features(None, FEATURES.action, {"top": CameraFeature(4, 4)}, 10.0, language=True)
        section = ProcessorConfig()
        model = Seeing(TinyConfig(n_obs_steps=2, n_action_steps=1))
        policy = MetaPolicy(model, Processor.build(section, features, {"d": {"action": rows_of(2)}}, model.config))
        session = policy.session(2)
        for step in range(3):
            images = np.full((2, 4, 4, 3), step, np.uint8)
            session.select_action({"images": {"top": images}, "task": ["push", "pull"]})
        asked = model.asked[-1]
        assert asked["image"].shape == (2, 2, 1, 3, 4, 4)
        np.testing.assert_allclose(asked["image"][0, :, 0, 0, 0, 0] * 255, [1, 2])
        assert asked["task"] == ["push", "pull"]


class TestTemporalEnsemble:
    @pytest.mark.parametrize("coefficient", [0.0, 0.01, 0.5])
    def test_against_a_naive_reference(self, coefficient: float) -> None:
        policy = meta()
        session = policy.session(2, execution=TemporalEnsemble(coefficient))
        chunks = []
        for step in range(15):
            chunks.append(policy.predict(states(step, 2)))
            said = [chunk[:, step - start] for start, chunk in enumerate(chunks) if step - start < 6]
            weights = np.exp(-coefficient * np.arange(len(said)))
            expected = sum(weight * action for weight, action in zip(weights, said, strict=True)) / weights.sum()
            np.testing.assert_allclose(session.select_action(states(step, 2)), expected, rtol=1e-5, atol=1e-6)

    def test_needs_every_observation_and_resets(self) -> None:
        session = meta(n_action_steps=4).session(2, execution=TemporalEnsemble())
        first = session.select_action(states(0, 2))
        assert session.needs_observation().all()
        session.select_action(states(1, 2))
        session.reset()
        np.testing.assert_array_equal(session.select_action(states(0, 2)), first)


class Flipping(Tiny):
    """Says the same half turn each time, as q and as -q in turn."""

    def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
        sign = 1.0 - 2.0 * (obs_dict["timestep"] % 2)
        return torch.tensor([0.0, 1.0, 0.0, 0.0]) * sign[:, None, None] * torch.ones(len(sign), 6, 1)


def test_the_ensemble_averages_rotations_as_rotations() -> None:
    names = ("qw", "qx", "qy", "qz")
    features = Features(
        FEATURES.state, VectorFeature(names, rotations=(Rotation(names, "quat_wxyz"),)), fps=10.0, control_space="ee"
    )
    model = Flipping(TinyConfig())
    statistics = {"demos": {"state": rows_of(2), "action": rows_of(4)}}
    processor = Processor.build(ProcessorConfig(action="identity"), features, statistics, model.config, uses=("state",))
    session = MetaPolicy(model, processor).session(1, execution=TemporalEnsemble(0.0))
    for step in range(8):
        assert session.select_action(states(step, 1))[0] == pytest.approx([0, 1, 0, 0])


class Nowhere(Tiny):
    def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
        return torch.zeros(len(obs_dict["state"]), 6, 6)


def test_an_answer_that_is_no_rotation_is_refused() -> None:
    names = tuple("abcdef")
    features = Features(FEATURES.state, VectorFeature(names, rotations=(Rotation(names, "6d"),)), fps=10.0)
    model = Nowhere(TinyConfig())
    statistics = {"demos": {"state": rows_of(2), "action": rows_of(6)}}
    config = ProcessorConfig(action="identity", action_rotation="6d")
    policy = MetaPolicy(model, Processor.build(config, features, statistics, model.config, uses=("state",)))
    with pytest.raises(
        ContractError, match=r"Nowhere\.select_action, or the state .*: rotation 6d: expected numbers that"
    ):
        policy.predict(states(0))


class Sampler(Tiny):
    def select_action(self, obs_dict: dict[str, Any], generator: list[torch.Generator] | None = None) -> torch.Tensor:
        answer = super().select_action(obs_dict)
        if generator is None:
            return answer
        assert len(generator) == len(answer)
        return answer + torch.stack([torch.randn(answer.shape[1:], generator=own) for own in generator])


class TestRowsAreApart:
    def test_two_sessions_do_not_influence_each_other(self) -> None:
        policy = meta(Sampler, n_action_steps=3, n_obs_steps=2)

        def run(with_other: bool) -> np.ndarray:
            session, other = policy.session(2, seeds=[1, 2]), policy.session(5, seeds=range(5))
            actions = []
            for step in range(8):
                if with_other:
                    other.select_action(states(100 + step, 5))
                actions.append(session.select_action(states(step, 2)))
            return np.stack(actions)

        np.testing.assert_array_equal(run(with_other=False), run(with_other=True))

    def test_a_seed_means_the_same_in_every_row_and_batch(self) -> None:
        policy = meta(Sampler, n_action_steps=2)
        for exact, compare in ((True, np.testing.assert_array_equal), (False, np.testing.assert_allclose)):
            alone = policy.session(1, seeds=[7], exact=exact)
            among = policy.session(4, seeds=[5, 6, 7, 8], exact=exact)
            for step in range(6):
                whole = states(step, 4)
                one = alone.select_action({"state": whole["state"][2:3]})
                kwargs = {} if exact else {"rtol": 1e-4, "atol": 1e-5}
                compare(among.select_action(whole)[2:3], one, **kwargs)

    def test_exact_rows_do_not_depend_on_the_batch(self) -> None:
        policy = meta()
        for execution in (OpenLoop(2), TemporalEnsemble()):
            whole, single = policy.session(64, execution=execution, exact=True), []
            batch = [states(step, 64) for step in range(3)]
            together = [whole.select_action(obs) for obs in batch]
            for row in (0, 31, 63):
                session = policy.session(1, execution=execution, exact=True)
                single = [session.select_action({"state": obs["state"][row : row + 1]}) for obs in batch]
                for all_rows, one in zip(together, single, strict=True):
                    np.testing.assert_array_equal(all_rows[row], one[0])

    def test_reset_with_seeds_repeats(self) -> None:
        session = meta(Sampler, n_action_steps=1).session(2, seeds=[1, 2])
        first = session.select_action(states(0, 2))
        assert not np.array_equal(session.select_action(states(0, 2)), first)
        session.reset(seeds=[1, 2])
        np.testing.assert_array_equal(session.select_action(states(0, 2)), first)

    def test_without_seeds_it_is_fresh(self) -> None:
        policy = meta(Sampler, n_action_steps=1)
        assert not np.array_equal(
            policy.session(1).select_action(states(0, 1)), policy.session(1).select_action(states(0, 1))
        )


class TestSession:
    def test_the_policys_own_reset_is_called(self) -> None:
        class Counting(Tiny):
            resets = 0

            def reset(self) -> None:
                self.resets += 1

        policy = meta(Counting)
        session = policy.session(2)
        assert policy.policy.resets == 1
        session.reset()
        assert policy.policy.resets == 2
        session.reset(rows=[0])
        assert policy.policy.resets == 2

    @pytest.mark.parametrize(
        ("act", "message"),
        [
            (lambda session: session.select_action(states(0, 3)), "expected 2 rows of 'state', got 3"),
            (lambda session: session.select_action(states(0, 1), rows=[2]), "expected a row from 0 to 1, got 2"),
            (lambda session: session.reset(rows=[-1]), "expected a row from 0 to 1, got -1"),
            (lambda session: session.reset(seeds=[1]), "expected 2, one per row, got 1"),
        ],
    )
    def test_mistakes_are_named(self, act: Any, message: str) -> None:
        with pytest.raises(ContractError, match=message):
            act(meta().session(2))
        with pytest.raises(ContractError, match="at least 1, got 0"):
            meta().session(0)

    def test_a_queued_step_costs_next_to_nothing(self) -> None:
        """The promise is 50 µs; a busy machine may take ten times that."""
        session = meta(chunk_size=1000).session(1)
        obs = states(0, 1)
        session.select_action(obs)
        times = []
        for _ in range(500):
            start = time.perf_counter()
            session.select_action(obs)
            times.append(time.perf_counter() - start)
        assert sorted(times)[len(times) // 2] < 500e-6


def test_a_session_tells_the_step_of_each_episode() -> None:
    policy = meta(n_action_steps=2)
    session = policy.session(3)
    for step in range(5):
        if step == 3:
            session.reset([1])
        session.select_action(states(step))
    told = [asked["timestep"].tolist() for asked in policy.policy.asked]
    assert told == [[0, 0, 0], [2, 2, 2], [0], [4, 4]]


def test_a_servers_address_is_told_from_a_directory() -> None:
    with pytest.raises(MenuraError, match="expected a policy server"):
        MetaPolicy.from_pretrained("ws://127.0.0.1:1")
    for given in ({"device": "cpu"}, {"dataset": "demos"}):
        with pytest.raises(ContractError, match="which its server chose"):
            MetaPolicy.from_pretrained("ws://127.0.0.1:1", **given)


def test_from_pretrained_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        MetaPolicy.from_pretrained(tmp_path / "nowhere")


class Guided(Tiny):
    """Answers its guidance where that has weight, and notes it."""

    def select_action(
        self,
        obs_dict: dict[str, Any],
        generator: list[torch.Generator] | None = None,
        guidance: Any = None,
    ) -> torch.Tensor:
        if guidance is None:
            answer = super().select_action(obs_dict)
        else:
            assert not torch.is_inference_mode_enabled()
            assert not any(value.is_inference() for value in obs_dict.values())
            self.asked.append({"guidance": guidance, "generator": generator})
            answer = self.net(obs_dict["state"]).sin().reshape(-1, 6, 2)
            answer = torch.where(guidance.weights[..., None] == 1, guidance.target, answer)
        noise = 0 if generator is None else torch.stack([torch.rand(6, 2, generator=one) for one in generator])
        return answer + 0 * noise


def under_way(length: int, delay: int = 2) -> PreviousChunk:
    return PreviousChunk(np.arange(2.0 * length, dtype=np.float32).reshape(length, 2) / 10, delay)


class TestPreviousChunks:
    def test_a_policy_is_guided_in_its_own_units(self) -> None:
        policy = meta(Guided)
        chunk = under_way(8)
        answer = policy.predict(states(0, 1), previous=[chunk])
        guidance = policy.policy.asked[-1]["guidance"]
        np.testing.assert_allclose(guidance.target[0] * 2 + 0.5, chunk.actions[:6], rtol=1e-6)
        np.testing.assert_array_equal(guidance.weights[0], chunk.weights(6))
        np.testing.assert_allclose(answer[0, :2], chunk.actions[:2], rtol=1e-6)
        assert policy.guides

    def test_rows_without_one_are_answered_as_alone(self) -> None:
        policy, obs = meta(Guided), states(0, 4)
        generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
        answer = policy.predict(obs, generator=generators, previous=[None, under_way(4), None, under_way(0, 0)])
        np.testing.assert_allclose(answer[[0, 2, 3]], policy.predict(obs)[[0, 2, 3]], rtol=1e-6)
        np.testing.assert_allclose(answer[1, :2], under_way(4).actions[:2], rtol=1e-6)
        assert policy.policy.asked[0]["generator"] == [generators[1]]
        assert np.array_equal(policy.predict(obs, previous=[None] * 4), policy.predict(obs))

    def test_what_takes_no_guidance_is_blended(self) -> None:
        policy, obs = meta(), states(0, 2)
        chunk = under_way(4, delay=1)
        answer, free = policy.predict(obs, previous=[None, chunk]), policy.predict(obs)
        assert not policy.guides
        weights = chunk.weights(6)[:, None]
        old = np.concatenate([chunk.actions, np.zeros((2, 2))])
        assert np.array_equal(answer[0], free[0])
        np.testing.assert_allclose(answer[1], weights * old + (1 - weights) * free[1], rtol=1e-5, atol=1e-6)
        assert np.array_equal(answer[1, 0], chunk.actions[0])
        assert np.array_equal(answer[1, 4:], free[1, 4:])

    def test_rotations_are_blended_as_rotations(self) -> None:
        action = VectorFeature(("x", "w", "i", "j", "k"), rotations=(Rotation(("w", "i", "j", "k"), "quat_wxyz"),))
        half = np.sqrt(0.5)
        old = np.array([[0.0, 1, 0, 0, 0]] * 3, np.float32)
        new = np.array([[[1.0, -half, 0, 0, -half]] * 3], np.float32)  # a quarter turn, with the other sign
        chunk = PreviousChunk(old, delay=1)
        result = blended(new, [chunk], action)[0]
        share = chunk.weights(3)[1]
        turned = 2 * np.arctan2(result[1, 4], result[1, 1])
        assert result[1, 0] == pytest.approx(1 - share)
        assert np.linalg.norm(result[1, 1:]) == pytest.approx(1, abs=1e-6)
        assert 0 < turned < np.pi / 2
        assert np.array_equal(result[0], old[0])

    def test_relative_actions_are_guided_against_the_new_state(self) -> None:
        features = Features(
            VectorFeature(("x", "y")), VectorFeature(("x", "y")), fps=10.0, control_space="joint", control_type="abs"
        )
        torch.manual_seed(0)
        model = Guided(TinyConfig())
        section = ProcessorConfig(action_type="relative")
        processor = Processor.build(
            section, features, {"demos": {"state": rows_of(2), "action": rows_of(2)}}, model.config, uses=("state",)
        )
        policy = MetaPolicy(model, processor)
        obs = {"state": np.array([[3.0, -1.0]], np.float32)}
        policy.predict(obs)
        answer = policy.predict(obs, previous=[under_way(6, delay=3)])
        target = model.asked[-1]["guidance"].target[0] * 2 + 0.5
        np.testing.assert_allclose(target, under_way(6).actions - obs["state"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(answer[0, :3], under_way(6).actions[:3], rtol=1e-5, atol=1e-6)

    def test_wrong_ones_are_refused(self) -> None:
        policy = meta()
        with pytest.raises(ContractError, match="previous chunks: expected 3, one a row, got 1"):
            policy.predict(states(0), previous=[None])
        with pytest.raises(FeatureMismatch, match="previous chunk of row 1: expected finite actions of width 2"):
            policy.predict(states(0), previous=[None, PreviousChunk(np.zeros((2, 3), np.float32), 0), None])
