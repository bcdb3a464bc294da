"""OpenVLAPolicy: a Prismatic vision-language model that answers with actions (Kim et al. 2024, arXiv 2406.09246).

    [begin | patches of each camera | state | time | text of the prompt] [answer]

The state is OpenVLA-OFT's, the time that of its diffusion head (Kim et al. 2025, arXiv 2502.19645). Its heads answer
all at once: the answer is empty places, one for each number, and all tokens attend to each other. A place is read where
a language model reads it, one before.

Shapes: B batch, K cameras, S state, T chunk, A action, n = T·A numbers of an answer, P prefix, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaModel

from ..common.block_masks import block_causal_mask, positions_of
from ..common.diffusion import DiffusionProcess
from ..common.guidance import Guidance
from ..common.hidden_states import hidden_states
from ..common.language import TextPolicy
from ..common.losses import masked_l1, masked_mean, masked_mse
from ..common.noise import draw_noise
from ..common.padding import repeat_nearest
from ..common.prompts import openvla_prompt
from ..common.token_decoding import decode_tokens
from .configuration_openvla import OpenVLAPolicyConfig
from .heads_openvla import ActionBins, MLPResNet, ToLanguage, time_token
from .vision_openvla import FusedVision, Projector
from .weights_openvla import load_original

#: Clean actions of the diffusion head are clipped to it (the default of `diffusers`' schedulers, which OFT uses).
BOUND = 1.0


class Prefix(NamedTuple):
    """What an answer follows: embeddings (B, …, D) and which of them are there (B, …), up to where a diffusion time
    stands and from there on."""

    before: Tensor
    before_there: Tensor
    after: Tensor
    after_there: Tensor


class OpenVLAPolicy(TextPolicy):
    """DINOv2 and SigLIP, a projector, and Llama; one of four heads."""

    config_class = OpenVLAPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = [  # noqa: RUF012  as in transformers
        "LlamaDecoderLayer",
        "SiglipEncoderLayer",
        "Dinov2WithRegistersLayer",
    ]

    def __init__(self, config: OpenVLAPolicyConfig) -> None:
        super().__init__(config)
        self.vision = FusedVision(config.dinov2_config, config.siglip_config)
        self.language_model: Any = LlamaModel(LlamaConfig(**config.language_config))
        width = self.language_model.config.hidden_size
        self.projector = Projector(self.vision.width, width)
        self.bins = ActionBins(config.n_action_bins, config.action_vocab_end)
        self.lm_head: nn.Linear | None = None
        self.action_head: MLPResNet | None = None
        if config.head in ("l1", "diffusion"):
            self.action_head = MLPResNet(config.action_dim * width, width, config.action_dim)
        else:
            self.lm_head = nn.Linear(width, self.language_model.config.vocab_size, bias=False)
        uses_state = config.use_state and config.state_dim > 0
        self.state_projector = ToLanguage(config.state_dim, width) if uses_state else None
        self.noise_projector: ToLanguage | None = None
        if config.head == "diffusion":
            self.noise_projector = ToLanguage(1, width)
            self.noise_shape = (config.chunk_size, config.action_dim)
            self.process = DiffusionProcess("ddim", config.n_diffusion_steps)
        self.post_init()  # type: ignore[no-untyped-call]
        # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
        if config.pretrained_backbone is not None and not torch.empty(0).is_meta:
            load_original(self, config.pretrained_backbone)

    @property
    def guides(self) -> bool:
        """Whether its head can be guided: the other three do not sample."""
        return bool(self.config.head == "diffusion")

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own for what is new; the models of `transformers` initialize themselves."""
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.reset_parameters()

    def forward(
        self,
        image: Tensor,
        task: Sequence[str],
        state: Tensor | None = None,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """The chunk (B, T, A), or, when `actions` (B, T, A) is given, {'loss'}, with tokens 'accuracy' too.

        Args:
            image: (B, K, 3, H, W) in [-1, 1].
            task: B instructions.
            state: (B, S), read with `use_state` alone.
            actions: what was demonstrated, normalized to [-1, 1]; tokens clip it to that.
            is_pad: (B, T), true for the steps of `actions` that count for nothing.
            state_mask: (B, S), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: nothing attends to it.
            action_mask: (B, A), false where a row has no such dimension: it is read as 0 and counts for nothing.
        """
        obs = {"image": image, "task": task, "state": state, "state_mask": state_mask, "image_mask": image_mask}
        if actions is None:
            return self.select_action({**obs, "action_mask": action_mask})
        actions = repeat_nearest(actions, is_pad)
        if action_mask is not None:
            actions = actions * action_mask[:, None]
        prefix = self.condition(obs)
        if self.config.head == "l1":
            return {"loss": masked_l1(self._numbers(prefix), actions, is_pad, action_mask)}
        if self.config.head == "diffusion":
            noise, time = torch.randn_like(actions), self.process.draw_times(len(actions), actions.device)
            guess = self.denoise(self.process.add_noise(actions, noise, time), time, prefix)
            return {"loss": masked_mse(guess, noise, is_pad, action_mask)}
        ids = self.bins.ids(actions).flatten(1)
        logits = self._token_logits(prefix, ids if self.config.head == "tokens" else None)  # (B, n, vocabulary)
        loss = nn.functional.cross_entropy(logits.transpose(1, 2).float(), ids, reduction="none")
        right = (logits.argmax(dim=-1) == ids).float()
        means = (masked_mean(x.view_as(actions), is_pad, action_mask) for x in (loss, right))
        return dict(zip(("loss", "accuracy"), means, strict=True))

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """The chunk (B, T, A) in normalized units; the `diffusion` head's is made of `noise` (B, T, A), by default
        drawn, one generator a row, such that it agrees with `guidance` (B, T, A)."""
        config = self.config
        if noise is not None and config.head != "diffusion":
            raise ValueError(f"noise: expected none with the head {config.head}, which does not sample, got some.")
        prefix = self.condition(obs_dict)
        if config.head == "l1":
            return self._numbers(prefix)
        if config.head == "diffusion":
            if noise is None:
                shape = (len(prefix.before), *self.noise_shape)
                noise = draw_noise(shape, prefix.before.new_zeros(0, dtype=torch.float32), generator)
            return self.process.sample(
                lambda sample, time: self.denoise(sample, time, prefix),
                noise,
                config.n_inference_steps,
                BOUND,
                guidance=guidance,
            )
        choices = self.bins.token_of(torch.arange(config.n_action_bins, device=self.device))
        if config.head == "tokens_parallel":
            bins = self._token_logits(prefix)[..., choices].argmax(dim=-1)
        else:
            bins = self._decode(prefix, choices, obs_dict.get("action_mask"))
        return self.bins.values(bins).view(len(bins), config.chunk_size, config.action_dim)

    def condition(self, obs_dict: dict[str, Any]) -> Prefix:
        """All that an answer follows, as the language model reads it."""
        image, image_mask = obs_dict["image"], obs_dict.get("image_mask")
        patches = self.projector(self.vision(image.flatten(0, 1).to(self.dtype)))  # (B·K, n, D)
        if image_mask is None:
            image_mask = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
        ids, there = self.tokenize(
            [openvla_prompt(task) for task in obs_dict["task"]], self.config.tokenizer_max_length, image.device
        )
        # Padding is put before the text, so that the answer follows its last token.
        order = there[:, 1:].to(torch.int64).argsort(dim=1, stable=True)
        text = self.language_model.embed_tokens(torch.cat((ids[:, :1], ids[:, 1:].gather(1, order)), dim=1))
        before = [text[:, :1], patches.view(len(image), -1, patches.shape[-1])]
        before_there = [there[:, :1], image_mask.repeat_interleave(patches.shape[1], dim=1)]
        if self.state_projector is not None:
            state, state_mask = obs_dict.get("state"), obs_dict.get("state_mask")
            if state is None:
                raise ValueError(f"OpenVLAPolicy: expected a state of width {self.config.state_dim}, got none.")
            state = state if state_mask is None else state * state_mask
            before.append(self.state_projector(state.to(self.dtype))[:, None])
            before_there.append(there[:, :1])
        return Prefix(
            torch.cat(before, dim=1), torch.cat(before_there, dim=1), text[:, 1:], there[:, 1:].gather(1, order)
        )

    def denoise(self, sample: Tensor, time: Tensor, condition: Prefix) -> Tensor:
        """The noise in a chunk (B, T, A) at `time` (B,), float32."""
        assert self.noise_projector is not None  # as the head is the one for diffusion
        places = self.noise_projector(sample.flatten(1)[..., None].to(self.dtype))  # (B, n, D)
        token = time_token(time, places.shape[-1]).to(places.dtype)[:, None]
        return self._numbers(condition, places, token)

    def _numbers(self, prefix: Prefix, places: Tensor | None = None, token: Tensor | None = None) -> Tensor:
        """What the head for numbers answers (B, T, A) float32, to `places` (B, n, D), empty when None."""
        assert self.action_head is not None  # as the head is one for numbers
        hidden = self._all_at_once(prefix, places, token)
        answer: Tensor = self.action_head(hidden.reshape(len(hidden), self.config.chunk_size, -1))
        return answer.float()

    def _token_logits(self, prefix: Prefix, ids: Tensor | None = None) -> Tensor:
        """What is said at each of n places (B, n, vocabulary), given the `ids` (B, n) before it; at once when None."""
        assert self.lm_head is not None  # as the head is one for tokens
        if ids is None:
            hidden = self._all_at_once(prefix)
        else:
            x, there = _joined(prefix, self.language_model.embed_tokens(ids[:, :-1]))
            hidden = hidden_states(
                self.language_model, x, block_causal_mask(there, [1] * there.shape[1]), positions_of(there)
            )
            hidden = hidden[:, -ids.shape[1] :]
        logits: Tensor = self.lm_head(hidden)
        return logits

    def _all_at_once(self, prefix: Prefix, places: Tensor | None = None, token: Tensor | None = None) -> Tensor:
        """The hidden states (B, n, D) of which the n numbers of an answer are read; a mark of the end follows them."""
        if places is None:
            n = self.config.chunk_size * self.config.action_dim
            places = prefix.before.new_zeros(len(prefix.before), n, prefix.before.shape[-1])
        end = torch.tensor([[self.tokenizer.eos_token_id]], device=places.device)
        mark = self.language_model.embed_tokens(end).expand(len(places), -1, -1)
        x, there = _joined(prefix, torch.cat((places, mark), dim=1), token)
        hidden = hidden_states(self.language_model, x, block_causal_mask(there, [there.shape[1]]), positions_of(there))
        return hidden[:, -places.shape[1] - 2 : -2]

    def _decode(self, prefix: Prefix, choices: Tensor, action_mask: Tensor | None) -> Tensor:
        """The bins (B, n), one after the other. Of dimensions that a row lacks, 0 is read, as in training."""
        assert self.lm_head is not None  # as the head is one for tokens
        head, width, cache = self.lm_head, self.config.action_dim, DynamicCache()
        x, there = _joined(prefix, prefix.before[:, :0])
        hidden = hidden_states(
            self.language_model, x, block_causal_mask(there, [1] * there.shape[1]), positions_of(there), cache
        )
        zero = self.bins.ids(torch.zeros(1, device=self.device))
        step = 0

        def logits(hidden: Tensor) -> Tensor:
            said: Tensor = head(hidden[:, -1])
            return said[:, choices]

        def following(chosen: Tensor) -> Tensor:
            nonlocal there, step
            ids = choices[chosen]
            if action_mask is not None:
                ids = torch.where(action_mask[:, step % width], ids, zero)
            step += 1
            there = nn.functional.pad(there, (0, 1), value=True)
            x = self.language_model.embed_tokens(ids[:, None])
            hidden = hidden_states(
                self.language_model, x, there[:, None, None], there.sum(dim=1, keepdim=True) - 1, cache
            )
            return logits(hidden)

        return decode_tokens(logits(hidden), following, self.config.chunk_size * width)


def _joined(prefix: Prefix, answer: Tensor, token: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Prefix, the token of a diffusion time where there is one, and answer: (B, N, D), and which are there (B, N)."""
    parts = [prefix.before, prefix.after, answer] if token is None else [prefix.before, token, prefix.after, answer]
    there = [prefix.before_there, prefix.after_there, prefix.before_there.new_ones(answer.shape[:2])]
    if token is not None:
        there.insert(1, there[0].new_ones(token.shape[:2]))
    return torch.cat(parts, dim=1), torch.cat(there, dim=1)
