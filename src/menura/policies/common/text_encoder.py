"""A frozen text model: each text becomes one vector, computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .backbones import Source, build_backbone

#: Texts whose vectors are kept. A data set has few; only a server that is sent ever new ones comes to the end.
KEPT_TEXTS = 10_000

#: Texts -> token ids (N, L) int64 and which of them are text (N, L) bool, as `TextPolicy.tokenize` makes them.
Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


class FrozenTextEncoder(nn.Module):
    """Texts -> (B, `width`), without gradients and always in evaluation mode.

    Its weights are saved with the policy's. The vectors of texts seen before are not computed again: where a data set
    has fifty instructions, training runs the model fifty times in all.

    Args:
        source: as in `build_backbone`: a text model, or the text half of one for images and text.
        pooling: `mean` of the tokens that are text, as sentence encoders are trained (Reimers & Gurevych 2019, arXiv
            1908.10084), or the model's own `pooler`: CLIP's is the last token (Radford et al. 2021, arXiv 2103.00020).
    """

    def __init__(self, source: Source, pooling: str = "mean") -> None:
        super().__init__()
        if pooling not in ("mean", "pooler"):
            raise ValueError(f"expected text pooling to be mean or pooler, got {pooling!r}")
        self.model = build_backbone(source, "text_model")
        self.pooling = pooling
        self.width: int = self.model.config.hidden_size
        self._vectors: dict[tuple[str, torch.dtype], Tensor] = {}
        self.train()

    def train(self, mode: bool = True) -> FrozenTextEncoder:
        """Stays in evaluation mode and out of the optimizer; `from_pretrained`, which puts new parameters in place of
        the frozen ones, ends here too."""
        super().train(False)
        self.requires_grad_(False)
        return self

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # looks texts up, which no graph holds
    @torch.no_grad()
    def forward(self, texts: Sequence[str], tokenize: Tokenize) -> Tensor:
        """The vectors (B, width) of B texts, in the weights' dtype and on their device."""
        weight = next(self.model.parameters())
        new = sorted({text for text in texts if (text, weight.dtype) not in self._vectors})
        if len(self._vectors) + len(new) > KEPT_TEXTS:
            self._vectors.clear()
            new = sorted(set(texts))
        if new:
            for text, vector in zip(new, self.encode(*tokenize(new)), strict=True):
                self._vectors[text, weight.dtype] = vector.clone()
        return torch.stack([self._vectors[text, weight.dtype] for text in texts]).to(weight.device)

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) int64 and (B, L) bool -> (B, width)."""
        # SigLIP was trained on padded texts without a mask (its processor makes none).
        siglip = self.model.config.model_type.startswith("siglip")
        output = self.model(input_ids=ids, attention_mask=None if siglip else mask)
        if self.pooling == "pooler":
            pooled: Tensor = output.pooler_output
            return pooled
        shares = mask.to(output.last_hidden_state.dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("bl,blw->bw", shares, output.last_hidden_state)

    def _load_from_state_dict(self, *args: object) -> None:
        self._vectors.clear()  # they are the old weights'
        super()._load_from_state_dict(*args)
