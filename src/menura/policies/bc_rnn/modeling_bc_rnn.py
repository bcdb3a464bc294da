"""BCRNNPolicy: an LSTM that predicts a mixture of Gaussians, as in robomimic (Mandlekar et al. 2021, arXiv 2108.03298).

Shapes: B batch, O observation steps, K cameras, H W image, D state, F what an observation becomes, R width of the LSTM,
M modes, T chunk, A action, W = T·A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..common.keypoint_encoder import KeypointEncoder
from ..common.noise import draw_noise
from ..common.observed import camera_steps, given_images, state_steps
from ..common.resnet import ResNetBackbone
from .configuration_bc_rnn import BCRNNPolicyConfig
from .mixture_bc_rnn import Mixture, MixtureHead


class BCRNNPolicy(PreTrainedModel):
    """A recurrent network over the last observations; at each of them, how likely every next action (or chunk) is.

    **History.** robomimic carries the LSTM's state from step to step and sets it to zero every `horizon` steps, so that
    after a reset it acts on one observation, then on two, and so on. A policy of Menura holds no episode: it is given
    the last `n_obs_steps` observations each time and unrolls its LSTM over them from zero. It therefore always looks
    as far back as the episode and the window allow, and does the same as robomimic until the first reset. Training is
    the same in both: windows of demonstrations, a prediction (and a loss) at every one of their steps, from which the
    LSTM learns to act on histories of any length. Where a window reaches back before its episode, the LSTM begins at
    the episode's first observation.
    """

    config_class = BCRNNPolicyConfig

    def __init__(self, config: BCRNNPolicyConfig) -> None:
        super().__init__(config)
        self.n_cameras = len(config.camera_names or ())
        self.image_encoder = _image_encoder(config) if self.n_cameras else None
        width = config.state_dim + self.n_cameras * config.image_feature_size
        between = config.dropout if config.n_layers > 1 else 0.0  # there is no place for it in a single layer
        self.lstm = nn.LSTM(width, config.hidden_size, config.n_layers, batch_first=True, dropout=between)
        self.head = MixtureHead(
            config.hidden_size,
            config.n_modes,
            config.chunk_size * config.action_dim,
            min_std=config.min_std,
            bounded=config.bounded_means,
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.LSTM)):
            module.reset_parameters()  # PyTorch's own, uniform in 1/sqrt(width), as in the paper

    def forward(
        self,
        state: Tensor | None = None,
        image: Tensor | None = None,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        observation_is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """A chunk (B, T, A) drawn from the prediction, or, when `actions` is given, {'loss'}: the negative
        log-likelihood of the chunks that begin at each observation, in nats, averaged over the observations.

        Args:
            state: (B, [O,] D).
            image: (B, [O,] K, 3, H, W).
            actions: (B, O - 1 + T, A), from the window's first observation on.
            is_pad: of `actions`, (B, O - 1 + T), true for those that count for nothing.
            observation_is_pad: (B, O), true for observations before the episode began.
            state_mask: (B, D), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: its features are read as 0.
            action_mask: (B, A), false where a row has no such dimension: it counts for nothing.
        """
        seen = self._unroll(self._observed(state, image, state_mask, image_mask), observation_is_pad)
        if actions is None:
            return self._sample(self.head(seen[:, -1]))
        chunks, counts = self._targets(actions, is_pad, observation_is_pad, action_mask)
        mixture: Mixture = self.head(seen)
        likelihood = mixture.log_likelihood(chunks, counts)  # (B, O)
        valid = counts.any(dim=-1).to(likelihood.dtype)
        return {"loss": -(likelihood * valid).sum() / valid.sum().clamp(min=1)}

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """A chunk (B, T, A) in normalized units, drawn from the prediction after the newest observation.

        Args:
            obs_dict: `state`, `image`, `observation_is_pad` and masks, as of `forward`.
            noise: (B, 1 + W) standard normal, as of `Mixture.sample`; drawn when None.
            generator: one a row to draw it with; PyTorch's own when None.
        """
        observed = self._observed(*(obs_dict.get(key) for key in ("state", "image", "state_mask", "image_mask")))
        seen = self._unroll(observed, obs_dict.get("observation_is_pad"))
        return self._sample(self.head(seen[:, -1]), noise, generator)

    def _observed(
        self, state: Tensor | None, image: Tensor | None, state_mask: Tensor | None, image_mask: Tensor | None
    ) -> Tensor:
        """(B, O, F): the state and every camera's features, side by side."""
        parts: list[Tensor] = []
        if self.config.state_dim:
            parts.append(state_steps(state, state_mask, self.config.state_dim, "BCRNNPolicy"))
        if self.image_encoder is not None:
            image = given_images(image, self.config.camera_names, "BCRNNPolicy")
            features = self.image_encoder(image.flatten(0, -4))  # all steps and cameras in one batch
            parts.append(camera_steps(features, image_mask, len(image), self.n_cameras).flatten(2))
        return torch.cat(parts, dim=-1)

    def _unroll(self, observed: Tensor, is_pad: Tensor | None) -> Tensor:
        """(B, O, F) -> (B, O, R): the LSTM after each observation. It begins at the first that is no padding (B, O);
        what it says of padding means nothing."""
        seen: Tensor
        if is_pad is None:
            seen, _ = self.lstm(observed)
            return seen
        # An LSTM cannot wait, so the rows are moved to where it begins, and their answers back.
        n_steps = observed.shape[1]
        steps = torch.arange(n_steps, device=observed.device)
        before = is_pad.sum(dim=1, keepdim=True)  # (B, 1)
        seen, _ = self.lstm(_take(observed, (steps + before).clamp(max=n_steps - 1)))
        return _take(seen, (steps - before).clamp(min=0))

    def _targets(
        self, actions: Tensor, is_pad: Tensor | None, observation_is_pad: Tensor | None, action_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The chunks that begin at each observation (B, O, W), and which of their numbers count (B, O, W)."""
        length = self.config.chunk_size
        chunks = actions.unfold(1, length, 1).transpose(2, 3)  # (B, O, T, A)
        counts = torch.ones_like(chunks, dtype=torch.bool)
        if is_pad is not None:
            counts = counts & ~is_pad.unfold(1, length, 1)[..., None]
        if observation_is_pad is not None:
            counts = counts & ~observation_is_pad[..., None, None]
        if action_mask is not None:
            counts = counts & action_mask[:, None, None]
        return chunks.flatten(2), counts.flatten(2)

    def _sample(
        self, mixture: Mixture, noise: Tensor | None = None, generator: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        if noise is None:
            noise = draw_noise((len(mixture.means), 1 + mixture.means.shape[-1]), mixture.means, generator)
        drawn = mixture.sample(noise.to(mixture.means.dtype), self.config.low_noise_std)
        return drawn.reshape(-1, self.config.chunk_size, self.config.action_dim)


def _image_encoder(config: BCRNNPolicyConfig) -> KeypointEncoder:
    norm = "group" if config.pretrained_backbone is None else "frozen_batch"
    backbone = ResNetBackbone(config.backbone_widths, config.backbone_depths, norm, config.pretrained_backbone)
    return KeypointEncoder(
        backbone, config.backbone_widths[-1], config.n_keypoints, config.image_feature_size, config.crop_shape
    )


def _take(values: Tensor, steps: Tensor) -> Tensor:
    """values[row, steps[row]]: (B, O, F) and (B, O) -> (B, O, F)."""
    return values.gather(1, steps[..., None].expand(-1, -1, values.shape[-1]))
