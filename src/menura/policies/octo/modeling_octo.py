"""OctoPolicy: tokens of instruction and observations, a transformer with readouts, a diffusion head.

Octo Model Team 2024, arXiv 2405.12213.

Shapes: B batch, O observation steps, K cameras, H W image, S state, T chunk, A action, n tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..common.diffusion import DiffusionProcess
from ..common.guidance import Guidance
from ..common.language import TextPolicy
from ..common.losses import masked_mse
from ..common.noise import draw_noise
from ..common.padding import repeat_nearest
from ..common.text_encoder import FrozenT5
from .configuration_octo import OctoPolicyConfig
from .head_octo import DiffusionHead
from .tokenizers_octo import ImageTokenizer, StateTokenizer
from .transformer_octo import BlockTransformer, block_mask


class OctoPolicy(TextPolicy):
    """The readout of the newest step conditions the diffusion of a chunk.

    The authors train a chunk at every step of the window; here the batch holds that of the newest.
    """

    config_class = OctoPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["OctoLayer", "T5Block"]  # noqa: RUF012  as `transformers` has it

    def __init__(self, config: OctoPolicyConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.text_encoder = FrozenT5(config.text_config, config.pretrained_text)
        self.text_projection = nn.Linear(self.text_encoder.width, width)
        small = config.wrist_cameras
        self.image_tokenizers = nn.ModuleList(
            ImageTokenizer(config, config.wrist_image_size if name in small else config.image_size)
            for name in config.camera_names or ()
        )
        self.state_tokenizer = StateTokenizer(config) if config.proprio and config.state_dim else None
        self.n_image_tokens = [int(tokenizer.n_tokens) for tokenizer in self.image_tokenizers]  # type: ignore[arg-type]
        n_state_tokens = 0 if self.state_tokenizer is None else self.state_tokenizer.n_tokens
        self.text_positions = nn.Parameter(torch.empty(config.tokenizer_max_length, width))
        n_observed = sum(self.n_image_tokens) + n_state_tokens
        self.observation_positions = nn.Parameter(torch.empty(config.n_obs_steps, n_observed, width))
        self.readouts = nn.Parameter(torch.empty(config.n_obs_steps, 1, width))  # zeros with positions, in their words
        self.transformer = BlockTransformer(config)
        self.head = DiffusionHead(config)
        self.diffusion = DiffusionProcess(config.scheduler, config.n_diffusion_steps)
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(T, A): what a chunk is denoised from, without the batch."""
        return self.config.chunk_size, self.config.action_dim

    def _init_weights(self, module: nn.Module) -> None:
        """Glorot, as the authors have it; normal positions. The text encoder sees to itself."""
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.GroupNorm, DiffusionHead)):
            module.reset_parameters()
        elif isinstance(module, OctoPolicy):
            for positions in (module.text_positions, module.observation_positions, module.readouts):
                nn.init.normal_(positions, std=0.02)

    def forward(
        self,
        state: Tensor | None = None,
        image: Tensor | None = None,
        task: Sequence[str] | None = None,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
        observation_is_pad: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """{'loss'} when `actions` (B, T, A) is given, or else a chunk (B, T, A).

        Args:
            state: (B, O, S), or (B, S) of one observation; looked at with `proprio` alone.
            image: (B, O, K, 3, H, W), or (B, K, 3, H, W) of one observation.
            task: an instruction a row; none at all is read as empty ones.
            actions: what was demonstrated.
            is_pad: (B, T), true for the steps of `actions` that count for nothing.
            state_mask: (B, S), false where a row has no such dimension: nothing attends to its token.
            image_mask: (B, K), false where a row has no such camera: nothing attends to its tokens.
            action_mask: (B, A), false where a row has no such dimension: it is read as 0 and counts for nothing.
            observation_is_pad: (B, O), true for what repeats the first observation: nothing attends to it.
        """
        observation = {
            "state": state,
            "image": image,
            "task": task,
            "state_mask": state_mask,
            "image_mask": image_mask,
            "observation_is_pad": observation_is_pad,
        }
        if actions is None:
            return self.select_action(observation)
        condition = self.condition(observation)
        actions = repeat_nearest(actions, is_pad)
        if action_mask is not None:
            actions = actions * action_mask[:, None]
        actions = actions.clamp(-self.config.max_action, self.config.max_action)
        noise = torch.randn_like(actions)
        time = self.diffusion.draw_times(len(actions), actions.device)
        predicted = self.denoise(self.diffusion.add_noise(actions, noise, time), time, condition)
        return {"loss": masked_mse(predicted, noise, is_pad, action_mask)}

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """The chunk (B, T, A) in normalized units, from `noise` (B, T, A) or what the generators of the rows draw,
        such that it agrees with `guidance` (B, T, A)."""
        condition = self.condition(obs_dict)
        if noise is None:
            noise = draw_noise((len(condition), *self.noise_shape), condition.float(), generator)
        return self.diffusion.sample(
            lambda sample, time: self.denoise(sample, time, condition),
            noise,
            self.config.n_inference_steps,
            self.config.max_action,
            generator,
            guidance,
        )

    def condition(self, obs_dict: dict[str, Any]) -> Tensor:
        """(B, M): what the newest readout makes of instruction and observations, as the head's first layer reads it."""
        state, image, task = (obs_dict.get(key) for key in ("state", "image", "task"))
        rows = next(len(value) for value in (task, state, image) if value is not None)
        text, text_there = self.text_encoder([""] * rows if task is None else task, self._tokenize)
        text = self.text_projection(text.to(self.readouts.dtype)) + self.text_positions  # (B, L, D)
        observed, observed_there = self._observed(obs_dict, rows)
        steps = self.config.n_obs_steps
        parts = [observed, text[:, None].expand(-1, steps, -1, -1), self.readouts.expand(rows, -1, -1, -1)]
        there = [observed_there, text_there[:, None].expand(-1, steps, -1)]
        observation_is_pad = obs_dict.get("observation_is_pad")
        if observation_is_pad is not None:
            there = [part & ~observation_is_pad[..., None] for part in there]
        there.append(torch.ones(rows, steps, 1, dtype=torch.bool, device=text.device))

        tokens = torch.cat([text, torch.cat(parts, dim=2).flatten(1, 2)], dim=1)
        all_there = torch.cat([text_there, torch.cat(there, dim=2).flatten(1)], dim=1)
        n_observation = observed.shape[2] + text.shape[1]
        mask = block_mask(text.shape[1], steps, n_observation, n_readout=1, device=text.device)
        read = self.transformer(tokens, mask & all_there[:, None, None])
        return self.head.constants(read[:, -1])

    def denoise(self, sample: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """A noisy chunk (B, T, A) at `time` (B,) of training -> its noise (B, T, A)."""
        noise: Tensor = self.head(sample, time, condition)
        return noise

    def _observed(self, obs_dict: dict[str, Any], rows: int) -> tuple[Tensor, Tensor]:
        """Tokens of cameras and state (B, O, n, D), and which are there (B, O, n)."""
        steps, device = self.config.n_obs_steps, self.readouts.device
        tokens: list[Tensor] = []
        there: list[Tensor] = []
        if len(self.image_tokenizers):
            image = self._with_time(obs_dict, "image")  # (B, O, K, 3, H, W)
            mask = obs_dict.get("image_mask")
            if mask is None:
                mask = torch.ones(rows, image.shape[2], dtype=torch.bool, device=device)
            for camera, tokenizer in enumerate(self.image_tokenizers):
                seen = tokenizer(image[:, :, camera].flatten(0, 1))
                tokens.append(seen.reshape(rows, steps, *seen.shape[1:]))
                there.append(mask[:, None, camera, None].expand(-1, steps, seen.shape[1]))
        if self.state_tokenizer is not None:
            state = self._with_time(obs_dict, "state")  # (B, O, S)
            tokens.append(self.state_tokenizer(state))
            mask = obs_dict.get("state_mask")
            if mask is None:
                mask = torch.ones(rows, state.shape[2], dtype=torch.bool, device=device)
            there.append(mask[:, None].expand(-1, steps, -1))
        return torch.cat(tokens, dim=2) + self.observation_positions, torch.cat(there, dim=2)

    def _with_time(self, obs_dict: dict[str, Any], key: str) -> Tensor:
        """What was observed, with an axis of time."""
        value: Tensor | None = obs_dict.get(key)
        if value is None:
            raise ValueError(f"{key}: expected it in the observation, since the config says that it is read, got none.")
        return value if self.config.n_obs_steps > 1 else value[:, None]

    def _tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        tokens: tuple[Tensor, Tensor] = self.tokenize(texts, self.config.tokenizer_max_length, self.readouts.device)
        return tokens
