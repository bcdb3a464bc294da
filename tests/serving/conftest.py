"""A small policy to serve: state (3,) -> 4 actions of 2 numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from menura.config.schema import ProcessorConfig
from menura.data.statistics import compute_statistics
from menura.features import Features, VectorFeature
from menura.meta_policy import MetaPolicy
from menura.policies.contract import build_policy
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.processing.processor import Processor


def served(policy_class: type[MLPPolicy] = MLPPolicy, **settings: Any) -> MetaPolicy:
    features = Features(VectorFeature.of_width(3, "s"), VectorFeature.of_width(2, "a"), fps=10.0)
    rows = np.random.default_rng(0).normal(size=(50, 5))
    statistics = {"toy": {"state": compute_statistics(rows[:, :3]), "action": compute_statistics(rows[:, 3:])}}
    policy = build_policy(policy_class, {"chunk_size": 4, "n_action_steps": 2, "hidden_size": 8} | settings, features)
    return MetaPolicy(policy, Processor.build(ProcessorConfig(), features, statistics, policy.config))


@pytest.fixture(scope="session")
def build_served() -> Any:
    """`served(policy_class=MLPPolicy, **settings)`: a `MetaPolicy` of the toy features."""
    return served


@pytest.fixture(scope="session")
def meta() -> MetaPolicy:
    return served()
