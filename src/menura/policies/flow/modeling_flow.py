"""FlowPolicy: flow matching over a small diffusion transformer, the one to begin with.

Flow matching: Lipman et al. 2023 (arXiv 2210.02747); for robots as in π0, Black et al. 2024 (arXiv 2410.24164). The
transformer: Peebles & Xie 2023 (arXiv 2212.09748).

Shapes: B batch, O observation steps, K cameras, H W image, S state, F image features, T chunk, A action.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..common.dit import Constants, DiT
from ..common.flow_matching import integrate_adaptive, integrate_euler, interpolate, path_velocity, sample_time
from ..common.guidance import Guidance
from ..common.language import TextPolicy
from ..common.losses import masked_mse
from ..common.noise import draw_noise
from ..common.padding import repeat_nearest
from .configuration_flow import FlowPolicyConfig
from .encoder_flow import ObservationEncoder


class FlowPolicy(TextPolicy):
    """A chunk of actions flows from noise, along velocities that a transformer predicts from what is observed.

    It takes a state, pixels or image features of any number of cameras, and a task in words, each where there is one.
    """

    config_class = FlowPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["DiTBlock", "FrozenTextEncoder", "VisionBackbone"]  # noqa: RUF012  as transformers has it

    def __init__(self, config: FlowPolicyConfig) -> None:
        config = copy.deepcopy(config)  # in which names of pretrained parts become their settings
        super().__init__(config)
        self.encoder = ObservationEncoder(config)
        self.transformer = DiT(
            config.action_dim,
            config.chunk_size,
            config.hidden_size,
            config.n_layers,
            config.n_heads,
            config.hidden_size,
            time_dim=config.hidden_size,
            patch_size=config.patch_size,
            memory=self.encoder.images is not None,
            rotary=False,
            learned_positions=True,
            dropout=config.dropout,
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own, but for layers that start at 0; models of `transformers` initialize themselves."""
        if isinstance(module, (nn.Linear, nn.Embedding, nn.LayerNorm)) and module.weight is not None:
            module.reset_parameters()

    @property
    def noise_shape(self) -> tuple[int, int]:
        return self.config.chunk_size, self.config.action_dim

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
    ) -> Tensor | dict[str, Tensor]:
        """A chunk (B, T, A) drawn, or, when `actions` (B, T, A) is given, {'loss'}: how far predicted velocities are
        from those of straight paths, as a mean square.

        Args:
            state: (B, [O,] S).
            image: (B, [O,] K, 3, H, W); with an image encoder its features (B, [O,] F).
            task: B instructions; read where there is a text encoder.
            actions: what was demonstrated.
            is_pad: (B, T), true for the steps of `actions` that count for nothing.
            state_mask: (B, S), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: it is not seen.
            action_mask: (B, A), false where a row has no such dimension: it is 0 and counts for nothing.
        """
        obs = {
            "state": state, "image": image, "task": task,
            "state_mask": state_mask, "image_mask": image_mask, "action_mask": action_mask,
        }  # fmt: skip
        if actions is None:
            return self.select_action(obs)
        # In evaluation always the same noise and times, so that losses can be compared.
        generator = None if self.training else torch.Generator(actions.device).manual_seed(0)
        noise = torch.randn(actions.shape, device=actions.device, generator=generator)
        actions = repeat_nearest(actions.float(), is_pad)
        if action_mask is not None:
            actions, noise = actions * action_mask[:, None], noise * action_mask[:, None]
        time = sample_time(len(actions), self.config.time_sampling, actions.device, generator)
        predicted = self.denoise(interpolate(noise, actions, time), time, self.condition(obs))
        return {"loss": masked_mse(predicted, path_velocity(noise, actions), is_pad, action_mask)}

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """A chunk (B, T, A) float32 in normalized units.

        Args:
            obs_dict: the observation, as of `forward`.
            noise: (B, T, A) to start from; None draws it.
            generator: one a row, which draws that row's noise; None draws from PyTorch's own.
            guidance: (B, T, A), what the chunk is to agree with.
        """
        condition = self.condition(obs_dict)
        rows = len(condition.modulations[0])
        if noise is None:
            like = torch.empty(0, device=self.device, dtype=torch.float32)
            noise = draw_noise((rows, *self.noise_shape), like, generator)
        noise = noise.to(self.device, torch.float32)
        velocity = partial(self.denoise, condition=condition)
        mask = obs_dict.get("action_mask")
        if mask is not None:
            noise, velocity = noise * mask[:, None], partial(_masked, velocity, mask)
        n_steps = self.config.n_inference_steps
        if self.config.solver == "adaptive":
            return integrate_adaptive(
                velocity, noise, self.config.tolerance, max_evaluations=n_steps, guidance=guidance
            )
        return integrate_euler(velocity, noise, n_steps, guidance=guidance)

    def condition(self, obs_dict: dict[str, Any]) -> Constants:
        """All that is constant over the steps of a chunk, of an observation as `select_action` is given it."""
        observed = self.encoder(obs_dict, self._tokenize)
        return self.transformer.constants(observed.vector, observed.tokens, observed.visible)

    def denoise(self, sample: Tensor, time: Tensor, condition: Constants) -> Tensor:
        """The velocity (B, T, A) of a sample (B, T, A) at time (B,), from 0 for noise to 1 for actions."""
        velocity: Tensor = self.transformer(sample, time, condition)
        return velocity

    def _tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.tokenize(texts, self.config.tokenizer_max_length, self.device)


def _masked(velocity: Any, mask: Tensor, sample: Tensor, time: Tensor) -> Tensor:
    """The velocity of actions of which (B, A) are there; the others stay."""
    moved: Tensor = velocity(sample, time) * mask[:, None]
    return moved
