"""Data and policies that several tests of this room share."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from menura.features import CameraFeature, Features, VectorFeature

GUIDE = Path(__file__).parents[1] / "guide"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def features() -> Features:
    """State (5,), action (3,), two cameras."""
    return Features(
        state=VectorFeature.of_width(5, "state"),
        action=VectorFeature.of_width(3, "action"),
        cameras={"front": CameraFeature(32, 32), "wrist": CameraFeature(32, 32)},
        fps=10.0,
    )


@pytest.fixture
def import_file() -> Callable[[Path], object]:
    """Imports a user's file as `policy.<stem>`, as the loader of components does."""

    def load(path: Path) -> object:
        name = f"policy.{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def guide_policy(import_file: Callable[[Path], object]) -> type:
    """The guide's example with its three faults mended."""
    return import_file(GUIDE / "mended/policy/my_cool_policy.py").MyCoolPolicy  # type: ignore[attr-defined]
