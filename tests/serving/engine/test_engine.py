"""From a message to an answer: what the policy would answer alone, in time, or an error that says why not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from menura.errors import ConfigError, ContractError
from menura.features import Features
from menura.meta_policy import MetaPolicy
from menura.serving.codec import pack, unpack
from menura.serving.engine import Engine, ServingSession
from menura.serving.engine.errors import Busy, Late, PolicyFailed, RequestRefused
from menura.serving.engine.request import OPTIONAL_KEYS


def alone(meta: MetaPolicy, message: dict[str, Any], seed: int) -> np.ndarray:
    """(T, A): what the policy answers to one message when nobody else asks."""
    observation = {
        "state": message["state"][None],
        "images": {camera: image[None] for camera, image in message["images"].items()},
        "task": [message["prompt"]],
    }
    generator = meta.generator(seed)
    return meta.predict(observation, generator=None if generator is None else [generator])[0]


def test_an_answer_is_the_policy_s(sight: MetaPolicy, observed: Any, answering: Any) -> None:
    async def ask() -> dict[str, Any]:
        async with answering(sight) as engine:
            return await engine.answer(engine.open_session(), observed(1, reset=True, seed=7))

    answer = asyncio.run(ask())
    assert answer["actions"].dtype == np.float32
    np.testing.assert_array_equal(answer["actions"], alone(sight, observed(1), 7))
    assert 0 < answer["policy_timing"]["infer_ms"] <= answer["server_timing"]["infer_ms"]


def test_rows_of_a_batch_equal_each_alone(build_seeing: Any, observed: Any, answering: Any) -> None:
    """Within rounding; and each session's generator gives its own draws, bit for bit."""
    meta = build_seeing()

    async def ask() -> list[list[np.ndarray]]:
        async with answering(meta, max_wait_ms=50) as engine:
            sessions = [engine.open_session() for _ in range(5)]
            rounds = []
            for number in range(2):
                seeds = [{"reset": True, "seed": seed} for seed in range(5)] if number == 0 else [{}] * 5
                asked = [
                    engine.answer(session, observed(10 * number + row, **seeds[row]))
                    for row, session in enumerate(sessions)
                ]
                rounds.append([answer["actions"] for answer in await asyncio.gather(*asked)])
            for session, generator in zip(sessions, [meta.generator(seed) for seed in range(5)], strict=True):
                for _ in range(2):
                    torch.randn(4, 2, generator=generator)
                assert torch.equal(session.generator.get_state(), generator.get_state())
            return rounds

    first, _ = asyncio.run(ask())
    assert meta.policy.batches == [5, 5]
    for row, actions in enumerate(first):
        np.testing.assert_allclose(actions, alone(meta, observed(row), row), rtol=0, atol=1e-5)


def test_what_fails_fails_alone(build_seeing: Any, observed: Any, answering: Any) -> None:
    """NaN of one row is an error of that row; the others get what they would have got, draws and all."""
    meta = build_seeing()

    async def ask() -> list[Any]:
        async with answering(meta, max_wait_ms=50) as engine:
            asked = []
            for row in range(4):
                message = observed(row, reset=True, seed=row)
                if row == 2:
                    message["state"] = np.full(3, 1e6, np.float32)
                asked.append(engine.answer(engine.open_session(), message))
            return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    assert meta.policy.batches == [4, 1, 1, 1, 1]
    assert isinstance(answers[2], PolicyFailed)
    assert "finite actions" in str(answers[2])
    for row in (0, 1, 3):
        np.testing.assert_array_equal(answers[row]["actions"], alone(meta, observed(row), row))


def test_any_error_of_a_policy_ends_a_request_alone(build_seeing: Any, observed: Any, answering: Any) -> None:
    meta = build_seeing()

    async def ask() -> None:
        async with answering(meta) as engine:
            session = engine.open_session()
            meta.policy.of_all, kept = None, meta.policy.of_all
            with pytest.raises(PolicyFailed, match="TypeError"):
                await engine.answer(session, observed())
            meta.policy.of_all = kept
            assert (await engine.answer(session, observed()))["actions"].shape == (4, 2)

    asyncio.run(ask())


