"""GR00T's clients, in both dialects, are answered as any other; `zmq` speaks its wire as documented."""

from __future__ import annotations

import asyncio
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from menura.errors import MenuraError
from menura.meta_policy import MetaPolicy
from menura.serving import background
from menura.serving.doors.access import Limits
from menura.serving.server import PolicyServer

STATE = np.array([0.1, -0.2, 0.3], np.float32)


class GrootClient:
    """A REQ socket and GR00T's wire format (Isaac-GR00T, `PolicyClient.call_endpoint`)."""

    def __init__(self, server: PolicyServer, token: str | None = None, identity: bytes | None = None) -> None:
        self.token = token
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 10_000)
        if identity is not None:
            self.socket.setsockopt(zmq.IDENTITY, identity)
        self.socket.connect(f"tcp://127.0.0.1:{server.zmq_port}")

    def call(self, endpoint: str, data: Any = None) -> Any:
        request: dict[str, Any] = {"endpoint": endpoint}
        if data is not None:
            request["data"] = data
        if self.token is not None:
            request["api_token"] = self.token
        self.socket.send(msgpack.packb(request, default=self._encode))
        return self.receive()

    def receive(self) -> Any:
        return msgpack.unpackb(self.socket.recv(), object_hook=self._decode)

    def error(self, endpoint: str, data: Any = None) -> str:
        answer = self.call(endpoint, data)
        assert set(answer) == {"error"}
        return answer["error"]

    @staticmethod
    def _encode(value: np.ndarray) -> dict[str, Any]:
        output = io.BytesIO()
        np.save(output, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": output.getvalue()}

    @staticmethod
    def _decode(value: dict[str, Any]) -> Any:
        return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False) if "__ndarray_class__" in value else value

    def __enter__(self) -> GrootClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@contextmanager
def serving(meta: MetaPolicy, **options: Any) -> Iterator[PolicyServer]:
    with background.serving(PolicyServer(meta, **{"port": 0, "zmq_port": 0, **options})) as server:
        yield server


@pytest.fixture(scope="module")
def server(meta: MetaPolicy) -> Iterator[PolicyServer]:
    with serving(meta) as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def n1d6(state: np.ndarray = STATE, **video: np.ndarray) -> dict[str, Any]:
    """As of N1.6: a batch of one, one step of time."""
    return {
        "observation": {
            "video": {camera: image[None, None] for camera, image in video.items()},
            "state": {"state": state[None, None]},
            "language": {"annotation.human.task_description": [["go"]]},
        },
        "options": None,
    }


def n1d5(state: np.ndarray = STATE, **video: np.ndarray) -> dict[str, Any]:
    """As of N1.5: flat, one step of time."""
    images = {f"video.{camera}": image[None] for camera, image in video.items()}
    return {"state.state": state[None], "annotation.human.action.task_description": ["go"], **images}


def expected(meta: MetaPolicy, state: np.ndarray = STATE) -> np.ndarray:
    return meta.predict({"state": state[None], "task": ["go"]})[0]


def test_both_dialects(server: PolicyServer, meta: MetaPolicy) -> None:
    with GrootClient(server) as client:
        assert client.call("ping") == {"status": "ok", "message": "Server is running"}
        actions, info = client.call("get_action", n1d6())
        np.testing.assert_array_equal(actions["action"], expected(meta)[None])
        assert actions["action"].dtype == np.float32
        assert info["policy_timing"]["infer_ms"] > 0
        np.testing.assert_array_equal(client.call("get_action", n1d5())["action"], expected(meta))
        flat_and_batched = {"observation": {"state.state": STATE[None, None], "task": ["go"]}}
        np.testing.assert_array_equal(client.call("get_action", flat_and_batched)[0]["action"], expected(meta)[None])
        assert client.call("reset", {"options": None}) == {}
        assert client.call("reset") == {}


def test_pictures(seeing: MetaPolicy) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    bright = seeing.predict({"state": STATE[None], "images": {"top": picture[None]}})[0]
    with serving(seeing) as server, GrootClient(server) as client:
        np.testing.assert_array_equal(client.call("get_action", n1d5(top=picture))["action"], bright)
        np.testing.assert_array_equal(client.call("get_action", n1d6(top=picture))[0]["action"][0], bright)
        said = client.call("get_modality_config")
        assert said["video"]["as_json"]["modality_keys"] == ["top"]
        assert said["state"]["as_json"]["modality_keys"] == ["state"]
        assert said["action"]["as_json"]["delta_indices"] == [0, 1, 2, 3]


