"""Text as token ids: the tokenizer of a policy that reads its task, saved beside the weights and read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

logger = logging.get_logger(__name__)

#: The tokenizer that needs no file: each byte of UTF-8 is a token (Xue et al. 2022, arXiv 2105.13626).
BYTES = "bytes"
#: Texts whose tokens are kept, so that an instruction is tokenized once.
REMEMBERED = 10_000


class TextPolicy(PreTrainedModel):
    """A policy whose config names a `tokenizer`: `bytes`, a Hub id or a directory; None for one that reads no text.

    It is fetched when it is first needed, and saved with the weights, from where a loaded policy takes it.
    """

    _tokenizer: PreTrainedTokenizerBase | None = None
    _tokens: dict[str, list[int]]
    _told_of_cuts: frozenset[str] = frozenset()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.config.tokenizer, self.config.name_or_path)
        return self._tokenizer

    def tokenize(
        self, texts: Sequence[str], length: int, device: torch.device, setting: str = "tokenizer_max_length"
    ) -> tuple[Tensor, Tensor]:
        """Token ids (B, length) int64 and which of them are text (B, length) bool.

        The length is the same for every batch, so that a row does not depend on its neighbours. A longer text is cut;
        the first one is told, by the `setting` that the length is from.
        """
        if "_tokens" not in self.__dict__:
            self._tokens = {}
        if len(self._tokens) > REMEMBERED:  # prompts that tell the state are ever new
            self._tokens.clear()
        for text in texts:
            if text not in self._tokens:
                self._tokens[text] = self.tokenizer(text).input_ids
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(texts), length), pad, dtype=torch.int64)
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens = self._tokens[text]
            if len(tokens) > length:
                self._tell_of_a_cut(text, len(tokens), length, setting)
                tokens = tokens[:length]
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            mask[row, : len(tokens)] = True
        return ids.to(device), mask.to(device)

    def _tell_of_a_cut(self, text: str, n_tokens: int, length: int, setting: str) -> None:
        if setting in self._told_of_cuts:
            return  # prompts that tell the state would all be
        self._told_of_cuts = self._told_of_cuts | {setting}
        logger.warning(
            f"{type(self).__name__}: expected texts of at most {setting} = {length} tokens, got {n_tokens} of "
            f"{text!r}: the first {length} alone are read. Raise policy.args.{setting}, or shorten the text."
        )

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """As in `transformers`, with the tokenizer's files."""
        super().save_pretrained(save_directory, **kwargs)
        if self.config.tokenizer not in (None, BYTES):
            self.tokenizer.save_pretrained(save_directory)


def load_tokenizer(name: str, directory: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer saved in `directory`, where there is one, else that of the Hub id or directory `name`."""
    if name == BYTES:
        return ByT5Tokenizer()
    saved = directory is not None and (Path(directory) / "tokenizer_config.json").is_file()
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory if saved else name)
    return tokenizer
