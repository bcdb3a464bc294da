"""A small policy to serve that sees, reads, remembers and samples."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from menura.config.schema import ProcessorConfig
from menura.data.statistics import compute_statistics
from menura.features import CameraFeature, Features, VectorFeature
from menura.meta_policy import MetaPolicy
from menura.processing.processor import Processor
from menura.serving.engine import Engine


class SeeingConfig(PretrainedConfig):
    """Takes `seconds` for a batch of any size; fails where the first number of the state, normalized, is above 100."""

    def __init__(
        self,
        chunk_size: int = 4,
        n_obs_steps: int = 1,
        observation_offsets: Sequence[int] | None = None,
        image_size: Sequence[int] = (8, 12),
        seconds: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.chunk_size = chunk_size
        self.n_obs_steps = n_obs_steps
        self.observation_offsets = observation_offsets
        self.image_size = list(image_size)
        self.seconds = seconds


class SeeingPolicy(PreTrainedModel):
    """Random nets of all it is given, and noise. `batches` are the sizes of what it was asked; it waits at `gate`."""

    config_class = SeeingConfig

    def __init__(self, config: SeeingConfig) -> None:
        super().__init__(config)
        height, width = config.image_size
        self.of_state = nn.Linear(3 * config.n_obs_steps, 8)
        self.of_image = nn.Linear(2 * 3 * height * width * config.n_obs_steps, 8)
        self.of_all = nn.Linear(16, config.chunk_size * 2)
        self.batches: list[int] = []
        self.pads: list[list[bool]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.post_init()

    def forward(self, state: Any, image: Any, task: Any = None, actions: Any = None, is_pad: Any = None) -> Any:
        raise NotImplementedError("it is only asked")

    def select_action(self, obs_dict: dict[str, Any], generator: Sequence[torch.Generator] | None = None) -> Any:
        time.sleep(self.config.seconds)
        state = obs_dict["state"].flatten(1)
        self.batches.append(len(state))
        assert self.gate.wait(30), "the gate is opened"
        self.pads += obs_dict.get("observation_is_pad", torch.zeros(0, 0, dtype=torch.bool)).tolist()
        parts = torch.cat([self.of_state(state), self.of_image(obs_dict["image"].flatten(1))], dim=1).tanh()
        chunk = self.of_all(parts).reshape(len(state), -1, 2)
        chunk = chunk + torch.tensor([len(task) for task in obs_dict["task"]])[:, None, None] / 10
        if generator is not None:
            chunk = chunk + torch.stack([torch.randn(chunk.shape[1:], generator=row) for row in generator])
        return torch.where(state[:, :1, None] > 100, torch.nan, chunk)


def seeing(**settings: Any) -> MetaPolicy:
    """Two cameras, `top` of 16 x 24 pixels and `wrist` of 8 x 12, an instruction."""
    cameras = {"top": CameraFeature(16, 24), "wrist": CameraFeature(8, 12)}
    features = Features(
        VectorFeature.of_width(3, "s"), VectorFeature.of_width(2, "a"), cameras=cameras, fps=10.0, language=True
    )
    rows = np.random.default_rng(0).normal(size=(50, 5))
    statistics = {"toy": {"state": compute_statistics(rows[:, :3]), "action": compute_statistics(rows[:, 3:])}}
    torch.manual_seed(0)
    resize = settings.pop("resize", "stretch")
    policy = SeeingPolicy(SeeingConfig(camera_names=["top", "wrist"], **settings))
    processor = Processor.build(
        ProcessorConfig(resize=resize), features, statistics, policy.config, uses=("state", "image", "task")
    )
    return MetaPolicy(policy, processor)


@pytest.fixture(scope="session")
def build_seeing() -> Any:
    """`seeing(**settings)`: a policy of two cameras, state and text, with noise; settings as of `SeeingConfig`."""
    return seeing


@pytest.fixture(scope="session")
def sight() -> MetaPolicy:
    return seeing()


@pytest.fixture(scope="session")
def observed() -> Any:
    """`observed(number, **more)`: the message of one observation of the seeing policy."""

    def message(number: int = 0, **more: Any) -> dict[str, Any]:
        rng = np.random.default_rng(number)
        return {
            "state": rng.normal(size=3).astype(np.float32),
            "images": {
                "top": rng.integers(0, 256, (16, 24, 3)).astype(np.uint8),
                "wrist": rng.integers(0, 256, (8, 12, 3)).astype(np.uint8),
            },
            "prompt": "go " * (number % 3 + 1),
        } | more

    return message


@pytest.fixture(scope="session")
def answering() -> Any:
    """`async with answering(meta, …) as engine`: one that was started, and is drained at the end."""

    @asynccontextmanager
    async def started(meta: MetaPolicy, **settings: Any) -> AsyncIterator[Engine]:
        engine = Engine(meta, **settings)
        await engine.start()
        getattr(meta.policy, "batches", []).clear()
        yield engine
        await engine.drain(5.0)

    return started
