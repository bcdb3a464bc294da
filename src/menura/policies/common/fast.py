"""FAST: chunks of actions as few discrete tokens (Pertsch et al. 2025, arXiv 2501.09747).

A chunk is turned into its cosine coefficients over time, which are scaled, rounded and written lowest frequency first,
one character a coefficient; byte-pair encoding shortens that text. Shapes: B batch, T chunk, A action.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, trainers
from torch import Tensor
from transformers.utils.hub import cached_file

#: The tokenizer that needs no file: fitted to smooth random chunks when it is made.
SYNTHETIC = "synthetic"
#: The one that is fitted to the data before the first step of a training.
FIT = "fit"
#: The files of `physical-intelligence/fast`, whose layout is kept; its code is not run.
CONFIG_FILE, BPE_FILE, TEXT_FILE = "processor_config.json", "tokenizer.json", "tokenizer_config.json"
#: Coefficients told apart at most. Scaled by 10, those of 50 actions of a magnitude of 5 take about 700.
_MOST_CHARACTERS = 4096


class Encoded(NamedTuple):
    """Tokens of each chunk; `clipped` (B,) bool: a coefficient lay beyond what the tokenizer knows."""

    tokens: list[list[int]]
    clipped: Tensor


class Decoded(NamedTuple):
    """`actions` (B, T, A) float32; `malformed` (B,) bool: the tokens were not those of a whole chunk."""

    actions: Tensor
    malformed: Tensor


class FastTokenizer:
    """Encodes normalized chunks and decodes them.

    Args:
        bpe: text of coefficients to token ids.
        scale: coefficients are multiplied by it before they are rounded: the larger, the more exact and the longer.
        min_token: the least coefficient, written as the character 0.
    """

    def __init__(self, bpe: Tokenizer, scale: float = 10.0, min_token: int = 0) -> None:
        self.bpe = bpe
        self.scale = scale
        self.min_token = min_token
        self.n_characters = _known_characters(bpe)
        if not self.n_characters:
            raise ValueError("FAST tokenizer: expected one that can write the character 0, got one that cannot.")

    @property
    def vocab_size(self) -> int:
        return int(self.bpe.get_vocab_size())

    def encode(self, actions: Tensor) -> Encoded:
        """(B, T, A) normalized -> the tokens of each chunk, however many it takes.

        Coefficients that the tokenizer has no character for are clipped to the nearest, and `clipped` tells.
        """
        coefficients = _coefficients(actions, self.scale) - self.min_token  # (B, T, A)
        known = coefficients.clamp(0, self.n_characters - 1)
        texts = ["".join(map(chr, row)) for row in known.flatten(1).tolist()]
        tokens = [encoding.ids for encoding in self.bpe.encode_batch(texts, add_special_tokens=False)]
        return Encoded(tokens, (known != coefficients).flatten(1).any(dim=1))

    def decode(self, tokens: Sequence[Sequence[int]], chunk_size: int, action_dim: int) -> Decoded:
        """Tokens of each chunk -> actions (B, T, A) float32.

        Any tokens have an answer. They are read up to the first that means no coefficient; coefficients that are
        missing at the end, which are the highest frequencies, are 0, and superfluous ones are left out: where openpi
        answers zeros altogether, as much of the chunk as was said. `malformed` tells of which chunks this is so.
        """
        length = chunk_size * action_dim
        coefficients = torch.zeros(len(tokens), length, dtype=torch.float64)
        malformed = torch.zeros(len(tokens), dtype=torch.bool)
        for row, ids in enumerate(tokens):
            text, readable = self._text(ids)
            values = [ord(character) + self.min_token for character in text[:length]]
            coefficients[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
            malformed[row] = not readable or len(text) != length
        frequencies = coefficients.view(-1, chunk_size, action_dim) / self.scale
        return Decoded((cosine_matrix(chunk_size).T @ frequencies).float(), malformed)

    def save(self, directory: str | Path, prefix: str = "") -> None:
        """Write the files of the Hub's layout into `directory`, which is made if need be; names follow `prefix`."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        config = {
            "processor_class": "UniversalActionProcessor",
            "scale": self.scale,
            "min_token": self.min_token,
            "vocab_size": self.vocab_size,
            "action_dim": None,
            "time_horizon": None,
        }
        text = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        for name, content in ((CONFIG_FILE, config), (TEXT_FILE, text)):
            file = Path(directory) / f"{prefix}{name}"
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        self.bpe.save(str(Path(directory) / f"{prefix}{BPE_FILE}"))

    @classmethod
    def load(cls, name: str | Path, prefix: str = "") -> FastTokenizer:
        """Read a directory, or a repository of the Hub such as `physical-intelligence/fast`."""
        bpe_file, config_file = (_found(str(name), prefix + file) for file in (BPE_FILE, CONFIG_FILE))
        config: dict[str, Any] = json.loads(Path(config_file).read_text(encoding="utf-8"))
        missing = [key for key in ("scale", "min_token") if key not in config]
        if missing:
            raise ValueError(f"{config_file}: expected {' and '.join(missing)}, got {sorted(config)}.")
        return cls(Tokenizer.from_file(bpe_file), config["scale"], config["min_token"])

    @classmethod
    def fit(
        cls, actions: Tensor, *, scale: float = 10.0, vocab_size: int = 1024, largest: float | None = None
    ) -> FastTokenizer:
        """A tokenizer for chunks like these.

        Args:
            actions: (N, T, A), normalized as they will be.
            scale: as of the class. The paper's is 10.
            vocab_size: tokens at most: the coefficients there are, and merges of them. The paper's is 1024.
            largest: magnitude of actions that are still written without clipping; those of the data, when None.
        """
        coefficients = _coefficients(actions, scale)  # (N, T, A)
        low, high = int(coefficients.min()), int(coefficients.max())
        if largest is not None:
            # No coefficient of an orthonormal transform of T numbers exceeds sqrt(T) times the largest of them.
            limit = math.ceil(scale * largest * math.sqrt(actions.shape[1]))
            low, high = min(low, -limit), max(high, limit)
        n_characters = high - low + 1
        if n_characters > min(vocab_size, _MOST_CHARACTERS):
            raise ValueError(
                f"FAST tokenizer: expected a vocab_size of at least {n_characters}, one token for each coefficient "
                f"from {low} to {high}, got {vocab_size}. Enlarge it, or take a smaller scale than {scale}."
            )
        bpe = Tokenizer(models.BPE())
        bpe.decoder = decoders.Fuse()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            initial_alphabet=[chr(index) for index in range(n_characters)],
            special_tokens=[],
            show_progress=False,
        )
        texts = ("".join(map(chr, row)) for row in (coefficients - low).flatten(1).tolist())
        bpe.train_from_iterator(texts, trainer=trainer)
        return cls(bpe, scale, low)

    @classmethod
    def synthetic(
        cls, chunk_size: int, action_dim: int, *, scale: float = 10.0, vocab_size: int = 1024
    ) -> FastTokenizer:
        """One for actions of a magnitude up to 5, fitted to smooth random chunks: it needs neither data nor files."""
        random = torch.Generator().manual_seed(0)
        steps = torch.randn(256, chunk_size, action_dim, generator=random) / math.sqrt(chunk_size)
        return cls.fit(steps.cumsum(dim=1).clamp(-5, 5), scale=scale, vocab_size=vocab_size, largest=5.0)

    def _text(self, ids: Sequence[int]) -> tuple[str, bool]:
        """What tokens say up to the first thing that is no coefficient, and whether that is all of them."""
        end = next((place for place, token in enumerate(ids) if not 0 <= token < self.vocab_size), len(ids))
        text = self.bpe.decode(list(ids[:end]), skip_special_tokens=False)
        readable = next((place for place, one in enumerate(text) if ord(one) >= self.n_characters), len(text))
        return text[:readable], end == len(ids) and readable == len(text)


