"""SmolVLAPolicy: a small vision-language model and an action expert (Shukor et al. 2025, arXiv 2506.01844).

Shapes: B batch, K cameras, S state, T chunk, W width of noisy actions, N tokens of the prefix, D the language model's
width, G heads of keys and values, E width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import LlamaConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig, SmolVLMVisionConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector, SmolVLMVisionTransformer

from ..common.action_expert import (
    LlamaCachedLayer,
    Past,
    PrefixModel,
    Rotation,
    load_part,
    rotation_at,
    time_embedding,
)
from ..common.block_masks import block_causal_mask, positions_of
from ..common.flow_vla import FlowVLAPolicy
from ..common.image_padding import fit
from ..common.prompts import task_line
from .configuration_smolvla import SmolVLAPolicyConfig
from .expert_smolvla import Expert


class Condition(NamedTuple):
    """What the expert attends to, the same at every step of denoising.

    Attributes:
        seen: keys and values (B, G, N, E) of each layer, in the form that the expert's layer takes.
        prefix_mask: (B, 1, 1, N), which tokens of the prefix there are.
        mask: (B, 1, T, N + T), with the actions after them, each of which attends to those before it.
        rotation: of the actions, whose positions go on where the prefix ends.
        own_rotation: of the actions where they attend to the prefix alone: from 0.
    """

    seen: list[Past]
    prefix_mask: Tensor
    mask: Tensor
    rotation: Rotation
    own_rotation: Rotation


class SmolVLAPolicy(FlowVLAPolicy):
    """Images, instruction and state are read by the lower half of SmolVLM; an expert of three quarters its width, whose
    layers attend in turn to the actions and to the keys and values of that model's layers, makes actions of noise."""

    config_class = SmolVLAPolicyConfig
    _no_split_modules = ["LlamaCachedLayer", "CrossLayer", "SmolVLMEncoderLayer"]  # noqa: RUF012  as in transformers

    def __init__(self, config: SmolVLAPolicyConfig) -> None:
        super().__init__(config)
        language = LlamaConfig(**config.language_model, num_hidden_layers=config.n_layers)
        vision = SmolVLMVisionConfig(**config.vision_model)
        vlm = SmolVLMConfig(text_config=language, vision_config=vision, scale_factor=config.scale_factor)
        self.vision_model = SmolVLMVisionTransformer(vision) if config.camera_names else None
        self.connector = SmolVLMConnector(vlm) if config.camera_names else None
        self.language_model = PrefixModel(LlamaCachedLayer, language)
        self.expert = Expert(language, config.expert_width, config.self_attention_every)
        width = self.expert.width
        self.state_projection = nn.Linear(config.max_state_dim, language.hidden_size)
        self.action_projection = nn.Linear(config.max_action_dim, width)
        self.action_time_in = nn.Linear(2 * width, width)
        self.action_time_out = nn.Linear(width, width)
        self.action_head = nn.Linear(width, config.max_action_dim)
        self.post_init()  # type: ignore[no-untyped-call]
        loading_checkpoint = self.action_head.weight.is_meta
        if config.pretrained_backbone is not None and not loading_checkpoint:
            self._load_backbone(config.pretrained_backbone)
        self.freeze_parts(loading=loading_checkpoint)

    def frozen_parts(self) -> Iterable[nn.Module | None]:
        if self.config.train_expert_only:
            return self.vision_model, self.connector, self.language_model
        return (self.vision_model,) if self.config.freeze_vision_encoder else ()

    def condition(self, obs_dict: dict[str, Any]) -> Condition:
        """The keys and values of images, instruction and state, in every layer."""
        ids, there = self.tokenize(
            [task_line(task) for task in obs_dict["task"]], self.config.tokenizer_max_length, self.device
        )
        return self._condition(ids, there, self.padded_state(obs_dict), self.images_there(obs_dict))

    def _condition(self, ids: Tensor, there: Tensor, state: Tensor, images: tuple[Tensor, Tensor] | None) -> Condition:
        tokens = [self.language_model.embed(ids), self.state_projection(state)[:, None]]
        there = torch.cat((there, there.new_ones(len(there), 1)), dim=1)
        if images is not None:
            of_images, images_there = self._image_tokens(*images)
            tokens.insert(0, of_images)
            there = torch.cat((images_there, there), dim=1)
        prefix = torch.cat(tokens, dim=1)  # (B, N, D)
        n_tokens, n_actions = prefix.shape[1], self.config.chunk_size
        blocks = (n_tokens - 1, 1)  # images and instruction do not attend to the state
        rotation = rotation_at(positions_of(there), self.language_model.head_dim)
        seen = self.language_model(prefix, rotation, block_causal_mask(there, blocks))
        everything = torch.cat((there, there.new_ones(len(there), n_actions)), dim=1)
        return Condition(
            self.expert.what_is_seen(seen),
            there[:, None, None],
            block_causal_mask(everything, (*blocks, *[1] * n_actions), n_actions),
            rotation_at(positions_of(everything)[:, n_tokens:], self.language_model.head_dim),
            rotation_at(torch.arange(n_actions, device=there.device)[None], self.language_model.head_dim),
        )

    def _image_tokens(self, image: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 3, H, W) and (B, K) -> tokens (B, K·n, D) and which of them there are (B, K·n)."""
        assert self.vision_model is not None  # as there are cameras
        assert self.connector is not None
        squares = fit(image.flatten(0, 1), self.config.vision_model["image_size"], centred=False)
        tokens = self.connector(self.vision_model(squares).last_hidden_state)  # (B·K, n, D)
        tokens = tokens * tokens.shape[-1] ** 0.5  # as long as the embeddings of text
        per_camera = tokens.shape[1]
        return tokens.reshape(len(image), -1, tokens.shape[-1]), there.repeat_interleave(per_camera, dim=1)

    def denoise(self, sample: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """The velocity (B, T, W) float32 of the noisy actions (B, T, W) at `time` (B,), 1 for noise."""
        actions = self.action_projection(sample.to(self.dtype))
        moment = time_embedding(time, self.expert.width).to(actions.dtype)[:, None].expand_as(actions)
        x = self.action_time_out(silu(self.action_time_in(torch.cat((actions, moment), dim=-1))))
        velocity: Tensor = self.action_head(self.expert(x, *condition))
        return velocity.float()

    def _load_backbone(self, source: str) -> None:
        vlm = SmolVLMForConditionalGeneration.from_pretrained(source, dtype=self.dtype).model
        self.language_model.load(vlm.text_model.state_dict(), source)
        if self.vision_model is not None and self.connector is not None:
            load_part(self.vision_model, vlm.vision_model.state_dict(), source)
            load_part(self.connector, vlm.connector.state_dict(), source)
