"""ACTPolicy: action chunking with transformers (Zhao et al. 2023, arXiv 2304.13705).

Shapes: B batch, K cameras, H W image, h w feature map, S state, T chunk, A action, D width, Z latent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..common.learned import vectors
from ..common.losses import masked_l1
from ..common.optim_groups import part_at_rate
from ..common.resnet import ResNetBackbone
from .configuration_act import ACTPolicyConfig
from .transformer_act import DecoderLayer, EncoderLayer, sine_positions, sine_positions_2d


class ACTPolicy(PreTrainedModel):
    """A conditional VAE whose decoder is a transformer: state, images and a style z -> a chunk of actions.

    In training z comes from an encoder that sees the demonstrated actions; when acting, z = 0, the mean of its prior.
    """

    config_class = ACTPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer", "DecoderLayer", "ResNetBackbone"]  # noqa: RUF012  as transformers has it

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        robot_dim = config.state_dim - config.env_state_dim
        self.cvae_encoder = CVAEEncoder(config) if config.use_vae else None
        # Without the CVAE z is always 0, and its token a constant that is learned.
        self.latent_projection = nn.Linear(config.latent_dim, width) if config.use_vae else None
        self.latent_token = None if config.use_vae else nn.Embedding(1, width)
        self.state_projection = nn.Linear(robot_dim, width) if robot_dim else None
        self.env_state_projection = nn.Linear(config.env_state_dim, width) if config.env_state_dim else None
        # Learned positions of the tokens that are not image tokens: z and, where there are such, the states.
        self.token_positions = nn.Embedding(1 + (robot_dim > 0) + (config.env_state_dim > 0), width)
        self.backbone = _backbone(config) if config.camera_names else None
        self.image_projection = nn.Conv2d(config.backbone_widths[-1], width, 1) if config.camera_names else None
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_encoder_layers))
        self.encoder_norm = nn.LayerNorm(width) if config.pre_norm else nn.Identity()
        self.decoder = nn.ModuleList(DecoderLayer(config, first=i == 0) for i in range(config.n_decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.queries = nn.Embedding(config.chunk_size, width)
        self.action_head = nn.Linear(width, config.action_dim)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own but in the transformers, whose layers say how they begin. The backbone, a `transformers` model
        of its own, initializes itself (or is pretrained) and is not touched."""
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm)):
            module.reset_parameters()

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
        """The predicted chunk (B, T, A), or, when `actions` (B, T, A) is given, {'loss', 'l1_loss', 'kl_loss'}.

        Args:
            state: (B, S).
            image: (B, K, 3, H, W).
            actions: what was demonstrated.
            is_pad: (B, T), true for the steps of `actions` that count for nothing.
            state_mask: (B, S), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: nothing attends to it.
            action_mask: (B, A), false where a row has no such dimension: it is read as 0 and counts for nothing.
        """
        if state is not None and state_mask is not None:
            state = state * state_mask
        if actions is None:
            return self.predict(state, image, image_mask=image_mask)
        if action_mask is not None:
            actions = actions * action_mask[:, None]
        if self.cvae_encoder is None:
            l1_loss = masked_l1(self.predict(state, image, image_mask=image_mask), actions, is_pad, action_mask)
            return {"loss": l1_loss}
        mean, log_variance = self.cvae_encoder(state, actions, is_pad)
        latent = mean
        if self.training:  # in evaluation the loss is that of the mean, so that it is the same every time
            latent = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        l1_loss = masked_l1(self.predict(state, image, latent, image_mask), actions, is_pad, action_mask)
        kl_loss = kl_divergence(mean, log_variance)
        return {"loss": l1_loss + self.config.kl_weight * kl_loss, "l1_loss": l1_loss, "kl_loss": kl_loss}

    def get_optim_groups(self, training_args: Any) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer: the backbone learns at `backbone_learning_rate`."""
        rate = self.config.backbone_learning_rate
        rate = training_args.learning_rate if rate is None else rate
        return part_at_rate(self, self.backbone, rate, training_args)

    @torch.no_grad()
    def select_action(self, obs_dict: dict[str, Any]) -> Tensor:
        """The chunk (B, T, A) in normalized units for `obs_dict['state']` and `obs_dict['image']`."""
        state, state_mask = obs_dict.get("state"), obs_dict.get("state_mask")
        if state is not None and state_mask is not None:
            state = state * state_mask
        return self.predict(state, obs_dict.get("image"), image_mask=obs_dict.get("image_mask"))

    def predict(
        self,
        state: Tensor | None,
        image: Tensor | None,
        latent: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, S), (B, K, 3, H, W) and z (B, Z), by default 0 -> (B, T, A); cameras may be missing (B, K)."""
        memory, positions = self._tokens(state, image, latent)
        hidden = None if image_mask is None else self._hidden(image_mask, memory.shape[1])
        for layer in self.encoder:
            memory = layer(memory, positions, hidden)
        memory = self.encoder_norm(memory)
        queries = vectors(self.queries, memory).expand(len(memory), -1, -1)  # (B, T, D)
        chunk = torch.zeros_like(queries)
        for layer in self.decoder:
            chunk = layer(chunk, queries, memory, positions, hidden)
        actions: Tensor = self.action_head(self.decoder_norm(chunk))
        return actions

    def _tokens(self, state: Tensor | None, image: Tensor | None, latent: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the encoder reads, (B, N, D), and its positions (N, D): z, the states, every camera's feature map."""
        given = image if self.backbone is not None else state
        if given is None or (self.config.state_dim and state is None):
            raise ValueError(
                f"ACTPolicy: expected a state of width {self.config.state_dim} and images of "
                f"{self.config.camera_names or 'no camera'}, got {'no' if state is None else 'a'} state and "
                f"{'no' if image is None else 'an'} image."
            )
        if self.latent_projection is not None:
            latent = given.new_zeros(len(given), self.config.latent_dim) if latent is None else latent
            tokens = [self.latent_projection(latent)[:, None]]  # (B, 1, D)
        elif self.latent_token is not None:
            tokens = [vectors(self.latent_token, given).expand(len(given), -1, -1)]
        positions = [vectors(self.token_positions, given)]
        robot_dim = self.config.state_dim - self.config.env_state_dim
        if state is not None and self.state_projection is not None:
            tokens.append(self.state_projection(state[:, :robot_dim])[:, None])
        if state is not None and self.env_state_projection is not None:
            tokens.append(self.env_state_projection(state[:, robot_dim:])[:, None])
        if self.backbone is not None and self.image_projection is not None:
            # All cameras in one batch: (B·K, 3, H, W) -> (B·K, D, h, w) -> (B, K·h·w, D)
            maps = self.image_projection(self.backbone(given.flatten(0, 1)))
            tokens.append(maps.flatten(2).transpose(1, 2).reshape(len(given), -1, self.config.hidden_size))
            height, width = maps.shape[-2:]
            grid = sine_positions_2d(height, width, self.config.hidden_size, like=maps)
            positions.append(grid.repeat(given.shape[1], 1))
        return torch.cat(tokens, dim=1), torch.cat(positions)

    def _hidden(self, image_mask: Tensor, n_tokens: int) -> Tensor:
        """(B, N) true for the tokens of cameras that are not there, (B, K)."""
        n_others = self.token_positions.num_embeddings
        of_cameras = (~image_mask).repeat_interleave((n_tokens - n_others) // image_mask.shape[1], dim=1)
        return torch.cat((of_cameras.new_zeros(len(image_mask), n_others), of_cameras), dim=1)


def _backbone(config: ACTPolicyConfig) -> ResNetBackbone:
    return ResNetBackbone(
        config.backbone_widths,
        config.backbone_depths,
        config.backbone_norm,
        config.pretrained_backbone,
        block=config.backbone_block,
        dilated=config.backbone_dilated,
    )


class CVAEEncoder(nn.Module):
    """Compresses a demonstrated chunk into the mean and log variance of its style z, given the robot's state."""

    def __init__(self, config: ACTPolicyConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.summary = nn.Embedding(1, width)  # the token whose output is read, BERT's [CLS]
        self.robot_dim = config.state_dim - config.env_state_dim
        self.state_projection = nn.Linear(self.robot_dim, width) if self.robot_dim else None
        self.action_projection = nn.Linear(config.action_dim, width)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_cvae_layers))
        self.norm = nn.LayerNorm(width) if config.pre_norm else nn.Identity()
        self.head = nn.Linear(width, 2 * config.latent_dim)

    def forward(self, state: Tensor | None, actions: Tensor, is_pad: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, S), (B, T, A), (B, T) -> mean (B, Z), log variance (B, Z)."""
        tokens = [vectors(self.summary, actions).expand(len(actions), -1, -1)]
        if state is not None and self.state_projection is not None:
            tokens.append(self.state_projection(state[:, : self.robot_dim])[:, None])
        n_seen = len(tokens)
        x = torch.cat([*tokens, self.action_projection(actions)], dim=1)  # (B, 1 [+ 1] + T, D)
        if is_pad is not None:
            is_pad = torch.cat((is_pad.new_zeros(len(actions), n_seen), is_pad), dim=1)
        positions = sine_positions(x.shape[1], x.shape[2], like=x)
        for layer in self.layers:
            x = layer(x, positions, is_pad)
        mean, log_variance = self.head(self.norm(x[:, 0])).chunk(2, dim=-1)
        return mean, log_variance


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of N(mean, exp(log_variance)) from N(0, 1), summed over Z and averaged over B
    (Kingma & Welling 2014, arXiv 1312.6114, appendix B)."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=-1).mean()
