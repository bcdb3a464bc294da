"""DiffusionPolicy: actions by denoising (Chi et al. 2023, arXiv 2303.04137).

Shapes: B batch, O observation steps, K cameras, H W image, D state, T chunk, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..common.diffusion import DiffusionProcess, widen_bound
from ..common.guidance import Guidance
from ..common.losses import masked_mse
from ..common.noise import draw_noise
from ..common.padding import repeat_nearest
from ..common.unet import ConditionalUNet
from .configuration_diffusion import DiffusionPolicyConfig
from .encoder_diffusion import ObservationEncoder
from .transformer_diffusion import TransformerDenoiser


class Condition(NamedTuple):
    """What stays the same over the denoising steps of a chunk.

    Attributes:
        constants: what the denoiser made of the observations: the modulations of a U-Net, the memory of a transformer.
        action_mask: (B, 1, A), 0 where a row has no such dimension; None where every row has all.
    """

    constants: Any
    action_mask: Tensor | None


class DiffusionPolicy(PreTrainedModel):
    """Predicts the noise in a noisy chunk of actions, given the observations; acts by taking it away step by step.

    The chunk begins with the action of the oldest observation. `select_action` answers what begins now.
    """

    config_class = DiffusionPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["ResidualBlock", "DecoderLayer", "KeypointEncoder"]  # noqa: RUF012  transformers' own form
    action_bound: Tensor

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        super().__init__(config)
        self.encoder = ObservationEncoder(config)
        if config.denoiser == "unet":
            self.denoiser: ConditionalUNet | TransformerDenoiser = ConditionalUNet(
                config.action_dim,
                config.n_obs_steps * self.encoder.width,
                config.unet_widths,
                config.unet_kernel_size,
                config.unet_groups,
                config.unet_time_dim,
                config.film_scale,
            )
        else:
            self.denoiser = TransformerDenoiser(config, self.encoder.width)
        self.process = DiffusionProcess(
            config.noise_scheduler,
            config.n_diffusion_steps,
            config.beta_schedule,
            config.beta_start,
            config.beta_end,
            config.prediction_type,
        )
        # The largest absolute value of each dimension of the normalized actions seen in training.
        self.register_buffer("action_bound", torch.full((config.action_dim,), config.clip_sample_range))
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own, but of layers that say how they begin. The backbone initializes itself and is not touched."""
        layers = (nn.Linear, nn.Conv1d, nn.ConvTranspose1d, nn.Conv2d, nn.Embedding, nn.LayerNorm, nn.GroupNorm)
        if isinstance(module, layers):
            module.reset_parameters()

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(T, A): what a chunk is denoised from, without the batch."""
        return self.config.chunk_size, self.config.action_dim

    def forward(
        self,
        state: Tensor | None = None,
        image: Tensor | None = None,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """The loss at a random denoising time of each row, or, without `actions` (B, T, A), a sampled chunk.

        Args:
            state: (B, [O,] D).
            image: (B, [O,] K, 3, H, W).
            actions: what was demonstrated, from the oldest observation on.
            is_pad: (B, T), true for steps outside the episode: they are read as the nearest inside, and count nothing.
            state_mask: (B, D), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: its features are read as 0.
            action_mask: (B, A), false where a row has no such dimension: it is read as 0 and counts for nothing.
        """
        observation = {
            "state": state,
            "image": image,
            "state_mask": state_mask,
            "image_mask": image_mask,
            "action_mask": action_mask,
        }
        if actions is None:
            return self.select_action(observation)
        clean = repeat_nearest(actions.float(), is_pad)
        if action_mask is not None:
            clean = clean * action_mask[:, None]
        if self.training:
            widen_bound(self.action_bound, clean)
        noise = torch.randn_like(clean)
        time = self.process.draw_times(len(clean), clean.device)
        predicted = self.denoise(self.process.add_noise(clean, noise, time), time, self.condition(observation))
        target = self.process.target(clean, noise, time)
        return {"loss": masked_mse(predicted.float(), target, is_pad, action_mask)}

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """The actions (B, T - O + 1, A) from now on, in normalized units.

        Args:
            obs_dict: `state`, `image` and masks, as of `forward`.
            noise: (B, T, A) that the chunk is denoised from; drawn when None.
            generator: one a row.
            guidance: (B, T - O + 1, A), what the actions from now on are to agree with.
        """
        return self.sample(obs_dict, noise, generator, guidance)[:, self.config.n_obs_steps - 1 :]

    @torch.no_grad()
    def sample(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """The whole chunk (B, T, A) float32, from the oldest observation on; arguments as of `select_action`."""
        condition = self.condition(obs_dict)
        if noise is None:
            rows = len(next(value for value in obs_dict.values() if isinstance(value, Tensor)))
            noise = draw_noise((rows, *self.noise_shape), self.action_bound.float(), generator)
        return self.process.sample(
            lambda sample, time: self.denoise(sample, time, condition),
            noise,
            self.config.n_inference_steps,
            self.action_bound.float() if self.config.clip_sample else None,
            generator,
            None if guidance is None else guidance.placed(self.noise_shape, first=self.config.n_obs_steps - 1),
        )

    def condition(self, obs_dict: dict[str, Any]) -> Condition:
        """Encode the observations: everything that is the same for all denoising steps of a chunk."""
        state, image = (None if (x := obs_dict.get(key)) is None else x.to(self.dtype) for key in ("state", "image"))
        features = self.encoder(state, image, obs_dict.get("state_mask"), obs_dict.get("image_mask"))  # (B, O, C)
        action_mask = obs_dict.get("action_mask")
        if isinstance(self.denoiser, ConditionalUNet):
            constants: Any = self.denoiser.modulation(features.flatten(1))
        else:
            constants = self.denoiser.memory(features)
        return Condition(constants, None if action_mask is None else action_mask[:, None].to(features.dtype))

    def denoise(self, sample: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """What is predicted (`prediction_type`) of the noisy chunk (B, T, A) at the times (B,) int64: (B, T, A)."""
        sample = sample.to(self.dtype)
        if condition.action_mask is not None:
            sample = sample * condition.action_mask
        predicted: Tensor = self.denoiser(sample, time, condition.constants)
        return predicted
