"""PI05Policy: PaliGemma, which reads the state too, and an action expert (π0.5, Black et al. 2025, arXiv 2504.16054).

This is the part of π0.5 that makes actions of an instruction, as openpi published it; the paper's model also writes its
own subtasks.

Shapes: B batch, T chunk, W width of noisy actions, N tokens of images and prompt, G heads of keys and values, E width
of a head, D the expert's width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

from ..common.action_expert import Past, Rotation, rotation_at, time_embedding
from ..common.block_masks import block_causal_mask, positions_of
from ..common.flow_vla import FlowVLAPolicy
from ..common.paligemma import PaliGemma, expert_config
from ..common.prompts import task_and_state
from .configuration_pi05 import PI05PolicyConfig
from .expert_pi05 import Expert, Modulation


class Condition(NamedTuple):
    """What the noisy actions attend to, the same at every step of denoising.

    Attributes:
        seen: keys and values (B, G, N, E) of images and prompt in each layer.
        mask: (B, 1, T, N + T), with the actions after them.
        rotation: of the actions.
    """

    seen: list[Past]
    mask: Tensor
    rotation: Rotation


class PI05Policy(FlowVLAPolicy):
    """Images, instruction and state are read by PaliGemma; noisy actions by an expert, whose layers attend to
    themselves and to the keys and values of PaliGemma's layers, and whose norms depend on the time."""

    config_class = PI05PolicyConfig
    _no_split_modules = ["GemmaCachedLayer", "AdaptiveLayer", "SiglipEncoderLayer"]  # noqa: RUF012  as in transformers

    def __init__(self, config: PI05PolicyConfig) -> None:
        super().__init__(config)
        self.paligemma = PaliGemma(config.language_model, config.vision_model if config.camera_names else None)
        self.expert = Expert(expert_config(config.language_model, config.expert))
        width = config.expert["hidden_size"]
        self.action_projection = nn.Linear(config.max_action_dim, width)
        self.time_in = nn.Linear(width, width)
        self.time_out = nn.Linear(width, width)
        self.action_head = nn.Linear(width, config.max_action_dim)
        self.post_init()  # type: ignore[no-untyped-call]
        loading_checkpoint = self.action_head.weight.is_meta
        if config.pretrained_backbone is not None and not loading_checkpoint:
            self.paligemma.load(config.pretrained_backbone)
        self.freeze_parts(loading=loading_checkpoint)

    def _init_weights(self, module: nn.Module) -> None:
        """As elsewhere, but Gemma's norms, which multiply by 1 + weight, start at 0, and so do the adaptive."""
        if isinstance(module, Modulation):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, GemmaRMSNorm):
            nn.init.zeros_(module.weight)
        else:
            super()._init_weights(module)

    def frozen_parts(self) -> Iterable[nn.Module | None]:
        if self.config.train_expert_only:
            return (self.paligemma,)
        return (self.paligemma.vision_tower,) if self.config.freeze_vision_encoder else ()

    def condition(self, obs_dict: dict[str, Any]) -> Condition:
        """The keys and values of images and prompt, in every layer."""
        prompts = task_and_state(obs_dict["task"], self.known_state(obs_dict))
        ids, there = self.tokenize(prompts, self.config.tokenizer_max_length, self.device)
        return self._condition(ids, there, self.images_there(obs_dict))

    def _condition(self, ids: Tensor, there: Tensor, images: tuple[Tensor, Tensor] | None) -> Condition:
        seen, there = self.paligemma(ids, there, images)
        n_tokens, n_actions = there.shape[1], self.config.chunk_size
        there = torch.cat((there, there.new_ones(len(there), n_actions)), dim=1)
        return Condition(
            seen,
            block_causal_mask(there, (n_tokens, n_actions), n_actions),
            rotation_at(positions_of(there)[:, n_tokens:], self.config.language_model["head_dim"]),
        )

    def denoise(self, sample: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """The velocity (B, T, W) float32 of the noisy actions (B, T, W) at `time` (B,), 1 for noise."""
        actions = self.action_projection(sample.to(self.dtype))
        moment = silu(self.time_in(time_embedding(time, actions.shape[-1]).to(actions.dtype)))
        moment = silu(self.time_out(moment))
        velocity: Tensor = self.action_head(
            self.expert(actions, moment, condition.rotation, condition.mask, condition.seen)
        )
        return velocity.float()
