"""Images made square with their aspect kept, as vision-language models are given them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate, pad

#: Black, of pixels in [-1, 1].
BLACK = -1.0


def fit(image: Tensor, size: int, *, centred: bool) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] scaled to fit in (size, size), the rest black.

    Bilinear without antialiasing, as openpi and LeRobot do, so that their weights see what they learnt on. An image
    of that size is returned as it is.

    Args:
        image: the images.
        size: height and width of the result, in pixels.
        centred: whether the image is in the middle (openpi), or in the bottom right corner (SmolVLA).
    """
    height, width = image.shape[-2:]
    if (height, width) == (size, size):
        return image
    ratio = max(height / size, width / size)
    inner = (int(height / ratio), int(width / ratio))
    image = interpolate(image, size=inner, mode="bilinear", align_corners=False)
    rows, columns = size - inner[0], size - inner[1]
    top, left = (rows // 2, columns // 2) if centred else (rows, columns)
    return pad(image, (left, columns - left, top, rows - top), value=BLACK)