async def until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.001)


def test_deadlines(build_seeing: Any, observed: Any, answering: Any) -> None:
    """Past it before its turn a request is not computed; past it after, it is told the same; both at once."""
    meta = build_seeing()

    async def ask() -> None:
        async with answering(meta) as engine:
            one, other = engine.open_session(), engine.open_session()
            meta.policy.gate.clear()
            running = asyncio.ensure_future(engine.answer(one, observed()))
            await until(lambda: meta.policy.batches == [1])
            with pytest.raises(Late, match="within 20 ms"):
                await engine.answer(other, observed(deadline_ms=20))
            assert not running.done()
            meta.policy.gate.set()
            await running
            assert meta.policy.batches == [1]
            meta.policy.gate.clear()
            with pytest.raises(Late):
                await engine.answer(other, observed(deadline_ms=50))
            meta.policy.gate.set()
            assert (await engine.answer(other, observed(deadline_ms=30_000)))["actions"].shape == (4, 2)
            assert meta.policy.batches == [1, 1, 1]

    asyncio.run(ask())


async def computing(engine: Any, meta: Any, message: Any) -> asyncio.Future[Any]:
    """An answer that the policy computes until its gate is opened: the first it is asked for."""
    meta.policy.gate.clear()
    answer = asyncio.ensure_future(engine.answer(engine.open_session(), message))
    await until(lambda: meta.policy.batches == [1])
    return answer


def test_a_client_that_is_gone_is_not_computed_for(build_seeing: Any, observed: Any, answering: Any) -> None:
    meta = build_seeing()

    async def ask() -> None:
        async with answering(meta) as engine:
            running = await computing(engine, meta, observed())
            waiting = asyncio.ensure_future(engine.answer(engine.open_session(), observed()))
            await asyncio.sleep(0)
            waiting.cancel()
            meta.policy.gate.set()
            await running
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await engine.answer(engine.open_session(), observed())
            assert meta.policy.batches == [1, 1]

    asyncio.run(ask())


def test_the_queue_is_bounded(build_seeing: Any, observed: Any, answering: Any) -> None:
    meta = build_seeing()

    async def ask() -> None:
        async with answering(meta, max_batch=1, max_queue=2) as engine:
            first = await computing(engine, meta, observed())
            rest = [asyncio.ensure_future(engine.answer(engine.open_session(), observed())) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Busy, match="at most 2 requests"):
                await engine.answer(engine.open_session(), observed())
            meta.policy.gate.set()
            assert all("actions" in answer for answer in await asyncio.gather(first, *rest))

    asyncio.run(ask())


def test_the_loop_never_waits_for_the_policy(build_seeing: Any, observed: Any, answering: Any) -> None:
    """While the policy computes, others are told at once what is wrong with their messages, and may come and go."""
    meta = build_seeing()

    async def ask() -> None:
        async with answering(meta) as engine:
            running = await computing(engine, meta, observed())
            for _ in range(10):
                session = engine.open_session()
                with pytest.raises(RequestRefused):
                    await engine.answer(session, {})
                engine.close_session(session)
            assert not running.done()
            meta.policy.gate.set()
            assert "actions" in await running

    asyncio.run(ask())


