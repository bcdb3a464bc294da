"""Fixtures of the evaluation tests: a toy environment and toy policies (see `toy.py`)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_FILE = Path(__file__).with_name("toy.py")
_ARM = Path(__file__).with_name("arm.py")


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module `toy.py`."""
    return _module("menura_toy", _FILE)


@pytest.fixture(scope="session")
def arm() -> ModuleType:
    """The module `arm.py`."""
    return _module("menura_arm", _ARM)


def _module(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arm_env() -> Any:
    """`arm_env(**args)` -> the config of an ArmEnv."""
    return lambda **args: {"class": f"{_ARM}:ArmEnv", "args": args}


@pytest.fixture
def toy_env() -> Any:
    """`toy_env(**args)` -> the config of a ToyEnv."""
    return lambda **args: {"class": f"{_FILE}:ToyEnv", "args": args}


@pytest.fixture
def toy_meta(toy_policy: Any) -> Any:
    """A small policy of the toy environment, not trained; it samples nothing."""
    return toy_policy("MLPPolicy", hidden_size=32, chunk_size=8, n_action_steps=4)


@pytest.fixture
def toy_policy(toy: ModuleType) -> Any:
    """`toy_policy("FlowPolicy", **args)` -> a MetaPolicy of the toy environment, not trained."""
    import numpy as np
    import torch

    from menura.components import load
    from menura.config.schema import ProcessorConfig
    from menura.meta_policy import MetaPolicy
    from menura.policies.contract import build_policy
    from menura.processing.normalizer import Rows
    from menura.processing.processor import Processor

    def rows(width: int) -> Rows:
        ones = np.ones(width)
        return Rows(0 * ones, 0.2 * ones, -ones, ones, -ones, ones)

    def make(name: str, **args: Any) -> MetaPolicy:
        torch.manual_seed(0)
        features = toy.ToyEnv().features
        policy = build_policy(load("policy", name, Path.cwd()), args, features)
        statistics = {"demos": {"state": rows(2), "action": rows(1)}}
        processor = Processor.build(ProcessorConfig(state="identity"), features, statistics, policy.config)
        return MetaPolicy(policy, processor, checkpoint_hash="abc")

    return make
