"""Fixtures of the evaluation tests: a toy environment and toy policies (see `toy.py`)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_FILE = Path(__file__).with_name("toy.py")


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module `toy.py`."""
    spec = importlib.util.spec_from_file_location("menura_toy", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["menura_toy"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy_env() -> Any:
    """`toy_env(**args)` -> the config of a ToyEnv."""
    return lambda **args: {"class": f"{_FILE}:ToyEnv", "args": args}
