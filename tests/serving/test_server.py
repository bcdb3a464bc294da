"""The server answers what the policy answers, and takes nothing from strangers."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
import torch
from websockets.sync.client import connect

from menura.errors import ContractError, MenuraError
from menura.features import Features
from menura.meta_policy import MetaPolicy
from menura.served_policy import ServedPolicy
from menura.serving import background
from menura.serving.client import Client, ServerError
from menura.serving.run import serve
from menura.serving.server import PolicyServer


@contextmanager
def serving(meta: MetaPolicy, api_key: str | None = None) -> Iterator[int]:
    """The port of a server on the loopback."""
    with background.serving(PolicyServer(meta, port=0, api_key=api_key)) as server:
        yield server.port


def test_answers_equal_the_policy_s(meta: MetaPolicy) -> None:
    state = np.array([0.1, -0.2, 0.3], np.float32)
    with serving(meta) as port, Client(f"ws://127.0.0.1:{port}") as client:
        assert client.metadata["chunk_size"] == 4
        assert Features.from_dict(client.metadata["features"]) == meta.features
        answer = client.infer({"state": state, "prompt": "go"})
        np.testing.assert_array_equal(answer["actions"], meta.predict({"state": state[None], "task": ["go"]})[0])
        assert answer["actions"].shape == (4, 2)
        assert answer["server_timing"]["infer_ms"] > 0


def test_a_wrong_observation_is_an_error_to_its_sender_alone(meta: MetaPolicy) -> None:
    good = {"state": np.zeros(3, np.float32)}
    with serving(meta) as port, Client(f"ws://127.0.0.1:{port}") as other:
        for wrong in ({"state": np.zeros(5, np.float32)}, {"state": np.full(3, np.nan, np.float32)}, {}, {"images": 3}):
            with Client(f"ws://127.0.0.1:{port}") as client, pytest.raises(ServerError, match="expected"):
                client.infer(wrong)
        with connect(f"ws://127.0.0.1:{port}") as raw:
            raw.recv()
            raw.send(b"\xc1 not msgpack")
            assert "reading a frame" in str(raw.recv())
        assert other.infer(good)["actions"].shape == (4, 2)


def test_health(meta: MetaPolicy) -> None:
    with serving(meta, api_key="secret") as port:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz").read() == b"OK\n"


def test_a_key_is_checked(meta: MetaPolicy) -> None:
    with serving(meta, api_key="secret") as port:
        for wrong in (None, "Secret", "secret2"):
            with pytest.raises(ServerError, match="401"):
                Client(f"ws://127.0.0.1:{port}", api_key=wrong)
        with Client(f"ws://127.0.0.1:{port}", api_key="secret") as client:
            assert client.metadata["protocol_version"] == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example"])
def test_no_key_no_other_address(meta: MetaPolicy, host: str) -> None:
    with pytest.raises(MenuraError, match="expected a key to listen on"):
        PolicyServer(meta, host=host)


def test_from_pretrained_asks_a_server(meta: MetaPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    obs = {"state": np.array([[0.1, -0.2, 0.3], [1, 2, 3]], np.float32), "task": "go"}
    with serving(meta, api_key="secret") as port:
        address = f"ws://127.0.0.1:{port}"
        with pytest.raises(ServerError, match="401"):
            MetaPolicy.from_pretrained(address)
        with closing(MetaPolicy.from_pretrained(address, api_key="secret")) as given:
            one_by_one = [meta.predict({"state": obs["state"][i : i + 1], "task": "go"})[0] for i in range(2)]
            np.testing.assert_array_equal(given.predict(obs), one_by_one)
            with pytest.raises(ContractError, match="which the server draws"):
                given.predict(obs, noise=torch.zeros(2))
        monkeypatch.setenv("MENURA_API_KEY", "secret")
        with closing(MetaPolicy.from_pretrained(address)) as served:
            assert isinstance(served, ServedPolicy)
            assert served.features == meta.features
            for name in ("chunk_size", "n_action_steps", "n_obs_steps", "observation_offsets", "required_cameras"):
                assert getattr(served, name) == getattr(meta, name)
            assert served.session(2).select_action(obs).shape == (2, 2)


def test_a_server_is_not_served_again() -> None:
    with pytest.raises(ContractError, match="got a server's address ws"):
        serve("ws://127.0.0.1:1")


def test_nobody_there() -> None:
    with pytest.raises(ServerError, match=r"expected a policy server.*menura serve"):
        Client("ws://127.0.0.1:1", timeout_s=2)
