"""Windows of one dataset in the layout of several that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.statistics import Statistics
from menura.data.store import Store
from menura.data.windows import Batch, Windows
from menura.errors import FeatureMismatch
from menura.features import Features
from menura.processing.layout import Placement

Int64 = NDArray[np.int64]


class LaidOutWindows(Windows):
    """Windows whose dimensions and cameras are those of a layout; what the dataset lacks is 0.

    That 0 is the mean to a normalizer: the statistics of a missing dimension are 0, too, so that it stays 0. Which are
    missing is said by the processor (`state_mask`, `action_mask`, `image_mask`).

    Args:
        store, observation_offsets, action_offsets, options: as of `Windows`; the store has those of `cameras` that the
            dataset has, in that order.
        layout: what is trained of them all (`menura.processing.layout.common_features`).
        cameras: those the policy sees, in order.
        image_size: (height, width) they are delivered in; None without cameras.
        feature_dim: of the image encoder, where there is one.
    """

    def __init__(
        self,
        store: Store,
        observation_offsets: Sequence[int] | Int64 = (0,),
        action_offsets: Sequence[int] | Int64 | None = (0,),
        *,
        layout: Features,
        cameras: Sequence[str] = (),
        image_size: tuple[int, int] | None = None,
        feature_dim: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(store, observation_offsets, action_offsets, **options)
        self._layout, self._cameras, self._size, self._feature_dim = layout, tuple(cameras), image_size, feature_dim
        self._placement = Placement.of(super().features, layout, cameras)
        for camera, feature in store.features.cameras.items():
            if (size := (feature.height, feature.width)) != image_size:
                raise FeatureMismatch(
                    f"image_size: expected {image_size} of camera {camera!r} of {store.name!r}, as of the other "
                    f"cameras of the layout, got {size}. Set image_size in the policy's args."
                )

    @classmethod
    def of(
        cls,
        items: Windows,
        layout: Features,
        cameras: Sequence[str],
        image_size: tuple[int, int] | None,
        feature_dim: int | None,
    ) -> LaidOutWindows:
        """The same items in a layout."""
        return cls(
            items.store,
            items.observation_offsets,
            items.action_offsets,
            layout=layout,
            cameras=cameras,
            image_size=image_size,
            feature_dim=feature_dim,
            **items.options(),
        )

    def options(self) -> dict[str, Any]:
        own = {"layout": self._layout, "cameras": self._cameras, "image_size": self._size}
        return {**super().options(), **own, "feature_dim": self._feature_dim}

    @property
    def features(self) -> Features:
        """What the items mean: the layout, its cameras at the size delivered, in the order of K."""
        cameras = self._layout.cameras
        if self._size is None:
            return replace(self._layout, cameras={})
        height, width = self._size
        return replace(
            self._layout, cameras={name: replace(cameras[name], height=height, width=width) for name in self._cameras}
        )

    def shapes(self) -> dict[str, Any]:
        encoded = None if self._feature_dim is None or not self._cameras else len(self._cameras) * self._feature_dim
        return {
            **super().shapes(),
            "state width": self._layout.state_dim,
            "action width": self._layout.action_dim,
            "cameras": [] if encoded else [(camera, *(self._size or ())) for camera in self._cameras],
            "image_features width": encoded,
        }

    def __getitems__(self, indices: Sequence[int] | Int64) -> Batch:
        batch = super().__getitems__(indices)
        offsets = len(self.observation_offsets)
        axes = (len(batch["task"]), offsets) if offsets > 1 else (len(batch["task"]),)
        own: dict[str, Any] = {key: batch.pop(key) for key in ("state", "image", "image_features") if key in batch}
        batch |= self._placement.observation(own, axes, image_size=self._size, feature_dim=self._feature_dim)
        batch["actions"] = self._placement.vector("action", batch["actions"])
        return batch

    def statistics(self) -> dict[str, Statistics]:
        """Exact statistics of `state` and `action` over the items' frames; 0 where the dataset lacks a dimension."""
        own = super().statistics()
        laid_out = {"action": _spread(own["action"], self._placement, "action")}
        if self._layout.state_dim:
            count = own["action"].count
            nothing = Statistics(count, *(np.zeros(0) for _ in range(6)))
            laid_out["state"] = _spread(own.get("state", nothing), self._placement, "state")
        return laid_out


def _spread(statistics: Statistics, placement: Placement, key: str) -> Statistics:
    columns = (statistics.mean, statistics.std, statistics.min, statistics.max, statistics.q01, statistics.q99)
    return Statistics(statistics.count, *(placement.vector(key, column) for column in columns))
