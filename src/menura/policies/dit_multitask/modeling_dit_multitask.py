"""DiTMultitaskPolicy: one diffusion transformer for many tasks, told apart by a sentence.

The large behaviour models of TRI (Barreiros et al. 2025, arXiv 2507.05331), in the form that LeRobot 0.6.1 gives them
as `multi_task_dit`: CLIP sees and reads, and the transformer is modulated by state, images and text in one vector.

Shapes: B batch, O observation steps, K cameras, H W image, S state, V image features, E text, C condition,
T' = O - 1 + T predicted actions, T chunk, A action.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..common.backbones import settings_of
from ..common.diffusion import DiffusionProcess
from ..common.dit import Constants, DiT
from ..common.flow_matching import integrate_euler, interpolate, path_velocity, sample_time
from ..common.guidance import Guidance
from ..common.keypoint_encoder import center_crop, random_crop
from ..common.language import TextPolicy
from ..common.losses import masked_mse
from ..common.noise import draw_noise
from ..common.observed import camera_steps, given_images, state_steps
from ..common.optim_groups import part_at_rate
from ..common.padding import repeat_nearest
from ..common.text_encoder import FrozenTextEncoder
from ..common.vision import VisionBackbone
from .configuration_dit_multitask import DiTMultitaskPolicyConfig


class DiTMultitaskPolicy(TextPolicy):
    """States, images and a sentence -> noise taken away from a chunk, by diffusion or along a flow."""

    config_class = DiTMultitaskPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["DiTBlock", "CLIPEncoderLayer", "SiglipEncoderLayer"]  # noqa: RUF012  as transformers has it

    def __init__(self, config: DiTMultitaskPolicyConfig) -> None:
        config = copy.deepcopy(config)  # in which names of pretrained parts become their settings
        super().__init__(config)
        self.n_cameras = len(config.camera_names or ())
        seen = config.state_dim
        self.vision: VisionBackbone | None = None
        if self.n_cameras:
            source = config.pretrained_backbone or config.vision_encoder
            assert source is not None  # the config has seen to it
            self.vision = VisionBackbone(source, "frozen_batch", config.vision_pooling)
            config.vision_encoder, config.pretrained_backbone = settings_of(self.vision.model), None
            seen += self.n_cameras * self.vision.width
        self.text: FrozenTextEncoder | None = None
        if config.text_encoder is not None:
            self.text = FrozenTextEncoder(config.text_encoder, pooling="pooler")
            config.text_encoder = settings_of(self.text.model)
            self.text_projection = nn.Linear(self.text.width, config.hidden_size)
            seen += config.hidden_size
        if not seen:
            raise ValueError("DiTMultitaskPolicy: expected a state, cameras or a text_encoder, got none of them.")
        self.transformer = DiT(
            config.action_dim,
            config.n_obs_steps - 1 + config.chunk_size,
            config.hidden_size,
            config.n_layers,
            config.n_heads,
            config.n_obs_steps * seen,
            time_dim=config.time_dim,
            time_scale=1.0,
            rotary=config.rotary,
            learned_positions=config.learned_positions,
            output_norm=False,
            dropout=config.dropout,
        )
        self.process: DiffusionProcess | None = None
        if config.objective == "diffusion":
            self.process = DiffusionProcess(
                config.scheduler,
                config.n_diffusion_steps,
                config.beta_schedule,
                prediction_type=config.prediction_type,
            )
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own, but for layers that start at 0; models of `transformers` initialize themselves."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.reset_parameters()

    @property
    def noise_shape(self) -> tuple[int, int]:
        return self.config.n_obs_steps - 1 + self.config.chunk_size, self.config.action_dim

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
        """A chunk (B, T, A) drawn, or, when `actions` (B, T', A) is given, {'loss'}: how far what the transformer says
        of noisy actions is from the truth, as a mean square.

        Args:
            state: (B, [O,] S).
            image: (B, [O,] K, 3, H, W).
            task: B instructions; read where there is a text encoder.
            actions: what was demonstrated, from the first observation on.
            is_pad: (B, T'), true for the steps of `actions` that count for nothing.
            state_mask: (B, S), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: its features are read as 0.
            action_mask: (B, A), false where a row has no such dimension: it is 0 and counts for nothing.
        """
        obs = {"state": state, "image": image, "task": task}
        obs |= {"state_mask": state_mask, "image_mask": image_mask, "action_mask": action_mask}
        if actions is None:
            return self.select_action(obs)
        actions = repeat_nearest(actions.float(), is_pad)
        noise = torch.randn_like(actions)
        if action_mask is not None:
            actions, noise = actions * action_mask[:, None], noise * action_mask[:, None]
        if self.process is None:
            time = sample_time(len(actions), self.config.time_sampling, actions.device)
            noisy, target = interpolate(noise, actions, time), path_velocity(noise, actions)
        else:
            time = self.process.draw_times(len(actions), actions.device)
            noisy, target = self.process.add_noise(actions, noise, time), self.process.target(actions, noise, time)
        predicted = self.denoise(noisy, time, self.condition(obs))
        return {"loss": masked_mse(predicted, target, is_pad, action_mask)}

    def get_optim_groups(self, training_args: Any) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer: the vision model learns at `vision_learning_rate_factor`."""
        rate = self.config.vision_learning_rate_factor * training_args.learning_rate
        return part_at_rate(self, self.vision, rate, training_args)

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
            noise: (B, T', A) to start from; None draws it.
            generator: one a row, which draws that row's noise; None draws from PyTorch's own.
            guidance: (B, T, A), what the chunk is to agree with.
        """
        condition = self.condition(obs_dict)
        if noise is None:
            like = torch.empty(0, device=self.device, dtype=torch.float32)
            noise = draw_noise((len(condition.modulations[0]), *self.noise_shape), like, generator)
        noise = noise.to(self.device, torch.float32)
        mask = obs_dict.get("action_mask")
        denoise = partial(self.denoise, condition=condition)
        if mask is not None:
            # What is not there stays 0 while the rest is denoised, as in training.
            denoise = partial(self._denoise_visible, mask[:, None], condition)
        n_steps = self.config.n_inference_steps
        if guidance is not None:
            guidance = guidance.placed(self.noise_shape, first=self.config.n_obs_steps - 1)
        if self.process is None:
            start = noise if mask is None else noise * mask[:, None]
            actions = integrate_euler(denoise, start, n_steps, guidance=guidance)
        else:
            actions = self.process.sample(denoise, noise, n_steps, self.config.clip_range, generator, guidance)
        return actions[:, self.config.n_obs_steps - 1 :]

    def condition(self, obs_dict: dict[str, Any]) -> Constants:
        """All that is constant over the steps of a chunk, of an observation as `select_action` is given it."""
        n_steps = self.config.n_obs_steps
        parts: list[Tensor] = []
        if self.config.state_dim:
            steps = state_steps(
                obs_dict.get("state"), obs_dict.get("state_mask"), self.config.state_dim, "DiTMultitaskPolicy"
            )
            parts.append(steps.to(self.dtype))
        if self.vision is not None:
            image = given_images(obs_dict.get("image"), self.config.camera_names, "DiTMultitaskPolicy")
            features = self.vision(self._cropped(image.flatten(0, -4)))
            parts.append(camera_steps(features, obs_dict.get("image_mask"), len(image), self.n_cameras).flatten(2))
        if self.text is not None:
            task = obs_dict.get("task")
            if task is None:
                raise ValueError("DiTMultitaskPolicy: expected a task, which the text_encoder reads, got none.")
            vectors = self.text_projection(self.text(task, self._tokenize))
            parts.append(vectors[:, None].expand(-1, n_steps, -1))
        return self.transformer.constants(torch.cat(parts, dim=-1).flatten(1))

    def denoise(self, sample: Tensor, time: Tensor, condition: Constants) -> Tensor:
        """What the transformer says of a sample (B, T', A) at time (B,): for `flow` its velocity, from 0 for noise to
        1 for actions; for `diffusion` its `prediction_type`, at a time of training."""
        said: Tensor = self.transformer(sample, time, condition)
        return said

    def _denoise_visible(self, mask: Tensor, condition: Constants, sample: Tensor, time: Tensor) -> Tensor:
        return self.denoise(sample * mask, time, condition) * mask

    def _cropped(self, image: Tensor) -> Tensor:
        if self.config.crop_shape is None:
            return image
        crop = random_crop if self.training else center_crop
        return crop(image, *self.config.crop_shape)

    def _tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.tokenize(texts, self.config.tokenizer_max_length, self.device)
