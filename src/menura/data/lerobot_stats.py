"""Statistics as LeRobot keeps them, per episode and per dataset: vectors (n,), images (3, 1, 1) in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import UInt8
from menura.data.statistics import Float64, StatisticsBuilder

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
FIELDS = ("min", "max", "mean", "std", "count", *QUANTILES)

_MAX_PIXELS = 150
_CHANNELS = np.arange(3, dtype=np.uint16) * 256


def vector_entry(builder: StatisticsBuilder) -> dict[str, list[Any]]:
    """Statistics of a vector feature, each a list of n numbers."""
    result = builder.result()
    quantiles = builder.quantiles(list(QUANTILES.values()))
    return {
        "min": result.min.tolist(),
        "max": result.max.tolist(),
        "mean": result.mean.tolist(),
        "std": result.std.tolist(),
        "count": [result.count],
        **{name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)},
    }


class ChannelHistogram:
    """How often each channel of a camera had each of its 256 values.

    Attributes:
        counts: (3, 256) int64.
        frames: how many were counted.
    """

    def __init__(self, counts: NDArray[np.int64] | None = None, frames: int = 0) -> None:
        self.counts = np.zeros((3, 256), np.int64) if counts is None else counts
        self.frames = frames

    def add(self, frame: UInt8, times: int = 1) -> None:
        """Counts a (H, W, 3) frame, thinned to about 150 pixels a side; `times` where it stands for so many."""
        step = max(1, max(frame.shape[:2]) // _MAX_PIXELS)
        values = frame[::step, ::step] + _CHANNELS
        self.counts += times * np.bincount(values.reshape(-1), minlength=768).reshape(3, 256)
        self.frames += times

    def merged(self, other: ChannelHistogram) -> ChannelHistogram:
        """Of the frames of both."""
        return ChannelHistogram(self.counts + other.counts, self.frames + other.frames)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `from_dict` reads it back equal."""
        return {"counts": self.counts.tolist(), "frames": self.frames}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChannelHistogram:
        return cls(np.asarray(data["counts"], np.int64), int(data["frames"]))

    def entry(self) -> dict[str, Any]:
        """Statistics of the camera, each nested (3, 1, 1), in [0, 1]; exact for the thinned frames that were seen."""
        values = np.arange(256) / 255
        total = self.counts.sum(axis=1)
        mean = self.counts @ values / total
        std = np.sqrt((self.counts * np.square(values - mean[:, None])).sum(axis=1) / total)
        cumulated = np.cumsum(self.counts, axis=1)

        def nested(channels: Float64) -> list[list[list[float]]]:
            return [[[value]] for value in channels.tolist()]

        def quantile(fraction: float) -> Float64:
            return np.array([values[np.searchsorted(counts, fraction * counts[-1])] for counts in cumulated])

        seen = [values[np.flatnonzero(counts)] for counts in self.counts]
        return {
            "min": nested(np.array([channel[0] for channel in seen])),
            "max": nested(np.array([channel[-1] for channel in seen])),
            "mean": nested(mean),
            "std": nested(std),
            "count": [self.frames],
            **{name: nested(quantile(fraction)) for name, fraction in QUANTILES.items()},
        }
