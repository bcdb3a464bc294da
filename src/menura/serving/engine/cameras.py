"""Pictures of a message: pixels or JPEG and PNG, of one camera, at one time or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.features import CameraFeature
from menura.processing.images import Resize
from menura.serving.engine.arrays import told
from menura.serving.engine.errors import RequestRefused
from menura.serving.engine.pictures import read_picture

_CHANNELS = 3
# By how many pixels the sides of a scaled picture may miss its exact aspect.
_ROUNDING = 1.0


@dataclass(frozen=True)
class Picture:
    """One camera's picture, or pictures, as they came.

    Attributes:
        key: under which they came.
        content: ([O,] H, W, 3) uint8 or float, whose size was checked; or JPEGs and PNGs, one a time.
        has_axis: whether there is a time axis.
    """

    key: str
    content: NDArray[Any] | Sequence[bytes]
    has_axis: bool

    @property
    def is_ready(self) -> bool:
        """Whether it needs no more work than `CameraReader.pixels` does at once."""
        return isinstance(self.content, np.ndarray) and self.content.dtype == np.uint8


@dataclass(frozen=True)
class CameraReader:
    """Reads the pictures of one camera.

    Attributes:
        feature: its size in training.
        steps: O, how many observations the policy is given.
        resize, image_size: how its pictures become those that the policy sees, and of what size.
        max_pixels: of one picture.
    """

    feature: CameraFeature
    steps: int
    resize: Resize
    image_size: tuple[int, int] | None
    max_pixels: int

    def read(self, key: str, value: Any) -> Picture:
        """A picture whose form is right. RequestRefused says what is wrong with it."""
        if isinstance(value, bytes):
            return self._encoded(key, [value], has_axis=False)
        if isinstance(value, (list, tuple)):
            if self.steps == 1 or len(value) != self.steps:
                wanted = "one picture" if self.steps == 1 else f"one picture, or {self.steps} with a time axis"
                raise RequestRefused(f"{key}: expected {wanted}, got a list of {len(value)}.")
            return self._encoded(key, value, has_axis=True)
        is_picture = isinstance(value, np.ndarray) and (value.dtype == np.uint8 or value.dtype.kind == "f")
        has_axis = is_picture and self.steps > 1 and value.ndim == 4 and len(value) == self.steps
        if not is_picture or (value.ndim != 3 and not has_axis):
            expected = f"uint8 {self._shape(first=False)}, or the bytes of a JPEG or PNG"
            raise RequestRefused(f"{key}: expected {expected}, got {told(value)}.")
        pixels = self._colours_last(key, value)
        self._check_size(key, pixels.shape[-3], pixels.shape[-2])
        return Picture(key, pixels, has_axis)

    def pixels(self, picture: Picture) -> NDArray[Any]:
        """([O,] H, W, 3) uint8, or float in [0, 1]. Takes milliseconds where it is not ready, in any thread.

        Raises:
            RequestRefused: it is damaged, or of a wrong size, or there are no such numbers.
        """
        content = picture.content
        if not isinstance(content, np.ndarray):
            frames = [self._decoded(picture.key, encoded) for encoded in content]
            if len({frame.shape for frame in frames}) > 1:
                sizes = [frame.shape[:2] for frame in frames]
                raise RequestRefused(f"{picture.key}: expected pictures of one size, got {sizes}.")
            return np.stack(frames) if picture.has_axis else frames[0]
        if content.dtype != np.uint8 and not (content.min() >= 0 and content.max() <= 1):  # NaN fails both
            raise RequestRefused(f"{picture.key}: expected floats in [0, 1], got others. Send 0 … 255 as uint8.")
        return content

    def _encoded(self, key: str, frames: Sequence[Any], *, has_axis: bool) -> Picture:
        for frame in frames:
            if not isinstance(frame, bytes):
                raise RequestRefused(f"{key}: expected the bytes of a JPEG or PNG, got {told(frame)}.")
        return Picture(key, frames, has_axis)

    def _decoded(self, key: str, encoded: bytes) -> NDArray[np.uint8]:
        return read_picture(key, encoded, partial(self._check_size, key))

    def _colours_last(self, key: str, pixels: NDArray[Any]) -> NDArray[Any]:
        """([O,] H, W, 3) of what has its colours last or first; where both may be, the camera's size decides."""
        first, last = pixels.shape[-3] == _CHANNELS, pixels.shape[-1] == _CHANNELS
        if first and last:
            size = (self.feature.height, self.feature.width)
            first, last = pixels.shape[-2:] == size, pixels.shape[-3:-1] == size
        if first == last:
            wanted = f"{self._shape(first=False)} or {self._shape(first=True)}"
            raise RequestRefused(f"{key}: expected {wanted}, got shape {pixels.shape}.")
        return np.moveaxis(pixels, -3, -1) if first else pixels

    def _check_size(self, key: str, height: int, width: int) -> None:
        """Not too large; and of an aspect that is not stretched to what no picture in training was."""
        if not 0 < height * width <= self.max_pixels:
            raise RequestRefused(f"{key}: expected 1 to {self.max_pixels} pixels, got {height} x {width}.")
        if self.resize == "pad" or (height, width) == self.image_size:
            return
        scale = max(height / self.feature.height, width / self.feature.width)
        missed = max(abs(height - scale * self.feature.height), abs(width - scale * self.feature.width))
        if missed > _ROUNDING:
            raise RequestRefused(
                f"{key}: expected a picture of {self.feature.height} x {self.feature.width} pixels or of that aspect, "
                f"got {height} x {width}."
            )

    def _shape(self, *, first: bool) -> str:
        height, width = self.feature.height, self.feature.width
        return f"(3, {height}, {width})" if first else f"({height}, {width}, 3)"
