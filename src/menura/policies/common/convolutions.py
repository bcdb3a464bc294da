"""Convolutions over short sequences, which on a CPU are faster as one matrix product.

PyTorch's CPU convolutions lay their weights out anew in every call. With few output steps that costs more than the
convolution: the product with the weights as they lie costs a fifth of it in float32 (2048 channels, 16 steps) and a
tenth in bfloat16. Nothing is kept between calls, so nothing can become stale.

Shapes: B batch, C channels, L steps, K kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

#: With more output steps in a batch than these, PyTorch's own are as fast or faster (measured at 64 to 2048 channels).
MOST_STEPS = 256


class ShortConv1d(nn.Conv1d):
    """`nn.Conv1d`, padded with zeros and without groups or dilation: (B, C, L) -> (B, C', L')."""

    def forward(self, input: Tensor) -> Tensor:
        if not _is_short(input, stride=self.stride[0]):
            return super().forward(input)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        windows = functional.pad(input, (padding, padding)).unfold(2, kernel, stride)  # (B, C, L', K)
        batch, channels, steps, _ = windows.shape
        columns = windows.permute(1, 3, 0, 2).reshape(channels * kernel, batch * steps)
        product = _matmul(self.weight.flatten(1), columns, self.bias)  # (C', B·L')
        return product.view(-1, batch, steps).transpose(0, 1).contiguous()


class ShortConvTranspose1d(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` without groups, dilation or output padding: (B, C, L) -> (B, C', stride · L + …)."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _is_short(input):
            return super().forward(input, output_size)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        batch, channels, steps = input.shape
        columns = input.transpose(0, 1).reshape(channels, batch * steps)
        product = _matmul(self.weight.flatten(1).t(), columns)  # (C'·K, B·L): what each step adds to K outputs
        length = (steps - 1) * stride - 2 * padding + kernel
        parts = product.view(-1, batch, steps).transpose(0, 1)  # (B, C'·K, L)
        summed = functional.fold(parts, (1, length), (1, kernel), padding=(0, padding), stride=(1, stride))
        output = summed.squeeze(2)
        return output if self.bias is None else output + self.bias[:, None]


def _is_short(input: Tensor, stride: int = 1) -> bool:
    return input.device.type == "cpu" and input.shape[0] * input.shape[2] <= MOST_STEPS * stride


def _matmul(weight: Tensor, columns: Tensor, bias: Tensor | None = None) -> Tensor:
    return weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)
