"""Images: the one resize of the project, and the ways to normalize pixels.

The store, evaluation and the server all call `resize_images`, so that what was trained on is what is seen later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from menura.errors import FeatureMismatch, did_you_mean

Resize = Literal["stretch", "pad"]
RESIZE_MODES = ("stretch", "pad")
GREY_LEVELS = 255.0
# Pixels that are no whole grey levels (a simulator's, another program's floats) are counted in this part of one: an
# int32 up to 255 * 65536, which float32 holds exactly.
PARTS = 65536


def resize_images(images: NDArray[np.uint8], size: tuple[int, int], mode: Resize = "stretch") -> NDArray[np.uint8]:
    """Resize with a bilinear filter that is widened when shrinking (antialiased), each image for itself.

    Args:
        images: (..., H, W, 3) uint8.
        size: (height, width) of the result.
        mode: `stretch` fills the size whatever the aspect; `pad` keeps the aspect, centred between black borders.

    Returns:
        (..., height, width, 3) uint8. The same array when it already has the size.
    """
    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != 3:
        raise FeatureMismatch(
            f"resize_images: expected uint8 images (..., H, W, 3), got {images.dtype} {tuple(images.shape)}. "
            "Give RGB with the colours last."
        )
    if mode not in RESIZE_MODES:
        raise FeatureMismatch(f"resize: expected stretch or pad, got {mode!r}{did_you_mean(mode, RESIZE_MODES) or '.'}")
    height, width = size
    if height <= 0 or width <= 0:
        raise FeatureMismatch(f"image_size: expected (height, width) > 0, got {tuple(size)}.")
    if images.shape[-3:-1] == (height, width):
        return images
    if mode == "stretch":
        return _stretch(images, height, width)
    scale = min(height / images.shape[-3], width / images.shape[-2])
    inner = (max(1, round(images.shape[-3] * scale)), max(1, round(images.shape[-2] * scale)))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    padded = np.zeros((*images.shape[:-3], height, width, 3), np.uint8)
    padded[..., top : top + inner[0], left : left + inner[1], :] = _stretch(images, *inner)
    return padded


def _stretch(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if images.shape[-3:-1] == (height, width):
        return images
    flat = np.ascontiguousarray(images).reshape(-1, *images.shape[-3:])  # (N, H, W, 3)
    if not len(flat):
        return np.zeros((*images.shape[:-3], height, width, 3), np.uint8)
    if not flat.flags.writeable:  # a memory map opened for reading; torch warns of tensors it could write through
        flat = flat.copy()
    channels_first = torch.from_numpy(flat).permute(0, 3, 1, 2)  # a view: torch's uint8 kernel wants colours last
    resized = torch.nn.functional.interpolate(channels_first, size=(height, width), mode="bilinear", antialias=True)
    result: NDArray[np.uint8] = resized.permute(0, 2, 3, 1).contiguous().numpy()
    return result.reshape(*images.shape[:-3], height, width, 3)


@dataclass(frozen=True)
class ImageNormalization:
    """`(pixel / 255 - mean) / std` per colour."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def parse(cls, value: str | Mapping[str, Any] | Sequence[Any] | None) -> ImageNormalization:
        """Read `config.image_normalize`.

        `zero_one` (also None): pixels in [0, 1]. `minus_one_one`: in [-1, 1]. `imagenet`: the mean and deviation of
        ImageNet, which pretrained backbones expect. Or one's own: `{"mean": [r, g, b], "std": [r, g, b]}` or
        `[mean, std]`, on the [0, 1] scale.
        """
        if value is None:
            return NAMED["zero_one"]
        if isinstance(value, str):
            if value not in NAMED:
                raise FeatureMismatch(
                    f"image_normalize: expected one of {', '.join(NAMED)} or {{mean, std}}, "
                    f"got {value!r}{did_you_mean(value, NAMED) or '.'}"
                )
            return NAMED[value]
        parts: list[Any] = list(value)
        if isinstance(value, Mapping):
            parts = [value["mean"], value["std"]] if set(value) == {"mean", "std"} else []
        try:
            mean, std = ((float(r), float(g), float(b)) for r, g, b in parts)
        except (TypeError, ValueError):
            raise FeatureMismatch(
                f"image_normalize: expected a mean and a std of three numbers each, got {value!r}."
            ) from None
        if not np.isfinite([*mean, *std]).all() or min(std) <= 0:
            raise FeatureMismatch(f"image_normalize: expected finite numbers and std > 0, got {value!r}.")
        return cls(mean, std)

    def table(self) -> torch.Tensor:
        """(2, 3) float32: the factor and the addend of each colour that map pixels 0 … 255 to normalized values."""
        mean, std = np.array(self.mean), np.array(self.std)
        return torch.from_numpy(np.stack([1 / (GREY_LEVELS * std), -mean / std]).astype(np.float32))


def image_table(value: Any, camera_names: Sequence[str]) -> torch.Tensor:
    """The factors and addends of `config.image_normalize`: (2, 3), or (2, K, 3) where each camera has its own.

    `value` is what `ImageNormalization.parse` reads, or `{camera: what it reads, …}` with every camera.
    """
    if not (isinstance(value, Mapping) and camera_names and set(camera_names) <= set(value)):
        return ImageNormalization.parse(value).table()
    tables = [ImageNormalization.parse(value[camera]).table() for camera in camera_names]
    return torch.stack(tables, dim=1)


NAMED: dict[str, ImageNormalization] = {
    "zero_one": ImageNormalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "minus_one_one": ImageNormalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # https://docs.pytorch.org/vision/stable/models.html: the numbers every ImageNet backbone was trained with.
    "imagenet": ImageNormalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def to_channels_first(images: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """(..., [K,] H, W, 3) uint8 (or int32, in `PARTS`) -> (..., [K,] 3, H, W) float32, normalized by `image_table`.

    The memory stays colours-last: torch's `channels_last` format, which convolutions like best, without a copy.
    """
    if images.dtype == torch.int32:
        table = torch.stack((table[0] / PARTS, table[1]))
    # One long row of W * 3 numbers is what a processor's vector units can work on; three colours at a time are not.
    factor, addend = table.repeat(*(1,) * (table.dim() - 1), images.shape[-2])  # each (W * 3,) or (K, W * 3)
    if table.dim() > 2:
        factor, addend = factor[:, None], addend[:, None]  # (K, 1, W * 3): the same for every row of pixels
    rows = images.flatten(-2).to(torch.float32).mul_(factor).add_(addend)  # (..., H, W * 3)
    return rows.reshape(images.shape).movedim(-1, -3)
