"""QwenVLDiffusionPolicy: a Qwen-VL model reads pictures and instruction, a diffusion or flow head acts.

In the manner of DiVLA (Wen et al. 2024, arXiv 2412.03293), which can also learn to reason in words.

Shapes: B batch, K cameras, H W image, S state, T chunk, A action, N tokens of the prompt, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache

from ..common.guidance import Guidance
from ..common.language import TextPolicy
from ..common.losses import masked_mse
from ..common.noise import draw_noise
from ..common.padding import repeat_nearest
from .backbone_qwen_vl_diffusion import Backbone, Tokens
from .configuration_qwen_vl_diffusion import QwenVLDiffusionPolicyConfig
from .heads_qwen_vl_diffusion import DiffusionHead, FlowHead
from .prompt_qwen_vl_diffusion import END_OF_TURN, around_instruction, split_task

IGNORED = -100  # of PyTorch's cross entropy: a target that counts for nothing


class Prompt(NamedTuple):
    """Token ids: before the images (P,); after them (B, L), of which `after_mask` (B, L) is there."""

    before: Tensor
    after: Tensor
    after_mask: Tensor


class Condition(NamedTuple):
    """What the head's `constants` made, and how many rows there are."""

    constants: Any
    rows: int


class QwenVLDiffusionPolicy(TextPolicy):
    """The last layer's hidden states of the prompt and the state condition the head that makes a chunk."""

    config_class = QwenVLDiffusionPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = [  # noqa: RUF012  as `transformers` has it
        *("Qwen2VLDecoderLayer", "Qwen2VLVisionBlock"),
        *("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"),
        *("Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock"),
        *("ResidualBlock", "DiTBlock"),
    ]

    def __init__(self, config: QwenVLDiffusionPolicyConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(config)
        self.prompt_norm = nn.LayerNorm(self.backbone.width)
        self.projection = nn.Linear(self.backbone.width, config.hidden_size)
        self.state_projection = nn.Linear(config.state_dim, config.hidden_size) if config.state_dim else None
        head = FlowHead if config.head == "flow" else DiffusionHead
        self.head: DiffusionHead | FlowHead = head(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(T, A): what a chunk is denoised from, without the batch."""
        return self.config.chunk_size, self.config.action_dim

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own in the head, but for layers that start at 0. The backbone, a `transformers` model of its own,
        initializes itself (or is pretrained) and is not touched."""
        layers = (nn.Linear, nn.Conv1d, nn.ConvTranspose1d, nn.LayerNorm, nn.GroupNorm)
        if isinstance(module, layers) and module.weight is not None:
            module.reset_parameters()

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
        """{'loss', 'action_loss', 'reasoning_loss'} when `actions` (B, T, A) is given, or else a chunk (B, T, A).

        Args:
            state: (B, S).
            image: (B, K, 3, H, W).
            task: an instruction a row, with its reasoning where there is one (`reasoning_separator`); none at all is
                read as empty ones.
            actions: what was demonstrated.
            is_pad: (B, T), true for the steps of `actions` that count for nothing.
            state_mask: (B, S), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: nothing attends to it.
            action_mask: (B, A), false where a row has no such dimension: it is read as 0 and counts for nothing.
        """
        observation = {"state": state, "image": image, "task": task, "state_mask": state_mask, "image_mask": image_mask}
        if actions is None:
            return self.select_action(observation)
        if task is None:
            task = [""] * len(actions)
        prompt = self._prompt(task)
        reasons = self.config.reasoning_weight > 0
        targets = self._reasoning(task) if reasons else None
        hidden, there = self._read(prompt, image, image_mask, targets)
        n_prompt = hidden.shape[1] - (0 if targets is None else targets.shape[1])
        condition = self._condition(hidden[:, :n_prompt], there[:, :n_prompt], state, state_mask)

        actions = repeat_nearest(actions, is_pad)
        if action_mask is not None:
            actions = actions * action_mask[:, None]
        noisy, time, target = self.head.training_pair(actions)
        predicted = self.denoise(noisy, time, condition)
        action_loss = masked_mse(predicted.float(), target.float(), is_pad, action_mask)
        if targets is None:
            return {"loss": action_loss}
        # The last token of the prompt foretells the first of the reasoning, and so on.
        reasoning_loss = self._reasoning_loss(hidden[:, n_prompt - 1 : -1], targets)
        loss = action_loss + self.config.reasoning_weight * reasoning_loss
        return {"loss": loss, "action_loss": action_loss, "reasoning_loss": reasoning_loss}

    @torch.no_grad()
    def select_action(
        self,
        obs_dict: dict[str, Any],
        noise: Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """The chunk (B, T, A) in normalized units, from `noise` (B, T, A) or what the generators of the rows draw,
        such that it agrees with `guidance` (B, T, A)."""
        condition = self.condition(obs_dict)
        if noise is None:
            like = torch.empty(0, device=self.projection.weight.device)
            noise = draw_noise((condition.rows, *self.noise_shape), like, generator)
        return self.head.sample(lambda sample, time: self.denoise(sample, time, condition), noise, guidance)

    def condition(self, obs_dict: dict[str, Any]) -> Condition:
        """What the denoising steps of a chunk share: the prompt, read once, and the state."""
        state, image, task = (obs_dict.get(key) for key in ("state", "image", "task"))
        rows = next(len(value) for value in (task, state, image) if value is not None)
        prompt = self._prompt([""] * rows if task is None else task)
        hidden, there = self._read(prompt, image, obs_dict.get("image_mask"))
        return self._condition(hidden, there, state, obs_dict.get("state_mask"))

    def denoise(self, sample: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """A noisy chunk (B, T, A) at `time` (B,) -> what the head predicts of it (B, T, A)."""
        return self.head.denoise(sample, time, condition.constants)

    @torch.no_grad()
    def reason(self, obs_dict: dict[str, Any], max_new_tokens: int | None = None) -> list[str]:
        """The reasoning of each row in words, the most likely token at a time; acting does not need it.

        Args:
            obs_dict: as of `select_action`, with `task`.
            max_new_tokens: at most; `reasoning_max_length` when None.
        """
        prompt = self._prompt(obs_dict["task"])
        tokens = self.backbone.tokens(
            prompt.before, obs_dict.get("image"), obs_dict.get("image_mask"), prompt.after, prompt.after_mask
        )
        past = DynamicCache(config=self.backbone.language_model.config)
        hidden = self.backbone(tokens, past)
        there, positions = tokens.there, tokens.positions[..., -1:]
        written = hidden.new_zeros(len(hidden), 0, dtype=torch.int64)
        for _ in range(max_new_tokens or self.config.reasoning_max_length):
            newest = self.backbone.logits(hidden[:, -1:]).argmax(dim=-1)  # (B, 1)
            written = torch.cat([written, newest], dim=1)
            texts: list[str] = self.tokenizer.batch_decode(written)
            if all(END_OF_TURN in text for text in texts):
                break
            there, positions = functional.pad(there, (0, 1), value=True), positions + 1
            hidden = self.backbone(Tokens(self.backbone.embed(newest), there, positions), past)
        return [text.partition(END_OF_TURN)[0] for text in texts]

    def _read(
        self, prompt: Prompt, image: Tensor | None, image_mask: Tensor | None, following: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of the prompt and of what follows it (B, R; `IGNORED` is padding), and which are there."""
        after, after_mask = prompt.after, prompt.after_mask
        if following is not None:
            after_mask = torch.cat([after_mask, following != IGNORED], dim=1)
            after = torch.cat([after, following.clamp(min=0)], dim=1)
        tokens = self.backbone.tokens(prompt.before, image, image_mask, after, after_mask)
        return self.backbone(tokens), tokens.there

    def _condition(self, hidden: Tensor, there: Tensor, state: Tensor | None, state_mask: Tensor | None) -> Condition:
        """From the prompt's hidden states (B, N, D), and which are there (B, N)."""
        tokens: Tensor = self.projection(self.prompt_norm(hidden.to(self.prompt_norm.weight.dtype)))
        pooled = tokens[:, -1]  # of the fixed end of the prompt, and therefore there
        if self.config.pooling == "mean":
            share = there.to(tokens.dtype) / there.sum(dim=1, keepdim=True)
            pooled = torch.einsum("bn,bnd->bd", share, tokens)
        condition = pooled
        if state is not None and self.state_projection is not None:
            state = state if state_mask is None else state * state_mask
            condition = condition + self.state_projection(state.to(pooled.dtype))
        return Condition(self.head.constants(condition, tokens, there), len(condition))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # works on texts, which no graph holds
    def _prompt(self, task: Sequence[str]) -> Prompt:
        """The prompt's token ids; the same in training and in inference."""
        device = self.projection.weight.device
        before, ending = (
            torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids, device=device)
            for text in around_instruction(self.config.system_prompt)
        )
        instructions = [split_task(text, self.config.reasoning_separator)[0] for text in task]
        ids, mask = self.tokenize(instructions, self.config.tokenizer_max_length, device)
        return Prompt(
            before=before,
            after=torch.cat([ids, ending.expand(len(ids), -1)], dim=1),
            after_mask=functional.pad(mask, (0, len(ending)), value=True),
        )

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _reasoning(self, task: Sequence[str]) -> Tensor:
        """(B, R) token ids of the reasoning of each row, `IGNORED` where there is none."""
        texts = [split_task(text, self.config.reasoning_separator)[1] for text in task]
        device = self.projection.weight.device
        length = self.config.reasoning_max_length
        ids, mask = self.tokenize([text + END_OF_TURN for text in texts], length, device, "reasoning_max_length")
        some = torch.tensor([bool(text) for text in texts], device=device)
        targets: Tensor = ids.masked_fill(~(mask & some[:, None]), IGNORED)
        return targets

    def _reasoning_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The mean cross entropy of the tokens of the reasoning; 0 where there is none."""
        logits = self.backbone.logits(hidden).float()
        total = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return total / (targets != IGNORED).sum().clamp(min=1)
