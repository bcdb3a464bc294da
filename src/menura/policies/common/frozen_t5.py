"""A frozen T5 encoder (Raffel et al. 2020, arXiv 1910.10683) of which every token's hidden state is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

#: Texts whose tokens are kept: those of a task or a data set; each may be megabytes.
KEPT_TEXTS = 256

#: Texts -> token ids (N, L) int64 and which of them are text (N, L) bool, as `TextPolicy.tokenize` makes them.
Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


class FrozenT5(nn.Module):
    """Texts -> hidden states (B, L, `width`) and which of them are text, without gradients, in evaluation mode always.

    Its weights are saved with the policy's. What was computed of the last texts is kept, so that an episode runs the
    model once and a data set of few instructions as often as it has instructions.

    Args:
        settings: of the `T5Config` of `transformers`.
        pretrained: a Hub id or a directory to take the weights from; None for random ones. It is not read when a
            checkpoint is loaded.
    """

    def __init__(self, settings: Mapping[str, Any], pretrained: str | None = None) -> None:
        super().__init__()
        # A checkpoint is loaded through the meta device: its weights replace these, and nothing need be fetched.
        if pretrained is None or torch.empty(0).is_meta:
            model = T5EncoderModel(T5Config(**settings))
        else:
            model = T5EncoderModel.from_pretrained(pretrained, dtype=torch.get_default_dtype())
        self.model = model.encoder  # which holds the embedding, too
        self.width: int = self.model.config.hidden_size
        self._kept: dict[tuple[str, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}
        self.train()

    def train(self, mode: bool = True) -> FrozenT5:
        """Stays in evaluation mode and out of the optimizer; `from_pretrained`, which puts new parameters in place of
        the frozen ones, ends here too."""
        super().train(False)
        self.requires_grad_(False)
        return self

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # looks texts up, which no graph holds
    @torch.no_grad()
    def forward(self, texts: Sequence[str], tokenize: Tokenize) -> tuple[Tensor, Tensor]:
        """(B, L, width), 0 where there is no text, and (B, L) bool, in the weights' dtype and on their device."""
        weight = next(self.model.parameters())
        dtype, device = weight.dtype, weight.device
        new = sorted({text for text in texts if (text, dtype, device) not in self._kept})
        if len(self._kept) + len(new) > KEPT_TEXTS:
            self._kept.clear()
            new = sorted(set(texts))
        if new:
            ids, mask = tokenize(new)
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
            for text, tokens, there in zip(new, hidden, mask, strict=True):
                self._kept[text, dtype, device] = (tokens.clone(), there.clone())
        kept = [self._kept[text, dtype, device] for text in texts]
        return torch.stack([tokens for tokens, _ in kept]), torch.stack([there for _, there in kept])

    def _load_from_state_dict(self, *args: object) -> None:
        self._kept.clear()  # they are the old weights'
        super()._load_from_state_dict(*args)
