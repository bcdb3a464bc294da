"""Small datasets made of arrays, for every test of this directory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.features import CameraFeature, Features, VectorFeature

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lerobot"  # written by LeRobot 0.6.1 itself


class ArrayReader(Reader):
    """Episodes of random arrays; `hook(index)` is called whenever one is read."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        state_dim: int = 3,
        action_dim: int = 2,
        cameras: Mapping[str, tuple[int, int]] | None = None,
        name: str = "arrays",
        seed: int = 0,
        fps: float = 10.0,
        hook: Callable[[int], None] | None = None,
    ) -> None:
        self.name = name
        self.features = Features(
            state=VectorFeature.of_width(state_dim, "s") if state_dim else None,
            action=VectorFeature.of_width(action_dim, "a"),
            cameras={camera: CameraFeature(*size) for camera, size in (cameras or {}).items()},
            fps=fps,
            language=True,
        )
        self._lengths = list(lengths)
        self._seed = seed
        self.hook = hook

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self) -> np.ndarray:
        return np.array(self._lengths, np.int64)

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self._lengths, self._seed, self.features.to_dict())).encode()).hexdigest()

    def episode(self, index: int) -> Episode:
        if self.hook is not None:
            self.hook(index)
        length, rng = self._lengths[index], np.random.default_rng((self._seed, index))
        return Episode(
            state=rng.normal(size=(length, self.features.state_dim)).astype(np.float32),
            action=rng.normal(size=(length, self.features.action_dim)).astype(np.float32),
            images={
                name: rng.integers(256, size=(length, camera.height, camera.width, 3), dtype=np.uint8)
                for name, camera in self.features.cameras.items()
            },
            task=f"task {index % 2}",
            fps=self.features.fps,
            success=True,
            seed=index,
        )


@pytest.fixture(scope="session")
def make_reader() -> Callable[..., ArrayReader]:
    return ArrayReader


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of datasets written by LeRobot itself."""
    return FIXTURES


@pytest.fixture(scope="session")
def golden(fixtures: Path) -> Callable[[str], dict[str, Any]]:
    """What LeRobot itself reads back from a fixture, by name."""
    return lambda name: dict(np.load(fixtures / f"{name}.golden.npz"))