def test_nobody_waits_for_nobody(sight: MetaPolicy, observed: Any, answering: Any) -> None:
    """The only client that asks is never let wait for others; one that never asked changes nothing."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("a timer was set")

    async def ask() -> None:
        async with answering(sight, max_wait_ms=1000) as engine:
            engine.open_session()
            session = engine.open_session()
            loop = asyncio.get_running_loop()
            loop.call_later, kept = refuse, loop.call_later
            for _ in range(3):
                assert "actions" in await engine.answer(session, observed())
            loop.call_later = kept

    asyncio.run(ask())


def test_clients_are_answered_together(build_seeing: Any, observed: Any, answering: Any) -> None:
    """Four that ask again as soon as they are answered fall into step, though they began apart."""
    meta = build_seeing(seconds=0.02)

    async def client(engine: Engine, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        session = engine.open_session()
        for number in range(8):
            await engine.answer(session, observed(number))
        engine.close_session(session)

    async def ask() -> None:
        async with answering(meta, max_wait_ms=1000) as engine:
            await asyncio.gather(*(client(engine, 0.015 * number) for number in range(4)))

    asyncio.run(ask())
    assert sum(meta.policy.batches) == 32
    assert meta.policy.batches.count(4) >= 5


def test_history_is_the_session_s_own(build_seeing: Any, observed: Any, answering: Any) -> None:
    """Two sessions side by side, each with what came before in it; as a local session has it."""
    meta = build_seeing(n_obs_steps=2, observation_offsets=[-2, 0])

    async def ask() -> list[list[np.ndarray]]:
        answers = []
        async with answering(meta) as engine:
            for base in (0, 100):
                session = engine.open_session()
                await engine.answer(session, {"reset": True, "seed": base})
                observe = await engine.answer(session, observed(base, observe=True))
                assert "actions" not in observe
                answers.append(
                    [(await engine.answer(session, observed(base + step)))["actions"] for step in range(1, 4)]
                )
        return answers

    answers = asyncio.run(ask())
    assert meta.policy.pads[-6:] == [[True, False], [False, False], [False, False]] * 2
    for base, given_answers in zip((0, 100), answers, strict=True):
        generator = meta.generator(base)
        for step, actions in zip(range(1, 4), given_answers, strict=True):
            pair = [observed(base + max(step - 2, 0)), observed(base + step)]
            observation = {
                "state": np.stack([message["state"] for message in pair])[None],
                "images": {c: np.stack([m["images"][c] for m in pair])[None] for c in ("top", "wrist")},
                "task": [pair[1]["prompt"]],
            }
            expected = meta.predict(observation, generator=[generator])[0]
            np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-6)


def test_the_client_may_keep_the_history(build_seeing: Any, observed: Any, answering: Any) -> None:
    meta = build_seeing(n_obs_steps=2)
    pair = [observed(0), observed(1)]
    message = {
        "state": np.stack([message["state"] for message in pair]),
        "images": {c: np.stack([m["images"][c] for m in pair]) for c in ("top", "wrist")},
        "prompt": "go",
        "observation_is_pad": [True, False],
    }

    async def ask() -> None:
        async with answering(meta) as engine:
            answer = await engine.answer(engine.open_session(), message | {"reset": True, "seed": 1})
            images = {c: frames[None] for c, frames in message["images"].items()}
            observation = {"state": message["state"][None], "images": images, "task": ["go"]}
            expected = meta.predict(observation, generator=[meta.generator(1)])[0]
            np.testing.assert_array_equal(answer["actions"], expected)
            assert meta.policy.pads[-2] == [True, False]

    asyncio.run(ask())


def test_a_gap_in_the_history_is_no_guess(build_seeing: Any, observed: Any, answering: Any) -> None:
    async def ask() -> None:
        async with answering(build_seeing(n_obs_steps=2)) as engine:
            session = engine.open_session()
            await engine.answer(session, observed(0, timestep=0))
            with pytest.raises(RequestRefused, match=r"observation of step 4.*observe: true"):
                await engine.answer(session, observed(1, timestep=5))
            assert "actions" in await engine.answer(session, observed(2, timestep=6))
            with pytest.raises(RequestRefused, match=r"timestep: expected at least 6.*reset"):
                await engine.answer(session, observed(2, timestep=0))
            assert "actions" in await engine.answer(session, observed(2, timestep=0, reset=True))

    asyncio.run(ask())


def test_a_refused_message_changes_nothing(build_seeing: Any, observed: Any, answering: Any) -> None:
    meta = build_seeing(n_obs_steps=2)

    async def ask() -> None:
        async with answering(meta) as engine:
            session = engine.open_session()
            await engine.answer(session, observed(0, reset=True, seed=3))
            state = session.generator.get_state()
            for wrong in (observed(1, reset=True, state=np.zeros(4)), observed(1, images={}), {"reset": 1}):
                with pytest.raises(RequestRefused):
                    await engine.answer(session, wrong)
            assert torch.equal(session.generator.get_state(), state)
            await engine.answer(session, observed(1))
            assert meta.policy.pads[-1] == [False, False]

    asyncio.run(ask())


def test_sessions_of_one_seed_repeat(sight: MetaPolicy, observed: Any, answering: Any) -> None:
    async def episode(engine: Engine, session: ServingSession) -> list[np.ndarray]:
        messages = [observed(0, reset=True, seed=5), observed(1), observed(2)]
        return [(await engine.answer(session, message))["actions"] for message in messages]

    async def ask() -> list[list[np.ndarray]]:
        async with answering(sight) as engine:
            session = engine.open_session()
            return [
                await episode(engine, session),
                await episode(engine, session),
                await episode(engine, engine.open_session()),
            ]

    first, again, elsewhere = asyncio.run(ask())
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, elsewhere)
    assert not np.array_equal(first[1], first[2])


def test_metadata(build_seeing: Any, answering: Any) -> None:
    sight = build_seeing()
    sight.checkpoint_hash = "abc"

    async def ask() -> tuple[dict[str, Any], ServingSession]:
        async with answering(sight) as engine:
            session = engine.open_session()
            return engine.metadata(session), session

    said, session = asyncio.run(ask())
    assert unpack(pack(said)) == said
    assert said["session"] == session.id
    assert said["protocol_version"] == 1
    assert said["checkpoint_hash"] == "abc"
    assert Features.from_dict(said["features"]) == sight.features
    assert said["chunk_size"] == 4
    assert list(said["observation"]) == ["state", "images/top", "images/wrist", "task"]
    assert said["observation"]["state"] == {"shape": [3], "dtype": "float32"}
    assert said["observation"]["images/top"]["shape"] == [16, 24, 3]
    assert said["observation"]["images/top"]["dtype"] == "uint8"
    assert said["observation"]["images/top"]["colours"] == "RGB"
    assert said["accepts"] == list(OPTIONAL_KEYS)
    assert said["limits"]["max_batch"] == 8


def test_drain_answers_what_was_asked(build_seeing: Any, observed: Any) -> None:
    meta = build_seeing()

    async def ask() -> None:
        engine = Engine(meta, max_batch=2)
        session = engine.open_session()
        with pytest.raises(Busy, match="begins or ends"):
            await engine.answer(session, observed())
        await engine.start()
        asked = [asyncio.ensure_future(engine.answer(engine.open_session(), observed())) for _ in range(5)]
        await asyncio.sleep(0.01)
        await engine.drain(5.0)
        assert all("actions" in answer for answer in await asyncio.gather(*asked))
        with pytest.raises(Busy):
            await engine.answer(session, observed())

    asyncio.run(ask())


def test_drain_ends_in_time(build_seeing: Any, observed: Any) -> None:
    meta = build_seeing()

    async def ask() -> None:
        engine = Engine(meta, max_batch=1)
        await engine.start()
        meta.policy.gate.clear()
        asked = [asyncio.ensure_future(engine.answer(engine.open_session(), observed())) for _ in range(2)]
        await until(lambda: meta.policy.batches[-1] == 1 and len(meta.policy.batches) == 2)
        await engine.drain(0.05)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        meta.policy.gate.set()
        assert all(isinstance(answer, Busy) for answer in answers)

    asyncio.run(ask())


def test_settings_are_checked(sight: MetaPolicy) -> None:
    for wrong in ({"max_batch": 0}, {"max_queue": 0}, {"max_wait_ms": -1}, {"max_wait_ms": 5000}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Engine(sight, **wrong)


def test_a_policy_that_cannot_warm_up(build_seeing: Any) -> None:
    meta = build_seeing()
    meta.policy.of_all = torch.nn.Linear(3, 3)
    with pytest.raises(ContractError, match="warming up: expected SeeingPolicy to answer 1 blank"):
        asyncio.run(Engine(meta).start())


def test_a_policy_whose_code_fails_at_warm_up(build_seeing: Any) -> None:
    meta = build_seeing()

    def select_action(*_: Any, **__: Any) -> Any:
        raise KeyError("proprio")

    meta.policy.select_action = select_action
    with pytest.raises(ContractError, match=r"warming up: .*test_engine.py:\d+: KeyError: 'proprio'"):
        asyncio.run(Engine(meta).start())


@pytest.mark.parametrize("error", [KeyError("proprio"), SystemExit(3), StopIteration()])
def test_whatever_a_policy_raises_ends_a_request_alone(
    build_seeing: Any, observed: Any, answering: Any, error: BaseException
) -> None:
    meta = build_seeing()
    select_action = meta.policy.select_action

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    async def ask() -> None:
        async with answering(meta) as engine:
            session = engine.open_session()
            for part in ("select_action", "reset"):
                setattr(meta.policy, part, fail)
                with pytest.raises(PolicyFailed, match=type(error).__name__):
                    await engine.answer(session, observed(reset=True))
                meta.policy.select_action, meta.policy.reset = select_action, lambda: None
                assert "actions" in await engine.answer(session, observed(reset=True))

    meta.policy.reset = lambda: None
    asyncio.run(ask())


def test_the_policy_s_own_reset_is_called_for_one_session(build_seeing: Any, observed: Any, answering: Any) -> None:
    meta = build_seeing()
    calls: list[int] = []
    meta.policy.reset = lambda: calls.append(1)

    async def ask() -> None:
        async with answering(meta) as engine:
            session = engine.open_session()
            await engine.answer(session, observed())
            await engine.answer(session, observed())
            assert len(calls) == 1
            await engine.answer(session, observed(reset=True))
            assert len(calls) == 2
            engine.open_session()
            await engine.answer(session, observed(reset=True))
            assert len(calls) == 2

    asyncio.run(ask())


_KEYS = st.sampled_from(
    ["state", "images", "prompt", "task", "images/top", "observation/state", "seed", "x", b"state", 3, *OPTIONAL_KEYS]
)
_ARRAYS = hnp.arrays(
    st.sampled_from(["u1", "i8", "f2", "f4", ">f8", "?", "c8", "U3"]).map(np.dtype),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=30),
    _ARRAYS,
    st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    st.dictionaries(st.sampled_from(["top", "wrist", "front", "data"]), _ARRAYS | st.binary(max_size=5), max_size=2),
)


@given(
    put=st.lists(st.tuples(_KEYS, _VALUES), min_size=1, max_size=3),
    taken=st.lists(_KEYS, max_size=1),
    steps=st.sampled_from([1, 2]),
)
def test_any_mutation_is_answered_or_refused(
    put: list[tuple[Any, Any]], taken: list[Any], steps: int, build_seeing: Any, observed: Any
) -> None:
    engine, loop = _shared(build_seeing, steps)
    message = observed(0, deadline_ms=10_000)
    for key in taken:
        message.pop(key, None)
    message |= dict(put)

    async def ask() -> None:
        session = engine.open_session()
        with contextlib.suppress(RequestRefused, Late):
            answer = await engine.answer(session, message)
            assert np.isfinite(answer.get("actions", 0)).all()
        engine.close_session(session)

    loop.run_until_complete(ask())


_kept: dict[int, tuple[Engine, asyncio.AbstractEventLoop]] = {}


def _shared(build_seeing: Any, steps: int) -> tuple[Engine, asyncio.AbstractEventLoop]:
    """One engine for all examples of hypothesis."""
    if steps not in _kept:
        loop = asyncio.new_event_loop()
        engine = Engine(build_seeing(n_obs_steps=steps), max_batch=1)
        loop.run_until_complete(engine.start())
        _kept[steps] = engine, loop
    return _kept[steps]


@pytest.fixture(scope="module", autouse=True)
def _end_the_shared_engines() -> Any:
    yield
    for engine, loop in _kept.values():
        loop.run_until_complete(engine.drain(1.0))
        loop.close()
    _kept.clear()
