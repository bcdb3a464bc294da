"""A clean dataset of a small robot: smooth, followed with a lag, a little noise, and a camera that sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data.checking import Finding, Report, check_dataset
from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.features import CameraFeature, Features, VectorFeature

FPS = 20.0
JOINTS = ("base", "shoulder", "elbow", "wrist")
NAMES = (*JOINTS, "gripper")
UNITS = ("rad",) * 4 + ("m",)
GRIPPERS = {"gripper": (0.0, 0.08)}
FEATURES = Features(
    state=VectorFeature(NAMES, UNITS, grippers=GRIPPERS),
    action=VectorFeature(NAMES, UNITS, grippers=GRIPPERS),
    cameras={"top": CameraFeature(24, 32)},
    fps=FPS,
    language=True,
    control_space="joint",
    control_type="abs",
    robot="toy",
)


@dataclass
class Take:
    """One episode whose arrays a test may spoil."""

    state: np.ndarray
    action: np.ndarray
    images: dict[str, np.ndarray]
    task: str = "move there"
    timestamps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.action)


@dataclass
class Takes(Reader):
    """A reader of takes."""

    takes: list[Take]
    features: Features = FEATURES
    name: str = "toy"
    counted: list[int] | None = None
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.takes)

    def lengths(self) -> np.ndarray:
        return np.array(self.counted or [len(take) for take in self.takes], np.int64)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.features, self.name, self.counted)).encode())
        for take in self.takes:
            for array in (take.state, take.action, *take.images.values(), take.timestamps):
                digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
            digest.update(take.task.encode())
        return digest.hexdigest()

    def episode(self, index: int) -> Episode:
        self.read.append(index)
        take = self.takes[index]
        return Episode(take.state, take.action, take.images, take.task, self.features.fps, take.timestamps)


def smooth(rng: np.random.Generator, length: int, low: float, high: float, stops: int = 5) -> np.ndarray:
    """(length,) from stop to stop with no jerk at either end (the quintic of Flash & Hogan 1985)."""
    goals = rng.uniform(low, high, stops)
    at = np.linspace(0, stops - 1, length)
    leg = np.minimum(at.astype(int), stops - 2)
    x = at - leg
    return goals[leg] + (goals[leg + 1] - goals[leg]) * x**3 * (10 - 15 * x + 6 * x**2)


def followed(target: np.ndarray, lag: float = 0.5) -> np.ndarray:
    """What a controller makes of targets: a first-order lag."""
    done = target.copy()
    for t in range(1, len(target)):
        done[t] = done[t - 1] + lag * (target[t - 1] - done[t - 1])
    return done


def picture(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(24, 32, 3): a bright hand over a shaded table."""
    rows, columns = np.mgrid[0:24, 0:32]
    table = 60 + 2 * rows + columns
    y, x = 12 + 8 * np.sin(joints[0]), 16 + 10 * np.sin(joints[1])
    hand = 120 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)
    frame = np.stack([table + hand, table, table + 0.5 * hand], axis=-1)
    return np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8)


def take(seed: int) -> Take:
    """One clean episode."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(80, 130))
    target = np.stack([smooth(rng, length, -1, 1) for _ in JOINTS], axis=1)
    close = int(rng.integers(15, length // 2))
    open_ = int(rng.integers(close + 15, length - 10))
    gripper = np.full(length, 0.08)
    gripper[close:open_] = 0.0
    action = np.column_stack([target, gripper])
    state = np.column_stack([followed(target), followed(gripper, 0.2)])
    state += rng.normal(0, [2e-4] * 4 + [2e-5], state.shape)  # encoders
    images = np.stack([picture(joints, rng) for joints in state])
    return Take(state.astype(np.float32), action.astype(np.float32), {"top": images})


@pytest.fixture(scope="session")
def _clean() -> list[Take]:
    return [take(seed) for seed in range(8)]


@pytest.fixture(scope="session")
def clean(_clean: list[Take]) -> Callable[[], list[Take]]:
    """Gives eight clean takes, fresh copies each time."""

    def copies() -> list[Take]:
        return [
            replace(
                each,
                state=each.state.copy(),
                action=each.action.copy(),
                images={name: frames.copy() for name, frames in each.images.items()},
            )
            for each in _clean
        ]

    return copies


@pytest.fixture(scope="session")
def check(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Report]:
    """Checks takes, looking at every picture unless told otherwise; nothing is remembered."""
    number = iter(range(1_000_000))

    def run(takes: Sequence[Take], features: Features = FEATURES, pictures: str = "none", **given: Any) -> Report:
        cache: Path = tmp_path_factory.getbasetemp() / f"cache-{next(number)}"
        reader = Takes(list(takes), features, **given)
        return check_dataset(reader, pictures=pictures, cache_dir=cache)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def only() -> Callable[[Report, str], Finding]:
    """The finding of this kind, which must be the only one of all."""

    def one(report: Report, kind: str) -> Finding:
        assert [finding.kind for finding in report.findings] == [kind], report.findings
        return report.findings[0]

    return one


@pytest.fixture(scope="session")
def features() -> Features:
    return FEATURES


@pytest.fixture(scope="session")
def takes_reader() -> type[Takes]:
    return Takes
