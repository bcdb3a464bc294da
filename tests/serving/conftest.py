"""A small policy to serve: state (3,) -> 4 actions of 2 numbers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from menura.config.schema import ProcessorConfig
from menura.data.statistics import compute_statistics
from menura.features import CameraFeature, Features, VectorFeature
from menura.meta_policy import MetaPolicy
from menura.policies.contract import build_policy
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.processing.processor import Processor


class Gated(MLPPolicy):
    """Answers when it is let, and counts how often it was asked."""

    gate = threading.Event()
    asked = threading.Semaphore(0)
    calls = 0

    @staticmethod
    def close_gate() -> None:
        Gated.gate.clear()
        Gated.calls, Gated.asked = 0, threading.Semaphore(0)

    def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
        Gated.calls += 1
        self.asked.release()
        assert self.gate.wait(30)
        return super().select_action(obs_dict)


class Seeing(MLPPolicy):
    """Answers how bright its pictures are."""

    def select_action(self, obs_dict: dict[str, Any]) -> torch.Tensor:
        brightness = obs_dict["image"].flatten(1).mean(1)
        return brightness[:, None, None].expand(-1, self.config.chunk_size, self.config.action_dim)


def served(
    policy_class: type[MLPPolicy] = MLPPolicy,
    cameras: dict[str, CameraFeature] | None = None,
    width: int = 3,
    **settings: Any,
) -> MetaPolicy:
    features = Features(VectorFeature.of_width(width, "s"), VectorFeature.of_width(2, "a"), cameras or {}, fps=10.0)
    rows = np.random.default_rng(0).normal(size=(50, width + 2))
    statistics = {"toy": {"state": compute_statistics(rows[:, :width]), "action": compute_statistics(rows[:, width:])}}
    policy = build_policy(policy_class, {"chunk_size": 4, "n_action_steps": 2, "hidden_size": 8} | settings, features)
    policy.config.camera_names = list(features.cameras)
    uses = ("image", "state") if cameras else ("state",)
    return MetaPolicy(policy, Processor.build(ProcessorConfig(), features, statistics, policy.config, uses=uses))


@pytest.fixture(scope="session")
def build_served() -> Any:
    """`served(policy_class=MLPPolicy, cameras=None, width=3, **settings)`: a `MetaPolicy`, of a state of that width."""
    return served


@pytest.fixture(scope="session")
def meta() -> MetaPolicy:
    return served()


@pytest.fixture(scope="session")
def seeing() -> MetaPolicy:
    """One that answers how bright the picture of its camera `top`, of 16 x 20, is."""
    return served(Seeing, {"top": CameraFeature(16, 20)})


@pytest.fixture
def gated() -> Iterator[tuple[MetaPolicy, type[Gated]]]:
    """A policy that answers once its `gate` is set, and its class; `asked` is released at each call."""
    gated_meta = served(Gated)
    Gated.gate.set()
    yield gated_meta, Gated
    Gated.gate.set()
