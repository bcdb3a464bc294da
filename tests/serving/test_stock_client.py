"""openpi's own client from PyPI, sending what the clients of openpi's examples send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from menura.features import CameraFeature
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.serving import background
from menura.serving.server import PolicyServer

RNG = np.random.default_rng(0)
DROID_STATE, LIBERO_STATE, ALOHA_STATE = (RNG.normal(size=width) for width in (8, 8, 14))
ALOHA_CAMERAS = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
PICTURES = RNG.integers(0, 256, (4, 224, 224, 3)).astype(np.uint8)


class Looking(MLPPolicy):
    """Answers the state, and a mean of each picture in which left and right, top and bottom, and colours differ."""

    def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
        image = obs_dict["image"]
        weights = torch.linspace(0.5, 1.5, image[0, 0].numel()).reshape(image.shape[2:])
        seen = (image * weights).mean((2, 3, 4)) @ torch.arange(1.0, image.shape[1] + 1)
        return (obs_dict["state"].sum(1) + seen)[:, None, None].expand(-1, self.config.chunk_size, 2)


@pytest.mark.parametrize(
    ("layout", "cameras", "state", "message"),
    [
        (
            "droid",
            ("exterior_image_1_left", "wrist_image_left"),
            DROID_STATE,
            {
                "observation/exterior_image_1_left": PICTURES[0],
                "observation/wrist_image_left": PICTURES[1],
                "observation/joint_position": DROID_STATE[:7],
                "observation/gripper_position": DROID_STATE[7:],
            },
        ),
        (
            "libero",
            ("image", "wrist_image"),
            LIBERO_STATE,
            {
                "observation/image": PICTURES[0],
                "observation/wrist_image": PICTURES[1],
                "observation/state": LIBERO_STATE,
            },
        ),
        (
            "aloha",
            ALOHA_CAMERAS,
            ALOHA_STATE,
            {
                "state": ALOHA_STATE,
                "images": {name: PICTURES[at].transpose(2, 0, 1) for at, name in enumerate(ALOHA_CAMERAS)},
            },
        ),
    ],
)
def test_each_layout_of_openpi_s_examples(
    build_served: Any, layout: str, cameras: tuple[str, ...], state: np.ndarray, message: Mapping[str, Any]
) -> None:
    meta = build_served(Looking, {name: CameraFeature(224, 224) for name in cameras}, len(state))
    observation = {
        "state": state[None].astype(np.float32),
        "images": {name: PICTURES[at][None] for at, name in enumerate(cameras)},
        "task": ["do something"],
    }
    with background.serving(PolicyServer(meta, port=0, keys=layout)) as server:
        client = WebsocketClientPolicy("127.0.0.1", server.port)
        answer = client.infer({**message, "prompt": "do something"})
    np.testing.assert_array_equal(answer["actions"], meta.predict(observation)[0])


def test_a_policy_with_a_history_is_shown_the_client_s_own(build_served: Any) -> None:
    """The stock client sends one observation at a time: those before it are its session's."""
    meta = build_served(n_obs_steps=2)
    states = RNG.normal(size=(3, 3)).astype(np.float32)
    with background.serving(PolicyServer(meta, port=0)) as server:
        first, second = (WebsocketClientPolicy("127.0.0.1", server.port) for _ in range(2))
        for step, state in enumerate(states):
            answer = first.infer({"state": state, "prompt": "go"})
            history = np.stack([states[max(step - 1, 0)], state])
            np.testing.assert_array_equal(answer["actions"], meta.predict({"state": history[None]})[0])
            second.infer({"state": -state, "prompt": "go"})
