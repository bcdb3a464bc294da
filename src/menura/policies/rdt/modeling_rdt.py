"""RDTPolicy: a diffusion transformer for many robots at once (Liu et al. 2024, arXiv 2410.07864).

Shapes: B batch, O observations, K cameras, H W image, n tokens of an image, S state, T chunk, A action, U unified
vector, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from ..common.diffusion import DiffusionProcess
from ..common.dpm_solver import sample_dpm
from ..common.guidance import Guidance
from ..common.initialization import begins_by_itself
from ..common.language import TextPolicy
from ..common.losses import masked_mse
from ..common.noise import draw_noise
from ..common.padding import repeat_nearest
from ..common.text_encoder import FrozenT5
from .configuration_rdt import RDTPolicyConfig
from .transformer_rdt import Condition, RDTTransformer
from .weights_rdt import authors_weights


class RDTPolicy(TextPolicy):
    """State and actions of every robot are laid in one vector of 128 named places, and diffused there.

    Conditions are tokens of a frozen text encoder and of a frozen vision encoder. The network guesses the actions
    without noise; at places that the actions do not have, these are 0.
    """

    config_class = RDTPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["RDTBlock", "SiglipEncoderLayer", "T5Block"]  # noqa: RUF012  as `transformers` has it

    def __init__(self, config: RDTPolicyConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.text_encoder = FrozenT5(config.text_config, config.pretrained_text)
        self.vision_encoder = FrozenVision(config) if config.camera_names else None
        n_tokens = 0 if self.vision_encoder is None else self.vision_encoder.n_tokens
        cameras = len(config.camera_names or ())
        self.language_adaptor = adaptor(self.text_encoder.width, width, layers=2)
        self.image_adaptor = (
            None if self.vision_encoder is None else adaptor(self.vision_encoder.width, width, layers=2)
        )
        self.state_adaptor = adaptor(2 * config.unified_dim, width, layers=3)
        self.transformer = RDTTransformer(config, (config.n_obs_steps, cameras, n_tokens))
        self.diffusion = DiffusionProcess(n_diffusion_steps=config.n_train_steps, prediction_type="sample")
        self.post_init()  # type: ignore[no-untyped-call]
        # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
        if config.pretrained is not None and not self.transformer.positions.is_meta:
            encoders = ("text_encoder.", "vision_encoder.")
            wanted = {name: weight for name, weight in self.state_dict().items() if not name.startswith(encoders)}
            found = authors_weights(config.pretrained, wanted, cameras, config.n_obs_steps)
            self.load_state_dict(found, strict=False)  # the encoders come from elsewhere

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(T, U): the whole unified vector is diffused."""
        return self.config.chunk_size, self.config.unified_dim

    def _init_weights(self, module: nn.Module) -> None:
        """Glorot; small in the embedders of time and frequency and at the end (where the authors begin with 0, which
        answers all noise alike); sines and cosines as positions. The encoders see to themselves."""
        if begins_by_itself(module) or isinstance(module, RDTTransformer):
            module.reset_parameters()  # type: ignore[operator]
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

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
            state: (B, O, S), or (B, S) of one observation.
            image: (B, O, K, 3, H, W), or (B, K, 3, H, W) of one observation.
            task: an instruction a row; none at all is read as empty ones.
            actions: what was demonstrated.
            is_pad: (B, T), true for the steps of `actions` that count for nothing.
            state_mask: (B, S), false where a row has no such dimension: its place is marked as empty.
            image_mask: (B, K), false where a row has no such camera: nothing attends to it.
            action_mask: (B, A), as `state_mask`.
            observation_is_pad: (B, O), true for what repeats the first observation: nothing attends to its images.
        """
        observation = {
            "state": state,
            "image": image,
            "task": task,
            "state_mask": state_mask,
            "image_mask": image_mask,
            "action_mask": action_mask,
            "observation_is_pad": observation_is_pad,
        }
        if actions is None:
            return self.select_action(observation)
        condition = self.condition({**observation, "rows": len(actions)})
        actions = repeat_nearest(actions, is_pad)
        clean = self._unified(actions, self.config.action_indices) * condition.indicator[:, None]  # (B, T, U)
        noise = torch.randn_like(clean)
        time = self.diffusion.draw_times(len(clean), clean.device)
        guess = self.denoise(self.diffusion.add_noise(clean, noise, time), time, condition)
        loss = masked_mse(self._own(guess), actions, is_pad, action_mask)
        return {"loss": loss}

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """The chunk (B, T, A) in normalized units, from `noise` (B, T, U) or what the generators of the rows draw,
        such that it agrees with `guidance` (B, T, A)."""
        condition = self.condition(obs_dict)
        if noise is None:
            shape = (len(condition.prefix), *self.noise_shape)
            noise = draw_noise(shape, condition.prefix.float(), generator)
        clean = sample_dpm(
            lambda sample, time: self.denoise(sample, time, condition),
            noise,
            self.config.n_inference_steps,
            self.config.n_train_steps,
            guidance=None
            if guidance is None
            else guidance.placed(self.noise_shape, columns=self.config.action_indices),
        )
        return self._own(clean)

    def condition(self, obs_dict: dict[str, Any]) -> Condition:
        """What the denoising steps of a chunk share: encoded images, text, state and frequency."""
        state, image, task = (obs_dict.get(key) for key in ("state", "image", "task"))
        rows = next(len(value) for value in (state, image, task, obs_dict.get("rows")) if value is not None)
        weight = self.transformer.positions
        language, language_there = self.text_encoder(task or [""] * rows, self._tokenize)
        images, images_there = None, None
        if self.vision_encoder is not None and self.image_adaptor is not None:
            if image is None:
                raise ValueError(f"image: expected pictures of {self.config.camera_names}, got none.")
            image = image if self.config.n_obs_steps > 1 else image[:, None]
            encoded = self.vision_encoder(image)  # (B, O, K, n, …)
            images_there = self._images_there(encoded, obs_dict.get("image_mask"), obs_dict.get("observation_is_pad"))
            images = self.image_adaptor(encoded.to(weight.dtype).flatten(1, 3))
        empty = weight.new_zeros(rows, 0)
        newest = empty if state is None else state if self.config.n_obs_steps == 1 else state[:, -1]
        state_places = self._indicator(newest, self.config.state_indices, obs_dict.get("state_mask"))
        unified_state = self._unified(newest, self.config.state_indices) * state_places
        frequency = torch.full((rows,), self.config.control_frequency, device=weight.device)
        prefix = [
            self.transformer.frequency_embedder(frequency),
            self.state_adaptor(torch.cat([unified_state, state_places], dim=-1).to(weight.dtype)),
        ]
        action = weight.new_zeros(rows, self.config.action_dim)
        return Condition(
            prefix=torch.stack(prefix, dim=1),
            memories=self.transformer.memories(
                self.language_adaptor(language.to(weight.dtype)), language_there, images, images_there
            ),
            indicator=self._indicator(action, self.config.action_indices, obs_dict.get("action_mask")),
        )

    def denoise(self, sample: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Noisy unified actions (B, T, U) at `time` (B,) of training -> those without noise, 0 at empty places."""
        places = condition.indicator[:, None].expand(-1, sample.shape[1], -1)
        tokens = torch.cat([sample, places.to(sample.dtype)], dim=-1)
        actions = self.state_adaptor(tokens.to(self.transformer.positions.dtype))
        clean: Tensor = self.transformer(actions, time, condition)
        return clean * places

    def _tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        tokens: tuple[Tensor, Tensor] = self.tokenize(
            texts, self.config.tokenizer_max_length, self.transformer.positions.device
        )
        return tokens

    def _images_there(
        self, encoded: Tensor, image_mask: Tensor | None, observation_is_pad: Tensor | None
    ) -> Tensor | None:
        """(B, O·K·n), false for what nothing may attend to; None when all is there."""
        if image_mask is None and observation_is_pad is None:
            return None
        there = torch.ones(encoded.shape[:4], dtype=torch.bool, device=encoded.device)
        if image_mask is not None:
            there = there & image_mask[:, None, :, None]
        if observation_is_pad is not None:
            there = there & ~observation_is_pad[:, :, None, None]
        return there.flatten(1)

    def _unified(self, values: Tensor, indices: Sequence[int]) -> Tensor:
        """(…, dimensions) -> (…, U)."""
        unified = values.new_zeros(*values.shape[:-1], self.config.unified_dim)
        return unified.index_copy(-1, torch.tensor(indices[: values.shape[-1]], device=values.device), values)

    def _indicator(self, values: Tensor, indices: Sequence[int], mask: Tensor | None) -> Tensor:
        """(B, U): 1 for the places that the `values` (B, dimensions) take, of which `mask` (B, dimensions) is there."""
        return self._unified(torch.ones_like(values) if mask is None else mask.to(values.dtype), indices)

    def _own(self, unified: Tensor) -> Tensor:
        """(…, U) -> (…, A)."""
        return unified[..., torch.tensor(self.config.action_indices, device=unified.device)]