def test_names_of_a_layout(seeing: MetaPolicy, tmp_path: Path) -> None:
    """Those of a client that has an arm and a gripper, in each of the three ways that GR00T's clients ask."""
    layout = tmp_path / "so100.yaml"
    layout.write_text(
        "state: {state/arm: 2, state/gripper: 1}\n"
        "cameras: {video/webcam: [front, top]}\n"
        "task: language/annotation.human.task_description\n"
        "actions: {arm: 1, gripper: 1}\n"
    )
    picture = np.full((16, 20, 3), 100, np.uint8)
    bright = seeing.predict({"state": STATE[None], "images": {"top": picture[None]}})[0]
    nested = n1d6(webcam=picture)
    nested["observation"]["state"] = {"arm": STATE[None, None, :2], "gripper": STATE[None, None, 2:]}
    flat = {
        "video.webcam": picture[None],
        "state.arm": STATE[None, :2],
        "state.gripper": STATE[None, 2:],
        "annotation.human.task_description": ["go"],
    }
    simulated = {"observation": {key: value[None] if hasattr(value, "ndim") else value for key, value in flat.items()}}
    with serving(seeing, keys=layout) as server, GrootClient(server) as client:
        to_nested, _ = client.call("get_action", nested)
        to_simulated, _ = client.call("get_action", simulated)
        to_flat = client.call("get_action", flat)
        said = client.call("get_modality_config")
    for actions, prefix in ((to_nested, ""), (to_simulated, "action."), (to_flat, "action.")):
        assert list(actions) == [f"{prefix}arm", f"{prefix}gripper"]
        whole = np.concatenate([actions[f"{prefix}arm"], actions[f"{prefix}gripper"]], axis=-1)
        np.testing.assert_array_equal(whole, bright if actions is to_flat else bright[None])
    assert {modality: config["as_json"]["modality_keys"] for modality, config in said.items()} == {
        "video": ["webcam"],
        "state": ["arm", "gripper"],
        "action": ["arm", "gripper"],
        "language": ["annotation.human.task_description"],
    }


def test_every_identity_is_a_session(build_served: Any) -> None:
    meta = build_served(n_obs_steps=2)
    both = np.stack([STATE, STATE + 1])
    alone = meta.predict({"state": np.stack([both[:1], both[:1]], 1)[0][None]})[0]
    with serving(meta) as server, GrootClient(server) as one, GrootClient(server) as other:
        one.call("get_action", n1d5(both[0]))
        np.testing.assert_array_equal(other.call("get_action", n1d5(both[0]))["action"], alone)
        with_history = meta.predict({"state": both[None]})[0]
        np.testing.assert_array_equal(one.call("get_action", n1d5(both[1]))["action"], with_history)
        one.call("reset")
        np.testing.assert_array_equal(one.call("get_action", n1d5(both[0]))["action"], alone)
        given = {"state.state": both, "task": "go"}  # the client keeps the history
        np.testing.assert_array_equal(one.call("get_action", given)["action"], with_history)


def test_identities_expire(meta: MetaPolicy) -> None:
    with serving(meta, limits=Limits(idle_s=0.0, sessions=1)) as server:
        for number in range(5):
            with GrootClient(server, identity=b"robot %d" % number) as client:
                assert "action" in client.call("get_action", n1d5())
                time.sleep(0.002)
    with serving(meta, limits=Limits(sessions=1)) as server, GrootClient(server) as one, GrootClient(server) as other:
        one.call("reset")
        assert "at most 1 of them" in other.error("reset")


def test_clients_do_not_wait_for_each_other(gated: Any) -> None:
    meta, policy = gated
    with serving(meta) as server, GrootClient(server) as one, GrootClient(server) as other:
        policy.close_gate()
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(one.call("get_action", n1d5())))
        asking.start()
        policy.asked.acquire()
        assert other.call("ping")["status"] == "ok"
        policy.gate.set()
        asking.join(10)
        assert answers[0]["action"].shape == (4, 2)


WRONG: list[tuple[Any, str]] = [
    (None, "data: expected a map"),
    ({}, "state: expected"),
    ({"state.state": [1, 2, 3]}, "expected an array, got list"),
    ({"state.state": STATE}, "expected 2 axes"),
    ({"state.state": STATE[None, None, None]}, "expected 2 axes"),
    ({"state.state": np.stack([STATE[None]] * 2)}, "batch of 1, got 2"),
    ({"state.state": np.full((1, 3), np.nan, np.float32)}, "finite"),
    ({"state.arm": STATE[None], "state.gripper": STATE[None]}, "expected one, got arm, gripper.*--keys"),
    ({"state.state": STATE[None], "task": ["a", "b"]}, "expected one text"),
    ({"state.state": STATE[None], "nonsense": 1}, "expected video, state, language"),
    ({"observation": {"state": {"state": STATE}}}, "expected 3 axes"),
    ({"observation": {"state": STATE}}, "expected video, state, language"),
    ({"state.state": STATE[None], "video.wrist": np.zeros((1, 4, 4, 3), np.uint8)}, "images/wrist|unknown|wrist"),
]


