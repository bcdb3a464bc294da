"""PI0Policy: PaliGemma and an action expert (π0, Black et al. 2024, arXiv 2410.24164).

Shapes: B batch, T chunk, W width of noisy actions, N tokens of images and instruction, G heads of keys and values, E
width of a head, D the expert's width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

from ..common.action_expert import GemmaCachedLayer, Past, Rotation, after, rotation_at, time_embedding
from ..common.block_masks import block_causal_mask, positions_of
from ..common.flow_vla import FlowVLAPolicy
from ..common.paligemma import PaliGemma, expert_config
from ..common.prompts import task_line
from .configuration_pi0 import PI0PolicyConfig


class Condition(NamedTuple):
    """What the noisy actions attend to, the same at every step of denoising.

    Attributes:
        seen: keys and values (B, G, N + 1, E) of images, instruction and state in each layer.
        mask: (B, 1, T, N + 1 + T), with the actions after them.
        rotation: of the actions.
    """

    seen: list[Past]
    mask: Tensor
    rotation: Rotation


class PI0Policy(FlowVLAPolicy):
    """Images and instruction are read by PaliGemma; state and noisy actions by an expert, whose layers attend to
    themselves and to the keys and values of PaliGemma's layers."""

    config_class = PI0PolicyConfig
    _no_split_modules = ["GemmaCachedLayer", "SiglipEncoderLayer"]  # noqa: RUF012  as in transformers

    def __init__(self, config: PI0PolicyConfig) -> None:
        super().__init__(config)
        self.paligemma = PaliGemma(config.language_model, config.vision_model if config.camera_names else None)
        self.expert = Expert(config)
        width = config.expert["hidden_size"]
        self.state_projection = nn.Linear(config.max_state_dim, width)
        self.action_projection = nn.Linear(config.max_action_dim, width)
        self.action_time_in = nn.Linear(2 * width, width)
        self.action_time_out = nn.Linear(width, width)
        self.action_head = nn.Linear(width, config.max_action_dim)
        self.post_init()  # type: ignore[no-untyped-call]
        loading_checkpoint = self.action_head.weight.is_meta
        if config.pretrained_backbone is not None and not loading_checkpoint:
            self.paligemma.load(config.pretrained_backbone)
        self.freeze_parts(loading=loading_checkpoint)

    def _init_weights(self, module: nn.Module) -> None:
        """As elsewhere, but Gemma's norms, which multiply by 1 + weight, start at 0."""
        if isinstance(module, GemmaRMSNorm):
            nn.init.zeros_(module.weight)
        else:
            super()._init_weights(module)

    def frozen_parts(self) -> Iterable[nn.Module | None]:
        if self.config.train_expert_only:
            return (self.paligemma,)
        return (self.paligemma.vision_tower,) if self.config.freeze_vision_encoder else ()

    def condition(self, obs_dict: dict[str, Any]) -> Condition:
        """The keys and values of images, instruction and state, in every layer."""
        prompts = [task_line(task) for task in obs_dict["task"]]
        ids, there = self.tokenize(prompts, self.config.tokenizer_max_length, self.device)
        return self._condition(ids, there, self.padded_state(obs_dict), self.images_there(obs_dict))

    def _condition(self, ids: Tensor, there: Tensor, state: Tensor, images: tuple[Tensor, Tensor] | None) -> Condition:
        seen, there = self.paligemma(ids, there, images)
        n_tokens, n_actions = there.shape[1], self.config.chunk_size
        there = torch.cat((there, there.new_ones(len(there), 1 + n_actions)), dim=1)
        mask = block_causal_mask(there, (n_tokens, 1, n_actions), 1 + n_actions)
        cosine, sine = rotation_at(positions_of(there)[:, n_tokens:], self.config.language_model["head_dim"])
        # The state, first of the expert's tokens, does not attend to the actions: it is read once.
        of_state = self.expert.read(
            self.state_projection(state)[:, None],
            (cosine[:, :, :1], sine[:, :, :1]),
            mask[:, :, :1, : n_tokens + 1],
            seen,
        )
        seen = [after(of_prefix, *own) for of_prefix, own in zip(seen, of_state, strict=True)]
        return Condition(seen, mask[:, :, 1:], (cosine[:, :, 1:], sine[:, :, 1:]))

    def denoise(self, sample: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """The velocity (B, T, W) float32 of the noisy actions (B, T, W) at `time` (B,), 1 for noise."""
        actions = self.action_projection(sample.to(self.dtype))
        moment = time_embedding(time, actions.shape[-1]).to(actions.dtype)[:, None].expand_as(actions)
        x = self.action_time_out(silu(self.action_time_in(torch.cat((actions, moment), dim=-1))))
        velocity: Tensor = self.action_head(self.expert(x, condition.rotation, condition.mask, condition.seen))
        return velocity.float()


class Expert(nn.Module):
    """Gemma, narrower than PaliGemma's, with as many layers and heads."""

    def __init__(self, config: PI0PolicyConfig) -> None:
        super().__init__()
        gemma = expert_config(config.language_model, config.expert)
        self.layers = nn.ModuleList(GemmaCachedLayer(gemma, i) for i in range(gemma.num_hidden_layers))
        self.norm = GemmaRMSNorm(gemma.hidden_size, eps=gemma.rms_norm_eps)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor, seen: list[Past]) -> Tensor:
        """(B, T, D), attending to what is seen and itself -> (B, T, D)."""
        for layer, of_layer in zip(self.layers, seen, strict=True):
            x = layer(x, rotation, mask, *of_layer)[0]
        answer: Tensor = self.norm(x)
        return answer

    def read(self, x: Tensor, rotation: Rotation, mask: Tensor, seen: list[Past]) -> list[Past]:
        """The keys and values in each layer of tokens (B, n, D) that attend to what is seen and to themselves."""
        own = []
        for layer, of_layer in zip(self.layers, seen, strict=True):
            x, keys, values = layer(x, rotation, mask, *of_layer)
            own.append((keys, values))
        return own
