"""A policy behind a server does what it does here: chances, histories and previous chunks of each row its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from menura.chunks import PreviousChunk
from menura.errors import ContractError
from menura.meta_policy import MetaPolicy
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.served_policy import ServedPolicy
from menura.serving.background import serving
from menura.serving.client import Client, LateAnswer, RequestRefused
from menura.serving.server import PolicyServer
from menura.session import OpenLoop

OBSERVATIONS = {
    "state": np.array([[0.1, -0.2, 0.3], [1.0, 2.0, 3.0], [-1.0, 0.0, 0.5]], np.float32),
    "task": ["go", "stay", "go"],
}


class Sampling(MLPPolicy):
    """Draws what it answers, by the row's generator."""

    def select_action(self, obs_dict: dict[str, Any], generator: list[torch.Generator] | None = None) -> torch.Tensor:
        chunk = super().select_action(obs_dict)
        if generator is None:
            return chunk
        return chunk + torch.stack([torch.randn(chunk.shape[1:], generator=one) for one in generator])


@pytest.fixture(scope="module")
def sampling(build_served: Any) -> MetaPolicy:
    meta: MetaPolicy = build_served(Sampling)
    return meta


@contextmanager
def asked(meta: MetaPolicy, **settings: Any) -> Iterator[ServedPolicy]:
    with (
        serving(PolicyServer(meta, port=0, **settings)) as server,
        closing(ServedPolicy(f"ws://127.0.0.1:{server.port}")) as policy,
    ):
        yield policy


def actions(policy: MetaPolicy | ServedPolicy, seeds: list[int], rows: int = 3) -> list[np.ndarray]:
    """Of two rounds of as many rows, then of a new episode in the first row."""
    obs = {key: value[:rows] for key, value in OBSERVATIONS.items()}
    session = policy.session(rows, seeds=seeds[:rows], execution=OpenLoop(1), exact=True)
    answers = [session.select_action(obs) for _ in range(3)]
    session.reset([0], seeds=[99])
    return [*answers, session.select_action(obs)]


def test_episodes_draw_what_belongs_to_their_seeds(sampling: MetaPolicy) -> None:
    here = actions(sampling, [1, 2, 3])
    with asked(sampling) as policy:
        for _ in range(2):  # connections are used again
            there = actions(policy, [1, 2, 3])
            np.testing.assert_array_equal(there, here)
        assert len(policy._clients) <= 4
        assert not np.allclose(actions(policy, [4, 5, 6]), here)
        assert policy.reconnects == 0


def test_rows_are_asked_for_at_once(build_served: Any) -> None:
    meta: MetaPolicy = build_served()
    answer = meta.predict

    batches: list[int] = []

    def predict(obs: Any, *args: Any, **kwargs: Any) -> Any:
        batches.append(len(obs["state"]))
        return answer(obs, *args, **kwargs)

    meta.predict = predict  # type: ignore[method-assign]
    with asked(meta, max_wait_ms=100.0) as policy:
        session = policy.session(3, seeds=[1, 2, 3])
        batches.clear()
        for _ in range(3):
            session.select_action(OBSERVATIONS)
            session.reset(seeds=[1, 2, 3])
    assert max(batches) > 1


def test_the_history_of_a_session_is_sent(build_served: Any) -> None:
    meta: MetaPolicy = build_served(n_obs_steps=2)
    rounds = [{**OBSERVATIONS, "state": OBSERVATIONS["state"] + step} for step in range(4)]
    here = meta.session(3, execution=OpenLoop(1), exact=True)
    with asked(meta) as policy:
        there = policy.session(3, execution=OpenLoop(1), exact=True)
        for obs in rounds:
            np.testing.assert_array_equal(there.select_action(obs), here.select_action(obs))
        # Without a session, what is given is what is looked at, as it is here.
        given = {"state": np.stack([rounds[0]["state"], rounds[1]["state"]], axis=1), "task": "go"}
        np.testing.assert_allclose(policy.predict(given), meta.predict(given), atol=1e-6)


@pytest.mark.parametrize("length", [1, 3, 4])
def test_what_is_under_way_is_agreed_with(meta: MetaPolicy, length: int) -> None:
    under_way = [PreviousChunk(np.full((length, 2), 0.3, np.float32), 1), None, None]
    with asked(meta) as policy:
        there = policy.predict(OBSERVATIONS, previous=under_way)
    np.testing.assert_allclose(there, meta.predict(OBSERVATIONS, previous=under_way), atol=1e-6)
    assert not np.allclose(there, meta.predict(OBSERVATIONS))


def test_an_error_of_one_row_is_told_when_all_are_done(meta: MetaPolicy) -> None:
    wrong = {**OBSERVATIONS, "state": np.array([[0, 0, 0], [np.nan, 0, 0], [0, 0, 0]], np.float32)}
    with asked(meta) as policy:
        session = policy.session(3, seeds=[1, 2, 3])
        with pytest.raises(RequestRefused, match="finite"):
            session.select_action(wrong)
        assert policy.predict(OBSERVATIONS).shape == (3, 4, 2)
        session.reset()
        assert session.select_action(OBSERVATIONS).shape == (3, 2)


def test_an_episode_that_was_refused_begins_with_its_next_request(sampling: MetaPolicy) -> None:
    obs = {"state": OBSERVATIONS["state"][:1], "task": "go"}
    expected = sampling.predict(obs, generator=[sampling.generator(5)])
    with asked(sampling) as policy:
        episode = policy.generator(5)
        with pytest.raises(RequestRefused):
            policy.predict({"state": np.zeros((1, 2), np.float32)}, generator=[episode])
        np.testing.assert_array_equal(policy.predict(obs, generator=[episode]), expected)
        assert not np.array_equal(policy.predict(obs, generator=[episode]), expected)


def test_a_forgotten_episode_gives_its_connection_back(meta: MetaPolicy) -> None:
    with asked(meta) as policy:
        for seed in range(5):
            policy.generator(seed)
        assert len(policy._clients) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"noise": np.zeros(3)}, "which the server draws"),
        ({"generator": [torch.Generator()] * 3}, "which the server draws"),
        ({"previous": [None]}, "expected one previous a row, 3, got 1"),
    ],
)
def test_what_predict_does_not_take(meta: MetaPolicy, given: dict[str, Any], message: str) -> None:
    with asked(meta) as policy, pytest.raises(ContractError, match=message):
        policy.predict(OBSERVATIONS, **given)


def test_our_client_at_our_server(build_served: Any) -> None:
    """Late and refused requests leave the session, and no answer is taken for another's."""
    waiting = threading.Event()

    class Waiting(MLPPolicy):
        def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
            waiting.wait(5)
            return super().select_action(obs_dict)

    waiting.set()
    meta: MetaPolicy = build_served(Waiting)
    first, second = ({"state": row, "task": "go"} for row in OBSERVATIONS["state"][:2])
    with serving(PolicyServer(meta, port=0)) as server, Client(f"ws://127.0.0.1:{server.port}") as client:
        waiting.clear()
        with pytest.raises(LateAnswer):
            client.infer(first, deadline_ms=60)
        waiting.set()
        with pytest.raises(RequestRefused, match="state"):
            client.infer({"state": np.zeros(7, np.float32), "task": "go"})
        expected = meta.predict({"state": second["state"][None], "task": "go"})[0]
        np.testing.assert_array_equal(client.infer(second)["actions"], expected)
        assert client.reconnects == 0
