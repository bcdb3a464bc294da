import importlib.util
import multiprocessing
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from menura.features import VectorFeature
from menura.processing.rotations import angle

LAB = Path(__file__).with_name("lab.py")
KILLED = Path(__file__).with_name("killed.py")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's project, and the working directory."""
    source = Path(__file__).with_name("project")
    shutil.copytree(source, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """The toy training of `lab.py`, in this process."""
    spec = importlib.util.spec_from_file_location("menura_training_lab", LAB)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def in_lab() -> Callable[..., int]:
    """Runs `lab.py` in a process of its own and returns its exit code; -9 when it was killed."""

    def run(out: Path, **settings: Any) -> int:
        given = {"OUT": str(out), "STEPS": 10, "KILL_AT": None, "PART": "step", "FULL_AT": None, "EMA": None}
        return _in_child(LAB, {**given, "OPTIONS": {}, **settings})

    return run


@pytest.fixture(scope="session")
def train_in_child() -> Callable[..., int]:
    """Runs `killed.py` in a process of its own and returns its exit code; -9 when it was killed."""
    return lambda **settings: _in_child(KILLED, settings)


def _in_child(script: Path, settings: dict[str, Any]) -> int:
    context = multiprocessing.get_context("forkserver")  # imports once, forks many times
    context.set_forkserver_preload(["menura.training.assembly", "menura.config", "runpy"])
    process = context.Process(
        target=runpy.run_path, args=(str(script),), kwargs={"init_globals": {"SETTINGS": settings}, "run_name": "lab"}
    )
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the training did not end"
    return process.exitcode


@pytest.fixture(scope="session")
def assert_same_actions() -> Callable[[np.ndarray, np.ndarray, VectorFeature], None]:
    """Equal within what float32 keeps; rotations the same rotations."""

    def check(got: np.ndarray, expected: np.ndarray, feature: VectorFeature) -> None:
        plain = np.ones(feature.dim, bool)
        for rotation in feature.rotations:
            at = [feature.names.index(name) for name in rotation.names]
            plain[at] = False
            assert angle(got[..., at], expected[..., at], rotation.representation).max() < 1e-4
        assert np.abs(got - expected)[..., plain].max() < 1e-5

    return check
