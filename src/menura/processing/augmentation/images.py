"""Augmentations of images. Each (row, camera) draws for itself; the frames of one observation window change alike.

Shapes: B rows, O observation steps, K cameras, N = B · O · K pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from menura.errors import ConfigError, ContractError
from menura.processing.augmentation.base import Batch, Draw, interval, share

# Rec. 601 luma, the grey that contrast and saturation refer to.
_GREY = (0.299, 0.587, 0.114)
Numbers = float | Sequence[float]


class RandomShift:
    """Moves each picture by up to `pixels` in each direction; the border is repeated.

    Source: Yarats et al. 2021, https://arxiv.org/abs/2107.09645.

    Args:
        pixels: the largest shift, in pixels of the size the policy sees.
    """

    def __init__(self, pixels: int = 4) -> None:
        if pixels < 1:
            raise ConfigError(f"RandomShift.pixels: expected at least 1, got {pixels}.")
        self.pixels = pixels

    def __call__(self, batch: Batch, draw: Draw) -> Batch:
        def move(pictures: torch.Tensor, per: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            height, width = pictures.shape[-2:]
            shift = per(draw.integers((*_drawn(batch), 2), -self.pixels, self.pixels))  # (N, 2)
            rows = (torch.arange(height, device=shift.device) + shift[:, :1]).clamp_(0, height - 1)  # (N, H)
            columns = (torch.arange(width, device=shift.device) + shift[:, 1:]).clamp_(0, width - 1)  # (N, W)
            every = torch.arange(len(pictures), device=shift.device)[:, None, None]
            return pictures.movedim(1, -1)[every, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)

        return _changed(batch, "RandomShift", move)


class RandomCrop:
    """Cuts a random part out of each picture and stretches it to the picture's size. Whole pictures are seen later.

    Args:
        scale: the part's sides as shares of the picture's: `[low, high]`; one number is the lowest, 1 the highest.
    """

    def __init__(self, scale: Numbers = 0.9) -> None:
        low, high = (scale, 1.0) if isinstance(scale, (int, float)) else (scale[0], scale[-1])
        if not 0 < low <= high <= 1:
            raise ConfigError(f"RandomCrop.scale: expected 0 < low ≤ high ≤ 1, got {scale}.")
        self.scale = float(low), float(high)

    def __call__(self, batch: Batch, draw: Draw) -> Batch:
        def crop(pictures: torch.Tensor, per: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            scale = per(draw.uniform((*_drawn(batch), 1), *self.scale))  # (N, 1)
            centre = per(draw.uniform((*_drawn(batch), 2), -1, 1)) * (1 - scale)  # (N, 2), in [-1, 1]
            theta = torch.cat([torch.diag_embed(scale.expand(-1, 2)), centre[:, :, None]], dim=2)  # (N, 2, 3)
            grid = functional.affine_grid(theta, list(pictures.shape), align_corners=False)
            return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)

        return _changed(batch, "RandomCrop", crop)


class ColorJitter:
    """Random brightness, contrast, saturation and hue.

    All four are linear in the colours, so that they are one matrix for each picture.

    Args:
        brightness, contrast, saturation: factors are drawn from 1 - x … 1 + x, 0 ≤ x ≤ 1.
        hue: the colour circle turns by up to this share of itself, 0 ≤ x ≤ 0.5, either way.
    """

    def __init__(
        self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2, hue: float = 0.05
    ) -> None:
        self.brightness = share("ColorJitter.brightness", brightness)
        self.contrast = share("ColorJitter.contrast", contrast)
        self.saturation = share("ColorJitter.saturation", saturation)
        self.hue = interval("ColorJitter.hue", hue, 0.0, 0.5)[1]

    def __call__(self, batch: Batch, draw: Draw) -> Batch:
        def jitter(pictures: torch.Tensor, per: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            drawn = _drawn(batch)
            brightness, contrast, saturation = (
                per(draw.uniform((*drawn, 1), 1 - most, 1 + most))[:, :, None]
                for most in (self.brightness, self.contrast, self.saturation)
            )  # each (N, 1, 1)
            angle = per(draw.uniform((*drawn, 1), -self.hue, self.hue))[:, :, None] * (2 * torch.pi)
            identity = torch.eye(3, device=pictures.device)
            to_grey = torch.tensor(_GREY, device=pictures.device).expand(3, 3)
            mean = (pictures.mean(dim=(2, 3)) @ to_grey.T)[:, :, None]  # (N, 3, 1): the picture's mean grey
            colour = _turned(angle) @ (saturation * identity + (1 - saturation) * to_grey) * contrast * brightness
            offset = (1 - contrast) * brightness * mean  # greys keep under the other two
            return torch.baddbmm(offset, colour, pictures.flatten(2)).clamp_(0, 1).reshape(pictures.shape)

        return _changed(batch, "ColorJitter", jitter)


class GaussianBlur:
    """Blurs some pictures.

    Args:
        sigma: of the bell, in pixels: `[low, high]`.
        probability: of a picture to be blurred.
    """

    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), probability: float = 0.5) -> None:
        self.sigma = interval("GaussianBlur.sigma", sigma, 0.01, 100.0)
        self.probability = share("GaussianBlur.probability", probability)

    def __call__(self, batch: Batch, draw: Draw) -> Batch:
        def blur(pictures: torch.Tensor, per: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            sigma = per(draw.uniform((*_drawn(batch), 1), *self.sigma))  # (N, 1)
            chosen = per(draw.uniform((*_drawn(batch), 1)))[:, :, None, None] < self.probability
            radius = min(max(1, round(3 * self.sigma[1])), min(pictures.shape[-2:]) - 1)
            bell = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=sigma.device) / sigma) ** 2)
            kernel = (bell / bell.sum(1, keepdim=True)).repeat_interleave(3, 0)  # (N * 3, 2 * radius + 1)
            planes = pictures.reshape(1, -1, *pictures.shape[-2:])  # (1, N * 3, H, W)
            planes = functional.pad(planes, (radius,) * 4, mode="reflect")
            planes = functional.conv2d(planes, kernel[:, None, :, None], groups=len(kernel))
            planes = functional.conv2d(planes, kernel[:, None, None, :], groups=len(kernel))
            return torch.where(chosen, planes.reshape(pictures.shape), pictures)

        return _changed(batch, "GaussianBlur", blur)


class Cutout:
    """Covers a rectangle of some pictures with one random colour.

    Source: DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552.

    Args:
        size: the rectangle's sides as shares of the picture's: `[low, high]`.
        probability: of a picture to be covered.
    """

    def __init__(self, size: Sequence[float] = (0.1, 0.3), probability: float = 0.5) -> None:
        self.size = interval("Cutout.size", size, 0.0, 1.0)
        self.probability = share("Cutout.probability", probability)

    def __call__(self, batch: Batch, draw: Draw) -> Batch:
        def cover(pictures: torch.Tensor, per: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            drawn, (height, width) = _drawn(batch), pictures.shape[-2:]
            sides = per(draw.uniform((*drawn, 2), *self.size))  # (N, 2), as shares
            corner = per(draw.uniform((*drawn, 2))) * (1 - sides)
            chosen = per(draw.uniform((*drawn, 1))) < self.probability
            colour = per(draw.uniform((*drawn, 3)))[:, :, None, None]
            rows = (torch.arange(height, device=sides.device) + 0.5) / height
            columns = (torch.arange(width, device=sides.device) + 0.5) / width
            inside_rows = (rows >= corner[:, :1]) & (rows < corner[:, :1] + sides[:, :1]) & chosen  # (N, H)
            inside_columns = (columns >= corner[:, 1:]) & (columns < corner[:, 1:] + sides[:, 1:])  # (N, W)
            inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]  # (N, 1, H, W)
            return torch.where(inside, colour, pictures)

        return _changed(batch, "Cutout", cover)


def _drawn(batch: Batch) -> tuple[int, int]:
    """(B, K): what is drawn for."""
    shape = batch["image"].shape
    return shape[0], shape[-4]


def _changed(
    batch: Batch,
    name: str,
    change: Callable[[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor],
) -> Batch:
    """The batch with its pictures, (N, 3, H, W), changed; `change` gets a way to repeat (B, K, …) draws to (N, …)."""
    images = batch.get("image")
    if images is None or images.dim() < 5:
        got = "none" if images is None else "features of a frozen image encoder, computed once"
        raise ContractError(f"augmentation {name}: expected images, got {got}. Leave it out.")

    def per_picture(drawn: torch.Tensor) -> torch.Tensor:
        if images.dim() == 6:  # the steps of an observation change alike
            drawn = drawn[:, None].expand(-1, images.shape[1], *drawn.shape[1:])
        return drawn.flatten(0, -2)

    pictures = change(images.flatten(0, -4), per_picture)
    return {**batch, "image": pictures.reshape(images.shape)}


def _turned(angle: torch.Tensor) -> torch.Tensor:
    """(N, 1, 1) radians -> (N, 3, 3): a turn of the colours about the grey axis (Rodrigues' formula)."""
    axis = torch.ones(3, 3, device=angle.device) / 3
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=angle.device) / 3**0.5
    return torch.cos(angle) * (torch.eye(3, device=angle.device) - axis) + torch.sin(angle) * cross + axis
