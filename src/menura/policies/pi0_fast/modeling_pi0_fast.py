"""PI0FastPolicy: a vision-language model writes the chunk as FAST tokens (Pertsch et al. 2025, arXiv 2501.09747).

    [images | prompt: task and state]  [Action: ␣ t₁ t₂ … tₙ | end]
     the prefix, which sees itself      the answer: each token sees the prefix and those before it

Shapes: B batch, K cameras, P prefix, N answer, D width, T chunk, A action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PaliGemmaConfig, PaliGemmaForConditionalGeneration
from transformers.utils import logging

from ..common.block_masks import block_causal_mask, positions_of
from ..common.fast import BPE_FILE, FIT, SYNTHETIC, FastTokenizer
from ..common.hidden_states import hidden_states
from ..common.image_padding import fit
from ..common.language import TextPolicy
from ..common.padding import repeat_nearest
from ..common.prompts import state_bins
from ..common.token_decoding import decode_tokens
from .configuration_pi0_fast import PI0FastPolicyConfig

logger = logging.get_logger(__name__)

#: What the names of the FAST tokenizer's files begin with, beside the weights and the text tokenizer.
ACTION_PREFIX = "action_"
#: The answer is as long as the longest of the batch, rounded up to this: a compiled model knows few lengths.
LENGTH_STEP = 16
#: Chunks that an action tokenizer is fitted to, taken evenly over the data: enough for a thousand tokens.
FITTED_CHUNKS = 20_000


class Prefix(NamedTuple):
    """What the answer follows: `embeddings` (B, P, D), which of them are `there` (B, P), and how many of the last of
    them begin the answer rather than end the prompt."""

    embeddings: Tensor
    there: Tensor
    n_beginning: int


class PI0FastPolicy(TextPolicy):
    """PaliGemma, taught to answer with the tokens of a chunk; acting, it may choose nothing but such tokens."""

    config_class = PI0FastPolicyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["GemmaDecoderLayer", "SiglipEncoderLayer"]  # noqa: RUF012  as transformers has it

    _action_tokenizer: FastTokenizer | None = None

    def __init__(self, config: PI0FastPolicyConfig) -> None:
        super().__init__(config)
        self.paligemma = _paligemma(config)
        self.malformed_chunks = 0
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def action_tokenizer(self) -> FastTokenizer:
        """The FAST tokenizer: that saved with the weights, where there is one, else that which the config names."""
        if self._action_tokenizer is None:
            config, directory = self.config, self.config.name_or_path
            if directory and (Path(directory) / f"{ACTION_PREFIX}{BPE_FILE}").is_file():
                tokenizer = FastTokenizer.load(directory, ACTION_PREFIX)
            elif config.action_tokenizer == SYNTHETIC:
                tokenizer = FastTokenizer.synthetic(
                    config.chunk_size, config.action_dim, vocab_size=config.action_vocab_size
                )
            elif config.action_tokenizer == FIT:
                raise ValueError(
                    "PI0FastPolicy: expected an action tokenizer, got none yet: `action_tokenizer: fit` makes one of "
                    "the data when `menura train` begins. Train it, call fit_to_data, or name another."
                )
            else:
                tokenizer = FastTokenizer.load(config.action_tokenizer)
            self._action_tokenizer = tokenizer
        return self._action_tokenizer

    @torch.no_grad()
    def fit_to_data(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """With `action_tokenizer: fit`, make the tokenizer of processed batches that hold every frame's chunk."""
        if self.config.action_tokenizer != FIT:
            return
        chunks = torch.cat([_chunks(batch["actions"], batch["is_pad"], batch.get("action_mask")) for batch in batches])
        taken = chunks[:: -(-len(chunks) // FITTED_CHUNKS)]
        self._action_tokenizer = FastTokenizer.fit(taken, vocab_size=self.config.action_vocab_size)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """As in `transformers`, with the files of both tokenizers."""
        super().save_pretrained(save_directory, **kwargs)
        self.action_tokenizer.save(save_directory, ACTION_PREFIX)

    def forward(
        self,
        state: Tensor,
        image: Tensor,
        task: Sequence[str],
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
        state_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """The chunk (B, T, A), or, when `actions` (B, T, A) is given, {'loss', 'accuracy', 'clipped', 'cut'}.

        The loss is the mean cross-entropy of the answer's tokens; `clipped` and `cut` are the shares of chunks of which
        the tokenizer could not write a coefficient, and which took more than `max_action_tokens`.

        Args:
            state: (B, S), normalized to [-1, 1].
            image: (B, K, 3, H, W) in [-1, 1].
            task: B instructions.
            actions: what was demonstrated, normalized.
            is_pad: (B, T), true for the steps of `actions` that count for nothing: the last that counts is held.
            state_mask: (B, S), false where a row has no such dimension: it is read as 0.
            image_mask: (B, K), false where a row has no such camera: nothing attends to it.
            action_mask: (B, A), false where a row has no such dimension: it is read as 0.
        """
        obs = {"state": state, "image": image, "task": task, "state_mask": state_mask, "image_mask": image_mask}
        if actions is None:
            return self.select_action(obs)
        prefix = self.prefix(obs)
        tokens, there, logs = self.answer(actions, is_pad, action_mask)
        logits = self.logits(prefix, tokens).float()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
        share = there.flatten() / there.sum().clamp(min=1)
        right = (logits.argmax(dim=-1) == tokens).flatten()
        return {"loss": (loss * share).sum(), "accuracy": (right * share).sum(), **logs}

    @torch.no_grad()
    def select_action(self, obs_dict: dict[str, Any], generator: Sequence[torch.Generator] | None = None) -> Tensor:
        """The chunk (B, T, A) in normalized units; with a `sampling_temperature`, drawn, one generator a row."""
        fast, config = self.action_tokenizer, self.config
        tokens = self.decode(self.prefix(obs_dict), generator).tolist()
        end = fast.vocab_size
        chunks = [row[: row.index(end)] if end in row else row for row in tokens]
        decoded = fast.decode(chunks, config.chunk_size, config.action_dim)
        n_malformed = int(decoded.malformed.sum())
        if n_malformed:
            self.malformed_chunks += n_malformed
            logger.warning(
                f"PI0FastPolicy: the tokens of {n_malformed} of {len(chunks)} chunks were too few or too many for "
                f"{config.chunk_size} actions; missing frequencies are 0 ({self.malformed_chunks} since it was loaded)."
            )
        return decoded.actions.to(self.device)

    def prefix(self, obs_dict: dict[str, Any]) -> Prefix:
        """The images and the prompt, as the language model reads them."""
        image, image_mask = obs_dict["image"], obs_dict.get("image_mask")
        cameras = image.shape[1]
        vision = self.paligemma.config.vision_config
        pixels = fit(image.flatten(0, 1).to(self.dtype), vision.image_size, centred=True)
        features = self.paligemma.model.vision_tower(pixels).last_hidden_state
        patches = self.paligemma.model.multi_modal_projector(features).unflatten(0, (-1, cameras))  # (B, K, n, D)
        if image_mask is None:
            image_mask = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
        state, state_mask = obs_dict["state"], obs_dict.get("state_mask")
        ids, there, n_beginning = self.prompt(obs_dict["task"], state if state_mask is None else state * state_mask)
        embeddings = torch.cat((patches.flatten(1, 2), self.embed(ids)), dim=1)
        return Prefix(
            embeddings, torch.cat((image_mask.repeat_interleave(patches.shape[2], dim=1), there), dim=1), n_beginning
        )

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # text, which no graph holds
    def prompt(self, task: Sequence[str], state: Tensor) -> tuple[Tensor, Tensor, int]:
        """Token ids (B, L), which of them are there (B, L) and how many of the last begin the answer.

        Padding comes first, so that the answer follows the last token. A prompt that is too long loses its beginning.
        """
        beginning = [] if self.config.prompt_style == "openpi" else [self.tokenizer.bos_token_id]
        if None in beginning:
            raise ValueError(f"tokenizer: expected one with a token of beginning, got {self.config.tokenizer!r}.")
        length = self.config.tokenizer_max_length
        ids = torch.zeros(len(task), length, dtype=torch.int64)
        there = torch.zeros(len(task), length, dtype=torch.bool)
        for row, bins in enumerate(state_bins(state)):
            told = self.tokenizer(prompt_text(task[row], bins, self.config.prompt_style)).input_ids
            if len(told) > length:
                logger.warning_once(
                    f"PI0FastPolicy: a prompt of {len(told)} tokens was cut to tokenizer_max_length = {length}."
                )
            kept = told[-length:]
            ids[row, length - len(kept) :] = torch.tensor(kept)
            there[row, length - len(kept) :] = True
        start = torch.tensor(beginning, dtype=torch.int64).expand(len(task), -1)
        ids, there = torch.cat((ids, start), dim=1), torch.cat((there, torch.ones_like(start, dtype=torch.bool)), dim=1)
        return ids.to(self.device), there.to(self.device), len(beginning)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def answer(
        self, actions: Tensor, is_pad: Tensor | None, action_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The tokens (B, N) that say `actions`, which of them count (B, N), and the shares `clipped` and `cut`."""
        encoded = self.action_tokenizer.encode(_chunks(actions, is_pad, action_mask))
        before, after = self._marks()
        most = self.config.max_action_tokens
        last = [self.tokenizer.eos_token_id]  # which nothing reads: it is learnt, as openpi and LeRobot do
        told = [[*before, *map(self._vocabulary_id, tokens), *after, *last] for tokens in encoded.tokens]
        length = min(most, -(-max(map(len, told)) // LENGTH_STEP) * LENGTH_STEP)
        ids = torch.zeros(len(told), length, dtype=torch.int64)
        there = torch.zeros(len(told), length, dtype=torch.bool)
        for row, tokens in enumerate(told):
            kept = tokens[:most]
            ids[row, : len(kept)] = torch.tensor(kept)
            there[row, : len(kept)] = True
        if is_pad is not None:
            there[is_pad.all(dim=1).cpu()] = False
        cut = torch.tensor([len(tokens) > most for tokens in told])
        logs = {"clipped": encoded.clipped.float().mean(), "cut": cut.float().mean()}
        return ids.to(self.device), there.to(self.device), {key: value.to(self.device) for key, value in logs.items()}

    def logits(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """What the model says at each place of the answer (B, N), given the tokens before it -> (B, N, vocabulary)."""
        n = tokens.shape[1]
        read = self.embed(tokens[:, :-1])
        embeddings = torch.cat((prefix.embeddings, read), dim=1)
        there = torch.cat((prefix.there, torch.ones_like(tokens[:, 1:], dtype=torch.bool)), dim=1)
        n_prompt = prefix.there.shape[1] - prefix.n_beginning
        mask = block_causal_mask(there, [n_prompt, *[1] * (prefix.n_beginning + n - 1)])
        logits: Tensor = self.paligemma.lm_head(self._read(embeddings, mask, positions_of(there))[:, -n:])
        return logits

    def decode(self, prefix: Prefix, generator: Sequence[torch.Generator] | None = None) -> Tensor:
        """The FAST tokens of the answer (B, N), each row up to its first end, which is `vocab_size`.

        `Action: ` is what every answer begins with, so it is read along with the prefix.
        """
        device, fast = prefix.embeddings.device, self.action_tokenizer
        before, after = self._marks()
        choices = torch.tensor([*map(self._vocabulary_id, range(fast.vocab_size)), *after], device=device)
        opening = torch.tensor(before, device=device).expand(len(prefix.there), -1)
        cache = DynamicCache()
        there = torch.cat((prefix.there, torch.ones_like(opening, dtype=torch.bool)), dim=1)
        mask = block_causal_mask(there, [prefix.there.shape[1], *[1] * len(before)])
        embeddings = torch.cat((prefix.embeddings, self.embed(opening)), dim=1)
        hidden = self._read(embeddings, mask, positions_of(there), cache)

        def logits(hidden: Tensor) -> Tensor:
            said: Tensor = self.paligemma.lm_head(hidden[:, -1])
            return said[:, choices]

        def following(token: Tensor) -> Tensor:
            nonlocal there
            there = nn.functional.pad(there, (0, 1), value=True)
            position = there.sum(dim=1, keepdim=True) - 1
            return logits(self._read(self.embed(choices[token][:, None]), there[:, None, None], position, cache))

        return decode_tokens(
            logits(hidden),
            following,
            self.config.max_action_tokens - len(before),
            end=fast.vocab_size,
            temperature=self.config.sampling_temperature,
            generator=generator,
        )

    def embed(self, ids: Tensor) -> Tensor:
        """(B, N) token ids -> (B, N, D), multiplied by √D as Gemma has it."""
        table = self.paligemma.model.language_model.embed_tokens
        embedded: Tensor = table(ids)
        if not hasattr(table, "embed_scale"):  # which older versions of transformers have elsewhere
            embedded = embedded * embedded.shape[-1] ** 0.5
        return embedded

    def _read(self, x: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """(B, N, D), attending to the cache and itself as `mask` (B, 1, N, …) says -> hidden states (B, N, D)."""
        language_model = self.paligemma.model.language_model
        if not hasattr(language_model.embed_tokens, "embed_scale"):
            x = x / x.shape[-1] ** 0.5  # older versions of transformers multiply all that the model reads
        return hidden_states(language_model, x, mask, positions, cache)

    def _marks(self) -> tuple[list[int], list[int]]:
        """The token ids before and after those of the chunk."""
        before = self.tokenizer("Action: ", add_special_tokens=False).input_ids
        after = self.tokenizer("|", add_special_tokens=False).input_ids
        return before, after

    def _vocabulary_id(self, token: int) -> int:
        """The text vocabulary's id of a FAST token: counted down from its end (openpi, `models/tokenizer.py`)."""
        return int(self.config.tokenizer_vocab_size - 1 - self.config.n_skipped_tokens - token)


def prompt_text(task: str, bins: Sequence[int], style: str) -> str:
    """The prompt of a task and the bins of a state, in training and inference alike (openpi, `models/tokenizer.py`;
    LeRobot, `processor_pi0_fast.py`)."""
    told = task.strip().replace("_", " ").replace("\n", " ")
    if style == "openpi":
        told = told.lower()
    return f"Task: {told}, State: {' '.join(map(str, bins))};\n"


def _chunks(actions: Tensor, is_pad: Tensor | None, action_mask: Tensor | None) -> Tensor:
    """(B, T, A) as they are told: 0 where a row has no such dimension, the last step that counts held."""
    return repeat_nearest(actions if action_mask is None else actions * action_mask[:, None], is_pad)


def _paligemma(config: PI0FastPolicyConfig) -> Any:
    """The model of `transformers`; its settings are written into `config` when it comes with pretrained weights."""
    # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
    if config.pretrained_backbone is None or torch.empty(0).is_meta:
        return PaliGemmaForConditionalGeneration(PaliGemmaConfig(**config.vlm_config))
    model = PaliGemmaForConditionalGeneration.from_pretrained(
        config.pretrained_backbone, dtype=torch.get_default_dtype()
    )
    config.vlm_config = model.config.to_dict()
    return model
