"""VQBeTPolicy: behaviour generation with latent actions (Lee et al. 2024, arXiv 2403.03181).

Shapes: B batch, O observation steps, K cameras, H W image, D state, R width of the transformer, T chunk, A action,
Q queries (chunks predicted in training), G codebooks, S entries of each, N = B·Q chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..common.initialization import begins_by_itself, normal_
from ..common.keypoint_encoder import KeypointEncoder
from ..common.losses import masked_l1
from ..common.noise import draw_noise
from ..common.observed import camera_steps, given_images, state_steps
from ..common.padding import repeat_nearest
from ..common.resnet import ResNetBackbone
from .configuration_vqbet import VQBeTPolicyConfig
from .quantizer_vqbet import QUANTIZATION_WEIGHT, ActionQuantizer
from .transformer_vqbet import INITIAL_STD, Transformer

FOCAL_GAMMA = 2.0  # Lin et al. 2017 (arXiv 1708.02002), equation 4; of LeRobot and the authors' code


class VQBeTPolicy(PreTrainedModel):
    """Chunks of actions are a few codes and an offset; a transformer over observations says which codes are likely, and
    the offset of each.

    Each observation is a token a camera, a token for the state, and a query, whose output predicts the chunk that
    begins there; further queries at the end stand for chunks that begin later, from which it learns, too.

    The codes are learnt in the first `n_vqvae_steps` batches of training and then stay as they are. How many there were
    is the buffer `vqvae_steps`, part of every checkpoint, so that a training that is resumed goes on where it was. The
    paper trains the transformer after that only; here it learns beside them from the first batch, which is the paper's
    training with a transformer that has seen the observations already.
    """

    config_class = VQBeTPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block", "KeypointEncoder"]  # noqa: RUF012  as transformers has it

    vqvae_steps: Tensor

    def __init__(self, config: VQBeTPolicyConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.n_cameras = len(config.camera_names or ())
        self.tokens_per_step = self.n_cameras + bool(config.state_dim) + 1
        self.n_queries = config.n_obs_steps + config.n_predicted_chunks - 1
        self.quantizer = ActionQuantizer(config)
        self.register_buffer("vqvae_steps", torch.zeros((), dtype=torch.int64))
        if self.n_cameras:
            self.image_encoder = _image_encoder(config)
            self.image_projection = nn.Linear(2 * config.n_keypoints, width)
        self.state_projection = nn.Linear(config.state_dim, width) if config.state_dim else None
        self.query = nn.Parameter(torch.empty(width))
        n_tokens = config.n_obs_steps * self.tokens_per_step + config.n_predicted_chunks - 1
        self.transformer = Transformer(config, n_tokens)
        if config.sequential_codes:
            self.code_heads = nn.ModuleList(
                (nn.Linear(width, config.codebook_size), nn.Linear(width + config.codebook_size, config.codebook_size))
            )
        else:
            self.code_heads = nn.ModuleList((nn.Linear(width, config.n_codebooks * config.codebook_size),))
        n_codes, n_numbers = config.n_codebooks * config.codebook_size, config.chunk_size * config.action_dim
        self.offset_head = nn.Linear(width, n_codes * n_numbers)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """As GPT-2, the quantizer as PyTorch; parts come before what holds them."""
        if begins_by_itself(module) or isinstance(module, (nn.LayerNorm, nn.Conv2d, ActionQuantizer)):
            module.reset_parameters()  # type: ignore[operator]
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            normal_(module, std=INITIAL_STD)
        elif module is self:
            nn.init.normal_(self.query, std=INITIAL_STD)

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
        """A chunk (B, T, A) drawn from the prediction, or, when `actions` is given, {'loss', 'code_loss',
        'offset_loss', 'reconstruction_loss', 'quantization_loss'}. In training mode it counts as a batch.

        Args:
            state: (B, [O,] D).
            image: (B, [O,] K, 3, H, W).
            actions: (B, Q - 1 + T, A), from the oldest observation on.
            is_pad: of `actions`, (B, Q - 1 + T), true for those that count for nothing.
            state_mask: (B, D), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: its features are read as 0.
            action_mask: (B, A), false where a row has no such dimension: it is read as 0 and counts for nothing.
        """
        if actions is None:
            return self._answer(self._seen(state, image, state_mask, image_mask)[:, -1])
        if action_mask is not None:
            actions = actions * action_mask[:, None]
            action_mask = action_mask.repeat_interleave(self.n_queries, dim=0)  # (N, A)
        chunks, padded = self._chunks(actions, is_pad)
        learning = bool(self.vqvae_steps < self.config.n_vqvae_steps)
        with torch.set_grad_enabled(learning and torch.is_grad_enabled()):  # later it only tells how well codes do
            reconstruction, quantization = self.quantizer.losses(chunks, padded, action_mask)
        features = self._seen(state, image, state_mask, image_mask, self.config.n_predicted_chunks - 1)
        code_loss, offset_loss = self._prediction_losses(features.flatten(0, 1), chunks, padded, action_mask)
        loss = code_loss + self.config.offset_loss_weight * offset_loss
        if learning:
            loss = loss + reconstruction + QUANTIZATION_WEIGHT * quantization
        if self.training:
            self.vqvae_steps += 1
        return {
            "loss": loss,
            "code_loss": code_loss,
            "offset_loss": offset_loss,
            "reconstruction_loss": reconstruction,
            "quantization_loss": quantization,
        }

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """A chunk (B, T, A) in normalized units, of codes drawn from the prediction after the newest observation.

        Args:
            obs_dict: `state`, `image` and their masks, as of `forward`.
            noise: (B, G) standard normal, a number for each code: the code at which the probabilities, added up, reach
                its quantile. Drawn when None.
            generator: one a row to draw it with; PyTorch's own when None.
        """
        state, image, state_mask, image_mask = (
            obs_dict.get(key) for key in ("state", "image", "state_mask", "image_mask")
        )
        return self._answer(self._seen(state, image, state_mask, image_mask)[:, -1], noise, generator)

    def get_optim_groups(self, training_args: Any) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer: the codes learn at `vqvae_learning_rate`; biases, norms and positions do
        not decay."""
        quantizer = [p for p in self.quantizer.parameters() if p.requires_grad]
        own = {id(p) for p in quantizer}
        rest = [(name, p) for name, p in self.named_parameters() if p.requires_grad and id(p) not in own]
        decays = [p for name, p in rest if p.dim() > 1 and not name.endswith("positions.weight")]
        kept = {id(p) for p in decays}
        rate = self.config.vqvae_learning_rate
        return [
            {"params": decays, "lr": training_args.learning_rate, "weight_decay": training_args.weight_decay},
            {
                "params": [p for _, p in rest if id(p) not in kept],
                "lr": training_args.learning_rate,
                "weight_decay": 0.0,
            },
            {
                "params": quantizer,
                "lr": training_args.learning_rate if rate is None else rate,
                "weight_decay": self.config.vqvae_weight_decay,
            },
        ]

    def _seen(
        self,
        state: Tensor | None,
        image: Tensor | None,
        state_mask: Tensor | None,
        image_mask: Tensor | None,
        n_later: int = 0,
    ) -> Tensor:
        """(B, O + n_later, R): the transformer's output at the query of each observation, and at later ones.

        Nothing attends to what comes after it, so that when acting the later queries are left away.
        """
        n_steps = self.config.n_obs_steps
        parts: list[Tensor] = []  # (B, O, k, R) each
        if self.n_cameras:
            image = given_images(image, self.config.camera_names, "VQBeTPolicy")
            features = self.image_projection(self.image_encoder(image.flatten(0, -4)))  # all in one batch
            parts.append(camera_steps(features, image_mask, len(image), self.n_cameras))
        if self.state_projection is not None:
            states = state_steps(state, state_mask, self.config.state_dim, "VQBeTPolicy")
            parts.append(self.state_projection(states)[:, :, None])
        rows = len(parts[0])
        parts.append(self.query.expand(rows, n_steps, 1, -1))
        tokens = torch.cat(parts, dim=2).flatten(1, 2)  # (B, O·k, R)
        tokens = torch.cat((tokens, self.query.expand(rows, n_later, -1)), dim=1)
        out: Tensor = self.transformer(tokens)
        now = out[:, self.tokens_per_step - 1 : n_steps * self.tokens_per_step : self.tokens_per_step]
        return torch.cat((now, out[:, n_steps * self.tokens_per_step :]), dim=1)

    def _chunks(self, actions: Tensor, is_pad: Tensor | None) -> tuple[Tensor, Tensor]:
        """The chunks to learn (N, T, A), and which of their steps are padding (N, T).

        A chunk that begins in padding is none. One that ends in it is encoded with its last action held.
        """
        length = self.config.chunk_size
        chunks = actions.unfold(1, length, 1).transpose(2, 3).flatten(0, 1)
        if is_pad is None:
            return chunks, torch.zeros(chunks.shape[:2], dtype=torch.bool, device=chunks.device)
        padded = is_pad.unfold(1, length, 1).flatten(0, 1)
        nothing = padded[:, :1]
        return repeat_nearest(chunks, padded).masked_fill(nothing[..., None], 0.0), padded | nothing

    def _prediction_losses(
        self, features: Tensor, chunks: Tensor, padded: Tensor, action_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of features (N, R): the focal loss of the codes, and the L1 distance of the actions that drawn codes give."""
        noise = draw_noise((len(features), self.config.n_codebooks), features.float())
        logits, drawn = self._codes(features, noise)
        wanted = self.quantizer.encode(chunks)  # (N, G)
        log_chance = logits.log_softmax(dim=-1).gather(-1, wanted[..., None]).squeeze(-1)  # (N, G)
        focal = -((1 - log_chance.exp()) ** FOCAL_GAMMA) * log_chance
        weighted = focal @ focal.new_tensor(self.config.code_loss_weights)  # (N,)
        valid = (~padded[:, 0]).to(weighted.dtype)
        code_loss = (weighted * valid).sum() / valid.sum().clamp(min=1)
        predicted = self._decoded(features, drawn)
        return code_loss, masked_l1(predicted.float(), chunks.float(), padded, action_mask)

    def _answer(
        self, features: Tensor, noise: Tensor | None = None, generator: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """(B, R) -> (B, T, A)."""
        if noise is None:
            noise = draw_noise((len(features), self.config.n_codebooks), features.float(), generator)
        return self._decoded(features, self._codes(features, noise.float())[1])

    def _codes(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(N, R), (N, G) -> logits (N, G, S) in float32, and codes (N, G) drawn from them."""
        if not self.config.sequential_codes:
            logits = self.code_heads[0](features).float().unflatten(-1, (self.config.n_codebooks, -1))
            return logits, self._drawn(logits, noise)
        first = self.code_heads[0](features).float()
        code = self._drawn(first, noise[:, 0])
        chosen = nn.functional.one_hot(code, self.config.codebook_size).to(features.dtype)
        second = self.code_heads[1](torch.cat((features, chosen), dim=-1)).float()
        return torch.stack((first, second), dim=1), torch.stack((code, self._drawn(second, noise[:, 1])), dim=1)

    def _drawn(self, logits: Tensor, noise: Tensor) -> Tensor:
        """(…, S), (…) -> (…) codes."""
        reached = (logits.detach() / self.config.code_temperature).softmax(dim=-1).cumsum(dim=-1)[..., :-1]
        codes: Tensor = (reached < torch.special.ndtr(noise)[..., None]).sum(dim=-1)
        return codes

    def _decoded(self, features: Tensor, codes: Tensor) -> Tensor:
        """(N, R), (N, G) -> (N, T, A): what the codes stand for, and the offset predicted for each."""
        config = self.config
        offsets = self.offset_head(features).unflatten(-1, (config.n_codebooks, config.codebook_size, -1))
        chosen = codes[..., None, None].expand(-1, -1, 1, offsets.shape[-1])
        offset: Tensor = offsets.gather(2, chosen).squeeze(2).sum(dim=1)  # (N, T·A)
        answer: Tensor = self.quantizer.decode(codes) + offset.reshape(-1, config.chunk_size, config.action_dim)
        return answer


def _image_encoder(config: VQBeTPolicyConfig) -> KeypointEncoder:
    backbone = ResNetBackbone(
        config.backbone_widths,
        config.backbone_depths,
        config.backbone_norm,
        config.pretrained_backbone,
        block=config.backbone_block,
    )
    return KeypointEncoder(
        backbone,
        config.backbone_widths[-1],
        config.n_keypoints,
        2 * config.n_keypoints,
        config.crop_shape,
        crop_is_random=config.crop_is_random,
    )
