"""Image encoders of `transformers`: a frozen vision model that turns each camera image into one feature vector.

In a task: `image_encoder: {class: VisionEncoder, args: {model: microsoft/resnet-18}}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from menura.errors import ContractError, did_you_mean
from menura.policies.common.backbones import misspelt

Pooling = Literal["mean", "first", "pooler"]
POOLINGS = ("mean", "first", "pooler")
# Of ImageNet's colours: https://pytorch.org/vision/stable/models.html
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VisionEncoder(nn.Module):
    """(B, 3, H, W) float32 in [0, 1] -> (B, feature_dim) float32, without gradients and always in evaluation mode.

    Args:
        model: a Hub id or a directory of any vision model of `transformers` (of one for images and text, its vision
            half is used); or a mapping with `model_type` and further settings of its config, for random weights.
        pooling: `mean` of all tokens or positions, the `first` token (the class token of a vision transformer), or
            the model's own `pooler`.
        image_size: (height, width) to which images are resized first; None: what the model was made for where its
            config says so, else as they come.
        mean, std: per colour; None: those of the model's image processor where it has one, else ImageNet's.

    Attributes:
        feature_dim: the width of the features.
    """

    feature_dim: int
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str | Mapping[str, Any],
        pooling: Pooling = "mean",
        image_size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ContractError(
                f"VisionEncoder.pooling: expected one of {', '.join(POOLINGS)}, "
                f"got {pooling!r}{did_you_mean(pooling, POOLINGS)}"
            )
        self.pooling = pooling
        whole = _from_config(model) if isinstance(model, Mapping) else AutoModel.from_pretrained(model)
        self.model: PreTrainedModel = getattr(whole, "vision_model", whole)
        usual = {} if isinstance(model, Mapping) else _image_processor_settings(model)
        self.image_size = _size(image_size) or _size(getattr(self.model.config, "image_size", None))
        for name, given, default in (("mean", mean, IMAGENET_MEAN), ("std", std, IMAGENET_STD)):
            colours = torch.tensor(list(given or usual.get(f"image_{name}") or default), dtype=torch.float32)
            self.register_buffer(name, colours.reshape(3, 1, 1))
        self.requires_grad_(False)
        self.eval()
        self.feature_dim = self(torch.zeros(1, 3, *(self.image_size or (64, 64)))).shape[1]

    def rebuild_args(self) -> dict[str, Any]:
        """Arguments (JSON-able) that make the same encoder from settings alone, for its saved weights to be loaded
        into: a checkpoint that holds these needs neither the Hub nor the directory `model` once named."""
        return {
            "model": self.model.config.to_diff_dict(),
            "pooling": self.pooling,
            "image_size": None if self.image_size is None else list(self.image_size),
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    def train(self, mode: bool = True) -> VisionEncoder:
        """Stays in evaluation mode: its features are computed once and cached, and must never change."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1] -> (B, feature_dim)."""
        if self.image_size is not None and tuple(image.shape[-2:]) != self.image_size:
            image = nn.functional.interpolate(image, size=self.image_size, mode="bilinear", antialias=True)
        output = self.model(pixel_values=(image - self.mean) / self.std)
        if self.pooling == "pooler":
            pooled: Tensor | None = getattr(output, "pooler_output", None)
            if pooled is None:
                name = type(self.model).__name__
                raise ContractError(
                    f"VisionEncoder: expected {name} to have a pooler, got none. Use `pooling: mean` or `first`."
                )
            return pooled.flatten(1)
        hidden: Tensor = output.last_hidden_state  # (B, C, h, w) of a convolutional network, else (B, N, C)
        tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
        return tokens.mean(dim=1) if self.pooling == "mean" else tokens[:, 0]


def _from_config(settings: Mapping[str, Any]) -> PreTrainedModel:
    if "model_type" not in settings:
        raise ContractError(
            f"VisionEncoder.model: expected a Hub id, a directory or a mapping with model_type, got {dict(settings)}. "
            "Add for example `model_type: resnet`."
        )
    config = AutoConfig.for_model(**settings)
    for name, known in misspelt(settings, config):
        raise ContractError(
            f"VisionEncoder.model: expected settings of {type(config).__name__}, "
            f"got {name!r}{did_you_mean(name, known) or '.'}"
        )
    model: PreTrainedModel = AutoModel.from_config(config)
    return model


def _image_processor_settings(model: str) -> dict[str, Any]:
    """What the model's `preprocessor_config.json` says; empty where it has none."""
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(model)
    except OSError:
        return {}
    return dict(settings)


def _size(value: int | Sequence[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)
