"""The action heads of `QwenVLDiffusionPolicy`: what the backbone read becomes a chunk of actions.

Both have `constants` (all that stays the same over the denoising steps of a chunk), `denoise` (the network of one
step), `training_pair` and `sample`.

Shapes: B batch, T chunk, A action, N tokens, D width, C condition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..common.diffusion import DiffusionProcess, widen_bound
from ..common.dit import DiT
from ..common.flow_matching import integrate_euler, interpolate, path_velocity, sample_time
from ..common.guidance import Guidance
from ..common.unet import ConditionalUNet
from .configuration_qwen_vl_diffusion import QwenVLDiffusionPolicyConfig

#: (sample (B, T, A), time (B,)) -> (B, T, A).
Denoise = Callable[[Tensor, Tensor], Tensor]


class ActionBound(nn.Module):
    """The largest absolute values (A,) of normalized actions, 1 or what was seen in training.

    A module of its own: `device_map` may part the head into its modules, and would forget a buffer between them.
    """

    largest: Tensor

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self.register_buffer("largest", torch.ones(action_dim))


class DiffusionHead(nn.Module):
    """A conditional U-Net that predicts the noise of a chunk; DDIM when acting.

    Guesses of the chunk are clipped to [-1, 1], or to what normalized actions were seen in training where that is more.
    """

    def __init__(self, config: QwenVLDiffusionPolicyConfig) -> None:
        super().__init__()
        self.unet = ConditionalUNet(
            config.action_dim,
            config.hidden_size,
            widths=config.unet_widths,
            kernel_size=config.unet_kernel_size,
            n_groups=config.unet_n_groups,
            time_dim=config.time_embedding_size,
        )
        self.process = DiffusionProcess(n_diffusion_steps=config.n_train_steps)
        self.action_bound = ActionBound(config.action_dim)
        self.n_inference_steps = config.n_inference_steps

    def constants(self, condition: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        """From the condition (B, C); the tokens are looked at through it alone."""
        return self.unet.modulation(condition)

    def denoise(self, sample: Tensor, time: Tensor, constants: Tensor) -> Tensor:
        """(B, T, A) -> its noise (B, T, A)."""
        noise: Tensor = self.unet(sample.to(constants.dtype), time, constants)
        return noise.to(sample.dtype)

    def training_pair(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of actions (B, T, A): a noisy sample, its time (B,), and what the network ought to say of it."""
        if self.training:
            widen_bound(self.action_bound.largest, actions)
        time = self.process.draw_times(len(actions), actions.device)
        noise = torch.randn_like(actions)
        return self.process.add_noise(actions, noise, time), time, self.process.target(actions, noise, time)

    def sample(self, denoise: Denoise, noise: Tensor, guidance: Guidance | None = None) -> Tensor:
        """A chunk (B, T, A), from standard normal noise of that shape, towards `guidance`."""
        bound = self.action_bound.largest.float()
        return self.process.sample(denoise, noise, self.n_inference_steps, bound, guidance=guidance)


class FlowHead(nn.Module):
    """A diffusion transformer that attends to all tokens of the prompt and predicts the velocity of a chunk on its way
    from noise to data."""

    def __init__(self, config: QwenVLDiffusionPolicyConfig) -> None:
        super().__init__()
        self.dit = DiT(
            config.action_dim,
            config.chunk_size,
            config.hidden_size,
            config.n_layers,
            config.n_heads,
            config.hidden_size,
            time_dim=config.time_embedding_size,
            memory=True,
        )
        self.n_inference_steps = config.n_inference_steps

    def constants(self, condition: Tensor, tokens: Tensor, there: Tensor) -> Any:
        """From the condition (B, C) and the tokens (B, N, D), of which `there` (B, N) can be attended to."""
        return self.dit.constants(condition, tokens, there)

    def denoise(self, sample: Tensor, time: Tensor, constants: Any) -> Tensor:
        """(B, T, A) -> its velocity (B, T, A)."""
        velocity: Tensor = self.dit(sample, time, constants)
        return velocity

    def training_pair(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As of `DiffusionHead`."""
        time = sample_time(len(actions), "beta", actions.device)
        noise = torch.randn_like(actions)
        return interpolate(noise, actions, time), time, path_velocity(noise, actions)

    def sample(self, denoise: Denoise, noise: Tensor, guidance: Guidance | None = None) -> Tensor:
        """As of `DiffusionHead`."""
        return integrate_euler(denoise, noise, self.n_inference_steps, guidance=guidance)
