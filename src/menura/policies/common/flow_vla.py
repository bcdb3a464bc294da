"""What SmolVLA, π0 and π0.5 share: a vision-language model reads the observation, a flow makes the actions of noise.

Time runs as in openpi: 1 is noise, 0 the actions. Shapes: B batch, K cameras, S state, T chunk, A action, W width of
the noisy actions (`max_action_dim`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .action_expert import freeze
from .flow_matching import integrate_euler, interpolate, path_velocity, sample_time
from .guidance import Guidance
from .language import TextPolicy
from .losses import masked_mse
from .noise import draw_noise
from .padding import repeat_nearest


class FlowVLAPolicy(TextPolicy):
    """A policy whose class has `condition` and `denoise`; states and actions are padded with 0 to the widths that the
    pretrained weights have."""

    supports_gradient_checkpointing = True

    def _init_weights(self, module: nn.Module) -> None:
        """As in `transformers`, but the projections around the expert as PyTorch has them, as in openpi."""
        if isinstance(module, nn.Linear) and any(module is child for child in self.children()):
            module.reset_parameters()
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(T, W) of the noise that a chunk is made of."""
        return self.config.chunk_size, self.config.max_action_dim

    def condition(self, obs_dict: dict[str, Any]) -> Any:
        """All that is constant while a chunk is denoised."""
        raise NotImplementedError

    def denoise(self, sample: Tensor, time: Tensor, condition: Any) -> Tensor:
        """The velocity (B, T, W) float32 of the noisy actions (B, T, W) at `time` (B,)."""
        raise NotImplementedError

    def frozen_parts(self) -> Iterable[nn.Module | None]:
        """The parts that do not learn."""
        raise NotImplementedError

    def forward(
        self,
        task: Sequence[str],
        state: Tensor | None = None,
        image: Tensor | None = None,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """A sampled chunk (B, T, A), or, when `actions` (B, T, A) is given, {'loss'}.

        Args:
            task: B instructions.
            state: (B, S), normalized.
            image: (B, K, 3, H, W) in [-1, 1].
            actions: what was demonstrated, normalized.
            is_pad: (B, T), true for the steps of `actions` that count for nothing.
            state_mask: (B, S), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: nothing attends to it.
            action_mask: (B, A), false where a row has no such dimension: it is read as 0 and counts for nothing.
        """
        obs = {"task": task, "state": state, "image": image, "state_mask": state_mask, "image_mask": image_mask}
        if actions is None:
            return self.select_action(obs)
        actions = repeat_nearest(actions, is_pad)
        if action_mask is not None:
            actions = actions * action_mask[:, None]
        data = pad(actions.float(), (0, self.config.max_action_dim - actions.shape[-1]))
        noise = torch.randn_like(data)
        # `sample_time` and the path have noise at 0.
        progress = sample_time(len(data), "beta", data.device)
        velocity = self.denoise(interpolate(noise, data, progress), 1 - progress, self.condition(obs))
        width = actions.shape[-1]
        wanted = -path_velocity(noise, data)
        return {"loss": masked_mse(velocity[..., :width], wanted[..., :width], is_pad, action_mask)}

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """A chunk (B, T, A) in normalized units, made of `noise` (B, T, W), by default drawn, one generator a row,
        such that it agrees with `guidance` (B, T, A)."""
        rows = len(obs_dict["task"])
        if noise is None:
            noise = draw_noise((rows, *self.noise_shape), torch.empty(0, device=self.device), generator)
        if noise.shape != (rows, *self.noise_shape):
            raise ValueError(f"noise: expected the shape {(rows, *self.noise_shape)}, got {tuple(noise.shape)}.")
        condition = self.condition(obs_dict)
        chunk = integrate_euler(
            lambda sample, time: self.denoise(sample, time, condition),
            noise.float(),
            self.config.n_inference_steps,
            start=1.0,
            end=0.0,
            guidance=None if guidance is None else guidance.placed(self.noise_shape),
        )
        return chunk[..., : self.config.action_dim]

    def known_state(self, obs_dict: dict[str, Any]) -> Tensor:
        """(B, S): the state, 0 where a mask says that there is none."""
        state, mask = obs_dict.get("state"), obs_dict.get("state_mask")
        if state is None:
            if self.config.state_dim:
                raise ValueError(f"{type(self).__name__}: expected a state of width {self.config.state_dim}, got none.")
            state = torch.zeros(len(obs_dict["task"]), 0, device=self.device)
        return state if mask is None else state * mask

    def padded_state(self, obs_dict: dict[str, Any]) -> Tensor:
        """(B, `max_state_dim`): the state, 0 where there is none."""
        state = self.known_state(obs_dict)
        return pad(state, (0, self.config.max_state_dim - state.shape[-1])).to(self.dtype)

    def images_there(self, obs_dict: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
        """The images (B, K, 3, H, W) and which of them there are (B, K); None for a policy without cameras."""
        if not self.config.camera_names:
            return None
        image, mask = obs_dict.get("image"), obs_dict.get("image_mask")
        if image is None:
            raise ValueError(f"{type(self).__name__}: expected images of {self.config.camera_names}, got none.")
        if mask is None:
            mask = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
        return image.to(self.dtype), mask

    def freeze_parts(self, *, loading: bool) -> None:
        """To be called at the end of `__init__`, with whether a checkpoint will fill the weights."""
        self._to_freeze = loading
        freeze(self.frozen_parts())

    def train(self, mode: bool = True) -> FlowVLAPolicy:
        """As usual; frozen parts are frozen again after loading, which puts new parameters, that learn, in place of
        theirs and ends in `eval()`."""
        super().train(mode)
        if getattr(self, "_to_freeze", False):
            self._to_freeze = False
            freeze(self.frozen_parts())
        return self
