"""Episodes in virtual time, against what each controller must execute when a policy says the time itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from menura.chunks import ActionChunk, PreviousChunk
from menura.errors import ConfigError, ContractError
from menura.evaluation.evaluate import evaluate
from menura.evaluation.latency_execution import CONTROLLERS, DelayedExecution
from menura.evaluation.latency_model import LatencyModel
from menura.evaluation.latency_session import LatencySession
from menura.features import Features, VectorFeature

FPS = 10.0
Float32 = NDArray[np.float32]


def features(control_type: str | None = "abs", fps: float = FPS) -> Features:
    return Features(
        VectorFeature(("x",)), VectorFeature(("x",)), fps=fps, control_type=control_type  # type: ignore[arg-type]
    )  # fmt: skip


class Clockwork:
    """Says of each action the step that it is meant for, so that what is executed tells how late it is."""

    def __init__(self, chunk_size: int = 8, offsets: tuple[int, ...] = (0,), **of_features: Any) -> None:
        self.chunk_size = self.n_action_steps = chunk_size
        self.observation_offsets = offsets
        self.features = features(**of_features)
        self.asked: list[dict[str, Any]] = []

    def predict(
        self,
        obs: dict[str, Any],
        noise: Any = None,
        generator: Any = None,
        *,
        observation_is_pad: Any = None,
        previous: Sequence[PreviousChunk | None] | None = None,
    ) -> Float32:
        self.asked.append({**obs, "is_pad": observation_is_pad, "previous": previous})
        steps = np.asarray(obs["timestep"])[:, None, None] + np.arange(self.chunk_size)[None, :, None]
        return steps.astype(np.float32)

    def generator(self, seed: int | None) -> torch.Generator | None:
        return None

    def reset(self) -> None:
        pass


def session_of(
    policy: Any, controller: str, latency: str, control_hz: float | None = None, rows: int = 1, steps: int = 40
) -> LatencySession:
    execution = DelayedExecution(LatencyModel.of(latency), controller, control_hz)
    return LatencySession(policy, execution, rows, steps)


def executed(session: LatencySession, steps: int, row: int = 0, seed: int = 0) -> tuple[list[float], list[int]]:
    """What is executed at each of the steps, and the steps at which an observation was asked for."""
    session.reset([row], [seed])
    actions: list[float] = []
    observed: list[int] = []
    while len(actions) < steps:
        observed.append(len(actions))
        (plan,) = session.plan({"state": np.array([[len(actions)]], np.float32)}, [row])
        actions += plan[:, 0].tolist()
    return actions[:steps], observed


@pytest.mark.parametrize("latency", ["0ms", "40ms", "100ms", "250ms"])
@pytest.mark.parametrize(
    "controller", ["delay_compensated", "temporal_ensemble", "interpolating", "real_time_chunking"]
)
def test_a_controller_that_knows_the_time_sends_each_action_at_its_own(controller: str, latency: str) -> None:
    session = session_of(Clockwork(16), controller, latency)
    actions, _ = executed(session, 40)
    # Interpolating keeps a chunk's last action for its period, and lets what it lags by then fade.
    assert actions == pytest.approx(list(range(40)), abs=0.5 if controller == "interpolating" else 1e-4)
    assert session.measures(0, 40)["held_share"] == 0


@pytest.mark.parametrize("controller", ["temporal_ensemble", "real_time_chunking"])
def test_one_that_asks_early_does_not_mind_when_answers_vary(controller: str) -> None:
    session = session_of(Clockwork(16), controller, "normal(250ms, 80ms)")
    assert executed(session, 40)[0] == pytest.approx(range(40), abs=1e-4)


def test_one_that_does_not_is_as_late_as_the_answer() -> None:
    actions, observed = executed(session_of(Clockwork(16), "newest", "250ms"), 12)
    # The answer to what was seen at 3 is there at 0.55 s, and executed from 0.6 s on, from its first action.
    assert observed == [0, 1, 4, 7, 10]
    assert actions == [0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8]


def test_time_begins_with_the_first_plan() -> None:
    policy = Clockwork(8)
    session = session_of(policy, "real_time_chunking", "200ms")
    actions, observed = executed(session, 12)
    assert actions == pytest.approx(range(12))
    assert observed == [0, 4, 8]
    assert policy.asked[0]["previous"] is None
    (chunk,) = policy.asked[1]["previous"]
    assert chunk.delay == 2  # the first answer's delay is known, though nothing moved meanwhile
    assert chunk.actions[:, 0] == pytest.approx([4, 5, 6, 7])


def test_where_nothing_is_meant_for_now_it_holds() -> None:
    session = session_of(Clockwork(4), "delay_compensated", "600ms")
    actions, _ = executed(session, 12)
    assert actions[:4] == [0, 1, 2, 3]
    assert set(actions[4:]) == {3}  # what comes is past when it is there
    assert session.measures(0, 12) == {"delay_s": pytest.approx(0.6), "held_share": pytest.approx(8 / 12),
                                       "inferences": 3.0}  # fmt: skip
    assert session.measures(0, 4)["held_share"] == 0  # an episode that ended there


def test_differences_hold_by_doing_nothing() -> None:
    actions, _ = executed(session_of(Clockwork(4, control_type="delta"), "delay_compensated", "600ms"), 12)
    assert actions[:4] == [0, 1, 2, 3]
    assert set(actions[4:]) == {0}


def test_of_several_commands_in_a_step_the_newest_is_executed() -> None:
    actions, _ = executed(session_of(Clockwork(16, fps=20.0), "interpolating", "0ms", control_hz=50), 6)
    # The ticks before 0, 0.05, 0.1, … s are those of 0, 0.04, 0.1, 0.14, … s; a step takes 0.05 s.
    assert actions == pytest.approx([0, 0.8, 2, 2.8, 4, 4.8], abs=1e-4)
    slow, _ = executed(session_of(Clockwork(16), "delay_compensated", "0ms", control_hz=5), 6)
    assert slow == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("offsets", [(-1, 0), (-2, 0), (-3,), (-9, -4, 0)])
@pytest.mark.parametrize("controller", ["newest", "delay_compensated"])
def test_a_policy_sees_the_history_that_training_saw(offsets: tuple[int, ...], controller: str) -> None:
    policy = Clockwork(8, offsets)
    actions, _ = executed(session_of(policy, controller, "normal(200ms, 150ms)"), 30)
    plain, _ = executed(session_of(Clockwork(8), controller, "normal(200ms, 150ms)"), 30)
    assert actions == plain
    for asked in policy.asked:
        now = int(asked["timestep"][0])
        wanted = [[max(now + offset, 0)] for offset in offsets]
        assert asked["state"][0].tolist() == (wanted if len(offsets) > 1 else wanted[0])
        assert asked["is_pad"][0].tolist() == [now + offset < 0 for offset in offsets]


def test_delays_belong_to_the_episodes_seed() -> None:
    latency = "normal(200ms, 150ms)"
    alone = [executed(session_of(Clockwork(), "newest", latency), 20, seed=seed)[0] for seed in (5, 6)]
    together = session_of(Clockwork(), "newest", latency, rows=3)
    assert [executed(together, 20, row=row, seed=seed)[0] for row, seed in ((2, 5), (0, 6))] == alone
    assert alone[0] != alone[1]


def stepped(execution: DelayedExecution, policy: Any, steps: int, seed: int) -> list[float]:
    """The same episode as a loop would live it: one tick after the other, an answer delivered when its time comes."""
    controller, period_s = execution.new_controller(), 1 / policy.features.fps
    control_period_s = 1 / (execution.control_hz or policy.features.fps)
    controller.begin(policy.features, control_period_s)
    random = np.random.default_rng([0x1A7E, seed])
    coming: list[tuple[float, ActionChunk]] = []
    actions: list[float] = []
    tick, last, number = 0, np.zeros(1), 0

    def deliver(until_s: float) -> None:
        while coming and coming[0][0] <= until_s + 1e-6:
            arrival_s, chunk = coming.pop()
            controller.receive(chunk, arrival_s)

    for step in range(steps):
        now_s = step * period_s
        for before in (True, False):
            while tick * control_period_s <= now_s + (-1e-6 if before else 1e-6):
                deliver(tick * control_period_s)
                command = controller.command(tick * control_period_s)
                last = last if command is None else command.action
                tick += 1
            deliver(now_s)
            if before and not coming and controller.wants(now_s):
                delay_s = execution.latency.draw(random)
                answer = policy.predict({"timestep": [step]}, previous=[controller.previous(now_s)])[0]
                if number == 0:
                    controller.receive(ActionChunk(answer[:0], -delay_s, period_s), 0.0)
                coming.append((now_s + delay_s * (number > 0), ActionChunk(answer, now_s, period_s, number)))
                number += 1
                deliver(now_s)
        actions.append(float(last[0]))
    return actions


@settings(max_examples=40, deadline=None)
@given(
    controller=st.sampled_from(CONTROLLERS),
    latency=st.sampled_from(["0ms", "30ms", "100ms", "330ms", "normal(150ms, 90ms)", "lognormal(400ms, 500ms)"]),
    control_hz=st.sampled_from([None, 5, 10, 23.0, 50, 100]),
    chunk_size=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_planning_ahead_is_living_tick_by_tick(
    controller: str, latency: str, control_hz: float | None, chunk_size: int, seed: int
) -> None:
    execution = DelayedExecution(LatencyModel.of(latency), controller, control_hz)
    policy = Clockwork(chunk_size)
    ahead, _ = executed(LatencySession(policy, execution, 1, 1000), 40, seed=seed)
    assert ahead == pytest.approx(stepped(execution, policy, 40, seed), abs=1e-6)


def test_an_episode_is_not_planned_beyond_its_end() -> None:
    session = session_of(Clockwork(8), "delay_compensated", "0ms", steps=5)
    (plan,) = session.plan({"state": np.zeros((1, 1), np.float32)}, [0])
    assert len(plan) == 5


def test_what_cannot_be_held_is_refused() -> None:
    with pytest.raises(ContractError, match=r"expected actions that can be held, .* got features that do not say"):
        session_of(Clockwork(control_type=None), "newest", "0ms")
    with pytest.raises(ContractError, match="expected the environment's 10 Hz for actions that are differences"):
        session_of(Clockwork(control_type="delta"), "interpolating", "0ms", control_hz=50)
    with pytest.raises(ConfigError, match="control_hz: expected a rate above 0, got 0"):
        DelayedExecution(LatencyModel.of("0ms"), control_hz=0)
    with pytest.raises(ConfigError, match="newst"):
        DelayedExecution(LatencyModel.of("0ms"), "newst")


OPTIONS: dict[str, Any] = {"episodes": 5, "seed": 100, "progress": False}


def delayed(latency: str = "normal(80ms, 40ms)", controller: str = "real_time_chunking") -> DelayedExecution:
    return DelayedExecution(LatencyModel.of(latency), controller)


def test_a_real_policy_does_the_same_in_1_and_2_processes(toy_meta: Any, toy_env: Any) -> None:
    found = [
        evaluate(toy_meta, toy_env(), execution=delayed(), num_envs=3, num_workers=n, **OPTIONS) for n in (1, 2)
    ]  # fmt: skip
    assert found[0].episodes == found[1].episodes
    assert found[0].fingerprint == found[1].fingerprint
    told = dict(found[0].protocol["execution"])
    assert set(told.pop("controller_args")) >= {"execution_horizon"}
    assert told == {
        "name": "delayed",
        "latency": "normal(80ms, 40ms)",
        "control_hz": 20.0,
        "controller": "real_time_chunking",
    }
    for episode in found[0].episodes:
        assert {"delay_s", "held_share", "inferences", "nearness"} <= set(episode.measures)
        assert 0 < episode.measures["delay_s"] < 0.3
    plain = evaluate(toy_meta, toy_env(), num_envs=3, **OPTIONS)
    assert plain.fingerprint != found[0].fingerprint
    assert "delay_s" not in plain.measures


def test_a_policy_that_samples_is_guided_by_its_seed(toy_policy: Any, toy_env: Any) -> None:
    meta = toy_policy("FlowPolicy", hidden_size=32, n_layers=1, n_heads=2, chunk_size=8, n_action_steps=4)
    assert meta.guides
    found = [
        evaluate(meta, toy_env(max_episode_steps=12), execution=delayed(), exact=True, num_envs=n, **OPTIONS)
        for n in (1, 3)
    ]
    assert found[0].episodes == found[1].episodes
    assert all(episode.measures["inferences"] > 1 for episode in found[0].episodes)


def test_exact_does_not_even_depend_on_num_envs(toy_meta: Any, toy_env: Any) -> None:
    found = [evaluate(toy_meta, toy_env(), execution=delayed(), exact=True, num_envs=n, **OPTIONS) for n in (1, 4)]
    assert found[0].episodes == found[1].episodes


def test_without_latency_it_is_open_loop(toy_meta: Any, toy_env: Any) -> None:
    """A chunk executed to its end, then the next: as without virtual time."""
    from menura.session import OpenLoop

    late = evaluate(toy_meta, toy_env(), execution=delayed("0ms", "oldest_first"), num_envs=2, **OPTIONS)
    plain = evaluate(toy_meta, toy_env(), execution=OpenLoop(8), num_envs=2, **OPTIONS)
    assert [e.steps for e in late.episodes] == [e.steps for e in plain.episodes]
    assert late.success_rate == plain.success_rate


def test_audits_are_never_late(toy_env: Any) -> None:
    with pytest.raises(ConfigError, match="latency: expected a policy whose answers can be late, got random"):
        evaluate("random", toy_env(), execution=delayed(), **OPTIONS)


def test_as_many_actions_are_executed_as_the_policy_is_made_for() -> None:
    policy = Clockwork(8)
    policy.n_action_steps = 4
    assert executed(session_of(policy, "delay_compensated", "0ms"), 12)[1] == [0, 3, 6, 9]  # asked a tick early
