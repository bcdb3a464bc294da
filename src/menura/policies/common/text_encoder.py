"""Frozen text models: a text is encoded once and remembered, as one vector or token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, T5Config, T5EncoderModel

from .backbones import Source, build_backbone

#: Texts -> token ids (N, L) int64 and which of them are text (N, L) bool, as `TextPolicy.tokenize` makes them.
Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
Self = TypeVar("Self", bound="FrozenText")


class FrozenText(nn.Module):
    """A text model without gradients and always in evaluation mode; its weights are saved with the policy's.

    Texts seen before are not encoded again: where a data set has fifty instructions, training runs the model fifty
    times in all. A subclass says what is kept of one text, and of how many.
    """

    #: Texts that are remembered. A data set has few; only a server that is sent ever new ones comes to the end.
    kept_texts: int

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.width: int = model.config.hidden_size
        self._kept: dict[tuple[str, torch.dtype, torch.device], tuple[Tensor, ...]] = {}
        self.train()

    def train(self: Self, mode: bool = True) -> Self:
        """Stays in evaluation mode and out of the optimizer; `from_pretrained`, which puts new parameters in place of
        the frozen ones, ends here too."""
        super().train(False)
        self.requires_grad_(False)
        return self

    def encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Of tokens (N, L) int64 and which of them are text (N, L) bool: what is kept, each with N rows."""
        raise NotImplementedError

    @torch.no_grad()
    def remembered(self, texts: Sequence[str], tokenize: Tokenize) -> tuple[Tensor, ...]:
        """What `encode` makes of B texts, in the weights' dtype and on their device."""
        weight = next(self.model.parameters())
        dtype, device = weight.dtype, weight.device
        new = sorted({text for text in texts if (text, dtype, device) not in self._kept})
        if len(self._kept) + len(new) > self.kept_texts:
            self._kept.clear()
            new = sorted(set(texts))
        if new:
            for text, *of_text in zip(new, *self.encode(*tokenize(new)), strict=True):
                self._kept[text, dtype, device] = tuple(part.clone() for part in of_text)
        return tuple(map(torch.stack, zip(*(self._kept[text, dtype, device] for text in texts), strict=True)))

    def _load_from_state_dict(self, *args: object) -> None:
        self._kept.clear()  # they are the old weights'
        super()._load_from_state_dict(*args)


class FrozenTextEncoder(FrozenText):
    """Texts -> (B, `width`).

    Args:
        source: as in `build_backbone`: a text model, or the text half of one for images and text.
        pooling: `mean` of the tokens that are text, as sentence encoders are trained (Reimers & Gurevych 2019, arXiv
            1908.10084), or the model's own `pooler`: CLIP's is the last token (Radford et al. 2021, arXiv 2103.00020).
    """

    kept_texts = 10_000

    def __init__(self, source: Source, pooling: str = "mean") -> None:
        if pooling not in ("mean", "pooler"):
            raise ValueError(f"expected text pooling to be mean or pooler, got {pooling!r}")
        super().__init__(build_backbone(source, "text_model"))
        self.pooling = pooling

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # looks texts up, which no graph holds
    def forward(self, texts: Sequence[str], tokenize: Tokenize) -> Tensor:
        """The vectors (B, width) of B texts."""
        (vectors,) = self.remembered(texts, tokenize)
        return vectors

    def encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor]:
        # SigLIP was trained on padded texts without a mask (its processor makes none).
        siglip = self.model.config.model_type.startswith("siglip")
        output = self.model(input_ids=ids, attention_mask=None if siglip else mask)
        if self.pooling == "pooler":
            return (output.pooler_output,)
        shares = mask.to(output.last_hidden_state.dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return (torch.einsum("bl,blw->bw", shares, output.last_hidden_state),)


class FrozenT5(FrozenText):
    """A T5 encoder (Raffel et al. 2020, arXiv 1910.10683) of which every token's hidden state is read.

    Args:
        settings: of the `T5Config` of `transformers`.
        pretrained: a Hub id or a directory to take the weights from; None for random ones. It is not read when a
            checkpoint is loaded.
    """

    kept_texts = 256  # each may be megabytes

    def __init__(self, settings: Mapping[str, Any], pretrained: str | None = None) -> None:
        # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
        if pretrained is None or torch.empty(0).is_meta:
            model = T5EncoderModel(T5Config(**settings))
        else:
            model = T5EncoderModel.from_pretrained(pretrained, dtype=torch.get_default_dtype())
        super().__init__(model.encoder)  # which holds the embedding, too

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # looks texts up, which no graph holds
    def forward(self, texts: Sequence[str], tokenize: Tokenize) -> tuple[Tensor, Tensor]:
        """The hidden states (B, L, width), 0 where there is no text, and which of the tokens are text (B, L) bool."""
        hidden, there = self.remembered(texts, tokenize)
        return hidden, there

    def encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None], mask
