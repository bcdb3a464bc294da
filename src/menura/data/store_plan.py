"""What a store will hold, and how the work of writing it is shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from menura.features import Features
from menura.processing.images import Resize

# Frames of a share of the work: enough to pay for what lies before its first keyframe, few enough to wait for.
_SHARE_FRAMES = 1000


class ImageEncoder(Protocol):
    """A frozen `torch.nn.Module`, on the CPU: (B, 3, H, W) float32 in [0, 1] -> (B, feature_dim)."""

    feature_dim: int

    def __call__(self, images: Any) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """Everything that shapes a store.

    Attributes:
        lengths: (E,) frames of each episode.
        features: the dataset's, with the wanted cameras at the wanted size.
        mode: `raw`, `jpeg` or `video`.
        resize: `stretch` or `pad`; None where frames are stored as they are.
        source: the fingerprint of the source.
        feature_dim: K·F of an image encoder; None without one.
    """

    lengths: NDArray[np.int64]
    features: Features
    mode: str
    resize: Resize | None
    source: str
    feature_dim: int | None = None

    @property
    def frames(self) -> int:
        return int(self.lengths.sum())

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def stores_frames(self) -> bool:
        return bool(self.features.cameras) and self.mode != "video" and self.feature_dim is None

    @property
    def stores_jpegs(self) -> bool:
        return self.stores_frames and self.mode == "jpeg"

    @property
    def cameras_read(self) -> tuple[str, ...]:
        """The cameras whose frames are decoded while the store is written, in order."""
        return tuple(self.features.cameras) if self.stores_frames or self.feature_dim is not None else ()

    def disk_bytes(self, jpeg_shrinks: float) -> int:
        """What the store will take on the disk; an estimate for JPEG."""
        values = self.features.state_dim + self.features.action_dim + (self.feature_dim or 0)
        pixels = 3 * sum(camera.height * camera.width for camera in self.features.cameras.values())
        factor = 0.0 if not self.stores_frames else 1 / jpeg_shrinks if self.stores_jpegs else 1.0
        return int(self.frames * (4 * values + pixels * factor))


def camera_groups(features: Features) -> list[tuple[str, ...]]:
    """The cameras that share a file (N, K, H, W, 3), so that one copy gathers them: all where sizes are equal."""
    if len({(camera.height, camera.width) for camera in features.cameras.values()}) == 1:
        return [tuple(features.cameras)]
    return [(camera,) for camera in features.cameras]


@dataclass(frozen=True)
class Piece:
    """Frames `start … stop - 1` of an episode."""

    episode: int
    start: int
    stop: int


def shares(lengths: NDArray[np.int64], num_workers: int) -> list[list[Piece]]:
    """All frames in order, in shares that different processes may take.

    A share is of neighbouring episodes, which often lie in one video file. Episodes are cut only where there are too
    few of them for the processes, because a process has to read an episode to write a piece of it.
    """
    wanted = min(max(int(lengths.sum()) // max(1, 4 * num_workers), _SHARE_FRAMES // 4), _SHARE_FRAMES)
    cut = wanted if len(lengths) < 2 * num_workers else max(1, int(lengths.max()))
    result: list[list[Piece]] = [[]]
    frames = 0
    for episode, length in enumerate(lengths.tolist()):
        for start in range(0, max(length, 1), cut):
            if frames >= wanted:
                result.append([])
                frames = 0
            stop = min(start + cut, length)
            result[-1].append(Piece(episode, start, stop))
            frames += stop - start
    return result