@pytest.mark.parametrize(("data", "message"), WRONG)
def test_what_is_refused(server: PolicyServer, meta: MetaPolicy, data: Any, message: str) -> None:
    with GrootClient(server) as client:
        assert re.search(message, client.error("get_action", data))
        np.testing.assert_array_equal(client.call("get_action", n1d5())["action"], expected(meta))


def test_unknown_endpoints_and_damaged_requests(server: PolicyServer, meta: MetaPolicy) -> None:
    with GrootClient(server) as client:
        assert "expected one of ping, get_action" in client.error("nonsense")
        for damaged in (b"", b"\xc1", b"\x93", msgpack.packb([1]), msgpack.packb({"endpoint": {}})):
            client.socket.send(damaged)
            assert "expected" in client.receive()["error"]
    dealer = zmq.Context.instance().socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.connect(f"tcp://127.0.0.1:{server.zmq_port}")
    for parts in ([b"x"], [b"a", b"b"], [b"", b"a", b"b"]):  # no REQ socket sends these
        dealer.send_multipart(parts)
    with GrootClient(server) as client:
        np.testing.assert_array_equal(client.call("get_action", n1d5())["action"], expected(meta))
    dealer.close()


def test_a_message_that_is_too_large_harms_nobody(meta: MetaPolicy) -> None:
    with serving(meta, limits=Limits(frame_bytes=10_000)) as server, GrootClient(server) as large:
        large.socket.send(b"\xc4" * 20_000)
        with GrootClient(server) as client:
            assert client.call("get_action", n1d5())["action"].shape == (4, 2)
        assert large.socket.poll(50) == 0


def test_a_token_where_there_is_a_key(meta: MetaPolicy) -> None:
    with serving(meta, api_key="secret") as server:
        for token in (None, "other", ["secret"]):
            with GrootClient(server, token) as client:  # type: ignore[arg-type]
                for endpoint in ("ping", "get_action", "kill"):
                    assert "api_token: expected the server's key" in client.error(endpoint)
        with GrootClient(server, "secret") as client:
            assert client.call("get_action", n1d5())["action"].shape == (4, 2)
    with pytest.raises(MenuraError, match="expected a key to listen on"):
        PolicyServer(meta, host="0.0.0.0", zmq_port=0)


def test_kill_needs_a_key(meta: MetaPolicy) -> None:
    async def scenario(token: str | None) -> dict[str, Any]:
        server = PolicyServer(meta, port=0, zmq_port=0, api_key=token)
        async with await server.start() as listening:
            loop = asyncio.get_running_loop()
            with GrootClient(server, token) as client:
                answer = await loop.run_in_executor(None, client.call, "kill")
            if token is not None:
                await asyncio.wait_for(listening.serve_forever(), 10)
            return dict(answer)

    assert "expected a server with a key" in asyncio.run(scenario(None))["error"]
    assert asyncio.run(scenario("secret"))["status"] == "ok"


def test_what_was_asked_is_answered_before_the_end(gated: Any) -> None:
    meta, policy = gated

    async def scenario() -> Any:
        server = PolicyServer(meta, port=0, zmq_port=0)
        listening = await server.start()
        loop = asyncio.get_running_loop()
        with GrootClient(server) as client:
            policy.close_gate()
            asking = loop.run_in_executor(None, client.call, "get_action", n1d5())
            await loop.run_in_executor(None, policy.asked.acquire)
            closing = asyncio.create_task(listening.close())
            await asyncio.sleep(0.02)
            policy.gate.set()
            await closing
            return await asking

    assert asyncio.run(scenario())["action"].shape == (4, 2)


def test_a_flood_of_one_client_is_not_the_others(gated: Any) -> None:
    meta, policy = gated
    request = msgpack.packb({"endpoint": "get_action", "data": n1d5()}, default=GrootClient._encode)
    with serving(meta, max_batch=1, max_wait_ms=0) as server, GrootClient(server) as other:
        policy.close_gate()
        flood = zmq.Context.instance().socket(zmq.DEALER)
        flood.setsockopt(zmq.LINGER, 0)
        flood.setsockopt(zmq.RCVTIMEO, 10_000)
        flood.connect(f"tcp://127.0.0.1:{server.zmq_port}")
        for _ in range(300):
            flood.send_multipart([b"", request])
        assert b"of its requests to wait" in flood.recv_multipart()[1]
        policy.gate.set()
        assert other.call("get_action", n1d5())["action"].shape == (4, 2)
        flood.close()


def test_a_port_in_use(server: PolicyServer, meta: MetaPolicy) -> None:
    with pytest.raises(MenuraError, match=r"expected to listen on tcp://127.0.0.1:\d+, got: .*in use.*--zmq_port"):
        background.serving(PolicyServer(meta, port=0, zmq_port=server.zmq_port)).__enter__()
