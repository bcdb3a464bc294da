"""The backbone of `QwenVLDiffusionPolicy`: a Qwen-VL model of `transformers`, fed from normalized pixels and token ids.

Every part of the sequence has a length that the config alone decides (padding is masked), so that no row depends on its
neighbours. What `transformers`' processors and models do with the same pictures and text is done here on the device:
patches, multimodal rotary positions (M-RoPE: Wang et al. 2024, arXiv 2409.12191), DeepStack features of Qwen3-VL.

Shapes: B batch, K cameras, H W image, n tokens of an image, S sequence, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, Cache

from .configuration_qwen_vl_diffusion import QwenVLDiffusionPolicyConfig


@dataclass(frozen=True)
class Tokens:
    """What the language model reads.

    Attributes:
        embeddings: (B, S, D).
        there: (B, S) bool, false for padding and for the images of missing cameras.
        positions: (3, B, S) int64: time, height and width.
        visual: (B, S) bool, true for image tokens; None without cameras.
        deepstack: (B·K·n, D) for each of the first layers, where it is added to the image tokens; None without.
    """

    embeddings: Tensor
    there: Tensor
    positions: Tensor
    visual: Tensor | None = None
    deepstack: list[Tensor] | None = None


class Backbone(nn.Module):
    """The vision encoder and the language model of a Qwen-VL model, and its vocabulary head where that is needed."""

    def __init__(self, config: QwenVLDiffusionPolicyConfig) -> None:
        super().__init__()
        model = _qwen(config)
        self.config = model.config
        self.visual = model.model.visual if config.camera_names else None
        self.language_model = model.model.language_model
        # Small models tie it to the embedding: then it is no weight of its own.
        own_head = config.reasoning_weight > 0 and not self.config.tie_word_embeddings
        self.lm_head = model.lm_head if own_head else None
        side = self.config.vision_config.patch_size * self.config.vision_config.spatial_merge_size
        if any(length % side for length in config.image_size):
            raise ValueError(
                f"expected image_size to be multiples of {side}, the side of one token, got {config.image_size}"
            )
        self.grid = (config.image_size[0] // side, config.image_size[1] // side)  # tokens down and across

    @property
    def width(self) -> int:
        """D."""
        return int(self.config.text_config.hidden_size)

    def tokens(
        self, before: Tensor, image: Tensor | None, image_mask: Tensor | None, after: Tensor, after_mask: Tensor
    ) -> Tokens:
        """Text, images, text, as the language model reads them.

        Args:
            before: (P,) int64, ids of the text before the images, the same for every row.
            image: (B, K, 3, H, W) normalized; None without cameras.
            image_mask: (B, K) bool, false where a row has no such camera; None when none is missing. What is missing
                still takes its positions.
            after: (B, L) int64, ids of the text after the images.
            after_mask: (B, L) bool, which of them are there. Padding takes no position.
        """
        rows, device = len(after), after.device
        embed = self.embed
        prefix = embed(before).expand(rows, -1, -1)
        prefix_there = torch.ones(prefix.shape[:2], dtype=torch.bool, device=device)
        constant = torch.arange(len(before), device=device).expand(3, -1)
        if image is None:
            embeddings, there = [prefix], [prefix_there]
            visual, deepstack = None, None
        else:
            features, deepstack = self._encode(image)  # (B, K, n, D)
            cameras, n = features.shape[1:3]
            marks = torch.tensor([self.config.vision_start_token_id, self.config.vision_end_token_id], device=device)
            start, end = embed(marks).expand(rows, cameras, -1, -1).chunk(2, dim=2)
            embeddings = [prefix, torch.cat([start, features.to(start.dtype), end], dim=2).flatten(1, 2)]
            if image_mask is None:
                image_mask = torch.ones(rows, cameras, dtype=torch.bool, device=device)
            there = [prefix_there, image_mask.repeat_interleave(n + 2, dim=1)]
            is_image = torch.zeros(cameras, n + 2, dtype=torch.bool, device=device)
            is_image[:, 1:-1] = True
            visual = nn.functional.pad(is_image.flatten(), (len(before), after.shape[1])).expand(rows, -1)
            constant = torch.cat([constant, self._image_positions(len(before), cameras, device)], dim=1)
        following = constant[0, -1:] + 1  # a mark, or text: the same on the three axes
        positions = (following + after_mask.cumsum(dim=1) - 1).clamp(min=0)  # (B, L)
        return Tokens(
            embeddings=torch.cat([*embeddings, embed(after)], dim=1),
            there=torch.cat([*there, after_mask], dim=1),
            positions=torch.cat([constant[:, None].expand(-1, rows, -1), positions.expand(3, -1, -1)], dim=2),
            visual=visual,
            deepstack=deepstack,
        )

    def forward(self, tokens: Tokens, past: Cache | None = None) -> Tensor:
        """The last layer's hidden states (B, S, D); with `past`, what was read before is attended to as well."""
        deepstack: dict[str, Any] = {}
        if tokens.deepstack is not None:
            deepstack = {"visual_pos_masks": tokens.visual, "deepstack_visual_embeds": tokens.deepstack}
        hidden: Tensor = self.language_model(
            inputs_embeds=tokens.embeddings,
            attention_mask=tokens.there,
            position_ids=tokens.positions,
            past_key_values=past,
            use_cache=past is not None,
            **deepstack,
        ).last_hidden_state
        return hidden

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (…) -> (…, D)."""
        embeddings: Tensor = self.language_model.embed_tokens(ids)
        return embeddings

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, vocabulary)."""
        head = self.language_model.embed_tokens if self.lm_head is None else self.lm_head
        logits: Tensor = nn.functional.linear(hidden, head.weight)
        return logits

    # The attention of `transformers`' vision encoders takes images apart by lengths read on the host.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _encode(self, image: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """(B, K, 3, H, W) -> the tokens of each image (B, K, n, D), and DeepStack's (B·K·n, D) of some layers."""
        if self.visual is None:
            raise ValueError("image: expected none, since camera_names names no camera, got one")
        vision = self.config.vision_config
        pixels = patches(image.flatten(0, 1), vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        down, across = (side * vision.spatial_merge_size for side in self.grid)
        grid = torch.tensor([[1, down, across]], device=image.device).expand(image.shape[0] * image.shape[1], -1)
        encoded = self.visual(pixels.to(self.visual.dtype), grid_thw=grid)
        features: Tensor = encoded.pooler_output.reshape(*image.shape[:2], -1, self.width)
        return features, getattr(encoded, "deepstack_features", None)

    def _image_positions(self, first: int, cameras: int, device: torch.device) -> Tensor:
        """(3, K·(n + 2)): of each image and its two marks. An image is one moment, and its tokens are counted down and
        across; the mark after it goes on behind the largest of these."""
        down, across = self.grid
        rows = torch.arange(down, device=device).repeat_interleave(across)
        columns = torch.arange(across, device=device).repeat(down)
        inside = 1 + torch.stack([torch.zeros_like(rows), rows, columns])  # (3, n), the first mark being at 0
        length = 2 + max(down, across)
        marks = torch.tensor([0, length - 1], device=device).expand(3, -1)
        one = torch.cat([marks[:, :1], inside, marks[:, 1:]], dim=1)
        starts = first + length * torch.arange(cameras, device=device)
        positions: Tensor = (starts[:, None] + one[:, None]).flatten(1)
        return positions


def patches(image: Tensor, patch_size: int, merge_size: int, temporal_patch_size: int) -> Tensor:
    """(N, 3, H, W) normalized -> (N · patches, 3 · temporal · patch · patch): `pixel_values` of Qwen2VLImageProcessor.

    The patches that are merged into one token follow each other; a picture is a video of equal frames.
    """
    n, colours, height, width = image.shape
    side = merge_size * patch_size
    tiles = image.reshape(n, colours, height // side, merge_size, patch_size, width // side, merge_size, patch_size)
    tiles = tiles.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (N, down, across, merge, merge, 3, patch, patch)
    frames = tiles.unsqueeze(6).expand(*tiles.shape[:6], temporal_patch_size, *tiles.shape[6:])
    return frames.reshape(-1, colours * temporal_patch_size * patch_size**2)


def _qwen(config: QwenVLDiffusionPolicyConfig) -> Any:
    """The whole model of `transformers`, its config written into `config` when it came with pretrained weights."""
    # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
    loading_checkpoint = torch.empty(0).is_meta
    if config.pretrained_backbone is None or loading_checkpoint:
        backbone_config = AutoConfig.for_model(config.backbone, **(config.backbone_config or {}))
        return AutoModelForImageTextToText.from_config(backbone_config)
    found = AutoConfig.from_pretrained(config.pretrained_backbone)
    if found.model_type != config.backbone:
        raise ValueError(
            f"pretrained_backbone: expected a {config.backbone}, got {config.pretrained_backbone}, a {found.model_type}"
        )
    config.backbone_config = {key: value for key, value in found.to_dict().items() if key != "model_type"}
    return AutoModelForImageTextToText.from_pretrained(config.pretrained_backbone, dtype=torch.get_default_dtype())