@lru_cache(maxsize=16)
def cosine_matrix(length: int) -> Tensor:
    """The orthonormal DCT-II as a matrix (T frequencies, T steps), float64: `C @ x` transforms, `C.T @ y` goes back."""
    step, frequency = torch.arange(length, dtype=torch.float64), torch.arange(length, dtype=torch.float64)[:, None]
    matrix = torch.cos(torch.pi / length * (step + 0.5) * frequency) * math.sqrt(2 / length)
    matrix[0] /= math.sqrt(2)
    return matrix


def _coefficients(actions: Tensor, scale: float) -> Tensor:
    """(B, T, A) -> the scaled and rounded cosine coefficients (B, T, A) int64 on the CPU."""
    return torch.round(cosine_matrix(actions.shape[1]) @ actions.detach().double().cpu() * scale).long()


def _known_characters(bpe: Tokenizer) -> int:
    """How many characters, from 0 on, come back as they were written."""
    for index in range(_MOST_CHARACTERS):
        written = bpe.encode(chr(index), add_special_tokens=False).ids
        if bpe.decode(written, skip_special_tokens=False) != chr(index):
            return index
    return _MOST_CHARACTERS


def _found(name: str, file: str) -> str:
    path = cached_file(name, file)
    if path is None:
        raise ValueError(f"{name}: expected a FAST tokenizer with {file}, got none.")
    return str(path)