class FrozenVision(nn.Module):
    """(B, O, K, 3, H, W) normalized -> tokens (B, O, K, n, width) of a SigLIP encoder that does not learn."""

    def __init__(self, config: RDTPolicyConfig) -> None:
        super().__init__()
        # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
        if config.pretrained_vision is None or torch.empty(0).is_meta:
            self.model = SiglipVisionModel(SiglipVisionConfig(**config.vision_config, vision_use_head=False))
        else:
            self.model = SiglipVisionModel.from_pretrained(
                config.pretrained_vision, vision_use_head=False, dtype=torch.get_default_dtype()
            )
        vision: Any = self.model.config
        self.width: int = vision.hidden_size
        self.n_tokens: int = (vision.image_size // vision.patch_size) ** 2
        self.train()

    def train(self, mode: bool = True) -> FrozenVision:
        """Stays in evaluation mode and out of the optimizer, after loading, too (which ends in `eval()`)."""
        super().train(False)
        self.requires_grad_(False)
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        pixels = image.flatten(0, 2).to(next(self.model.parameters()).dtype)
        tokens: Tensor = self.model(pixels.contiguous(memory_format=torch.channels_last)).last_hidden_state
        return tokens.reshape(*image.shape[:3], *tokens.shape[1:])


def adaptor(in_width: int, width: int, layers: int) -> nn.Sequential:
    """Linear layers with GELUs between them: `mlp2x_gelu` and `mlp3x_gelu` of the authors' code."""
    parts: list[nn.Module] = [nn.Linear(in_width, width)]
    for _ in range(layers - 1):
        parts += [nn.GELU(approximate="tanh"), nn.Linear(width, width)]
    return nn.Sequential(*parts)
