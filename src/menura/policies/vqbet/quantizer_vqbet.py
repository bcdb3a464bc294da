"""Chunks of actions as a few codes: the residual VQ-VAE of `VQBeTPolicy`.

van den Oord et al. 2017 (arXiv 1711.00937); residual: Zeghidour et al. 2021 (arXiv 2107.03312), algorithm 1.
Shapes: N chunks, T steps, A action, G codebooks, S entries of each, E width of an entry.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..common.losses import masked_l1
from .configuration_vqbet import VQBeTPolicyConfig

#: Of how far encodings are from their codes, against the reconstruction (LeRobot: `vqvae_forward`).
QUANTIZATION_WEIGHT = 5.0
#: Of how far entries are from the nearest encodings, against how far encodings are from their entries.
USAGE_WEIGHT = 0.1


class ActionQuantizer(nn.Module):
    """Encodes a chunk into one code of each codebook, and decodes codes into a chunk.

    The codebooks learn by gradient (van den Oord et al., equation 3) and not by a moving average, so that a training
    step changes nothing but what the optimizer changes. Entries that nothing is near to are drawn to what is nearest to
    them, too: else all chunks may get the same codes, and keep them.
    """

    def __init__(self, config: VQBeTPolicyConfig) -> None:
        super().__init__()
        self.shape = (config.chunk_size, config.action_dim)
        width, hidden = config.chunk_size * config.action_dim, config.vqvae_hidden_size
        self.encoder = _mlp(width, hidden, config.code_dim)
        self.decoder = _mlp(config.code_dim, hidden, width)
        self.codebooks = nn.Parameter(torch.empty(config.n_codebooks, config.codebook_size, config.code_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small codes, which the encodings' first moves find all of: PyTorch's uniform (He et al. 2015) of a table."""
        for network in (self.encoder, self.decoder):
            for layer in network:
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
        nn.init.kaiming_uniform_(self.codebooks)

    @torch.no_grad()
    def encode(self, chunks: Tensor) -> Tensor:
        """(N, T, A) -> the codes (N, G) int64."""
        return self._quantize(self.encoder(chunks.flatten(1)))[0]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """(N, G) -> (N, T, A)."""
        entries = sum(book[code] for book, code in zip(self.codebooks, codes.unbind(-1), strict=True))
        return self.decoder(entries).unflatten(-1, self.shape)  # type: ignore[no-any-return]

    def losses(self, chunks: Tensor, is_pad: Tensor, action_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """What is lost of the chunks that are no padding: (reconstruction loss, loss of the quantization)."""
        encoded = self.encoder(chunks.flatten(1))  # (N, E)
        codes, residuals = self._quantize(encoded)
        valid = ~is_pad.all(dim=-1)  # (N,)
        quantization, quantized = encoded.new_zeros(()), torch.zeros_like(encoded)
        for book, code, residual in zip(self.codebooks, codes.unbind(-1), residuals, strict=True):
            quantization = quantization + _distance(residual, book[code].detach(), valid)
            quantization = quantization + _distance(book[code], residual.detach(), valid)
            nearest = _squared_distances(residual, book).masked_fill(~valid[:, None], torch.inf).argmin(dim=0)  # (S,)
            quantization = quantization + USAGE_WEIGHT * _distance(book, residual[nearest].detach(), valid[nearest])
            quantized = quantized + book[code]
        through = encoded + (quantized - encoded).detach()  # the encoder gets the gradient of what was decoded
        decoded = self.decoder(through).unflatten(-1, self.shape)
        return masked_l1(decoded, chunks, is_pad, action_mask), quantization

    def _quantize(self, encoded: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, E) -> the codes (N, G), and what each codebook was given to encode, G times (N, E)."""
        codes, residuals = [], [encoded]
        for book in self.codebooks:
            codes.append(_squared_distances(residuals[-1], book).argmin(dim=-1))
            residuals.append(residuals[-1] - book[codes[-1]].detach())
        return torch.stack(codes, dim=-1), residuals[:-1]


def _squared_distances(x: Tensor, entries: Tensor) -> Tensor:
    """(N, E), (S, E) -> (N, S) in float32, which decides alike in any dtype of the weights."""
    distances: Tensor = torch.cdist(x.detach().float(), entries.detach().float()).square()
    return distances


def _distance(x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    """The mean squared distance of those rows that count."""
    each = (x - y).square().mean(dim=-1)
    weights = counts.to(each.dtype)
    return (each * weights).sum() / weights.sum().clamp(min=1)


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, out)
    )
