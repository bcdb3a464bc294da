"""Pictures of one pixel format as another, RGB above all. Torch-free; PyAV is imported when first needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from menura.data.episode import UInt8


def converter(pixels: str) -> Callable[[Any], Any]:
    """A function from PyAV's `VideoFrame` to one with the pixel format `pixels`, for one thread at a time.

    Keep it for many pictures: setting the conversion up takes longer than one conversion.
    """
    import av
    from av.video.reformatter import VideoReformatter

    # From PyAV 17 on a conversion starts threads, one a core, which cost more than they give: cores have other work.
    options: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
    reformat: Any = VideoReformatter().reformat
    return partial(reformat, format=pixels, **options)


def rgb_converter() -> Callable[[Any], UInt8]:
    """As `converter`, to (H, W, 3) uint8 RGB arrays."""
    convert = converter("rgb24")

    def to_rgb(picture: Any) -> UInt8:
        pixels: UInt8 = convert(picture).to_ndarray()
        return pixels

    return to_rgb
