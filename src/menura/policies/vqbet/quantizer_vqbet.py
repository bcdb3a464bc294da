"""Chunks of actions as a few codes: the residual VQ-VAE of `VQBeTPolicy`.

van den Oord et al. 2017 (arXiv 1711.00937); residual: Zeghidour et al. 2021 (arXiv 2107.03312), algorithm 1.
Shapes: N chunks, T steps, A action, G codebooks, S entries of each, E width of an entry.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..common.losses import masked_l1
from .configuration_vqbet import VQBeTPolicyConfig

#: Of how far encodings are from their codes, against the reconstruction (LeRobot: `vqvae_forward`).
QUANTIZATION_WEIGHT = 5.0


class ActionQuantizer(nn.Module):
    """Encodes a chunk into one code of each codebook, and decodes codes into a chunk.

    The codebooks learn by gradient (the paper's equation 3) and not by a moving average, so that a training step
    changes nothing but what the optimizer changes.
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
        _, quantized, error = self._quantize(encoded)
        through = encoded + (quantized - encoded).detach()  # the encoder gets the gradient of what was decoded
        decoded = self.decoder(through).unflatten(-1, self.shape)
        valid = (~is_pad.all(dim=-1)).to(error.dtype)
        quantization = (error * valid).sum() / valid.sum().clamp(min=1)
        return masked_l1(decoded, chunks, is_pad, action_mask), quantization

    def _quantize(self, encoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, E) -> codes (N, G), the sum of their entries (N, E), how far the encodings are from them (N,)."""
        codes, residual = [], encoded.float()
        quantized, error = torch.zeros_like(residual), residual.new_zeros(len(residual))
        for book in self.codebooks.float():
            # Squared distances, but for what is the same for every entry.
            code = (book.square().sum(dim=-1) - 2 * residual.detach() @ book.T).argmin(dim=-1)
            entry = book[code]
            commitment = functional.mse_loss(residual, entry.detach(), reduction="none").mean(dim=-1)
            attraction = functional.mse_loss(entry, residual.detach(), reduction="none").mean(dim=-1)
            error = error + commitment + attraction
            codes.append(code)
            quantized = quantized + entry
            residual = residual - entry.detach()
        return torch.stack(codes, dim=-1), quantized.to(encoded.dtype), error


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, out)
    )
