"""The frames of a store that are not raw: JPEG pictures, and frames read from the source each time.

Both act like the (N, H, W, 3) uint8 array of a raw store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Frames, UInt8
from menura.data.frames import LazyFrames
from menura.data.pictures import decode_picture
from menura.data.readers.base import Reader
from menura.processing.images import Resize, resize_images

# FFmpeg's scale for MJPEG, 1 (best) to 31; 1 has the size and the error of what is mostly called quality 95.
JPEG_QUANTIZER = 1
# Frames that are decoded and resized together while a store is built: few enough for memory, enough for speed.
BLOCK = 32


class JpegFrames(LazyFrames):
    """Frames kept as JPEG pictures, one after the other in a file.

    Args:
        blob: (bytes,) uint8, memory-mapped: every picture.
        offsets: (N + 1,) int64: picture i is `blob[offsets[i] : offsets[i + 1]]`.
        height, width: of every frame.
        source: the file, for messages.
    """

    def __init__(self, blob: UInt8, offsets: NDArray[np.int64], height: int, width: int, source: str) -> None:
        super().__init__(len(offsets) - 1, height, width)
        self._blob = blob
        self._offsets = offsets
        self._source = source

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        frames = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for row, number in enumerate(numbers):
            encoded = self._blob[self._offsets[number] : self._offsets[number + 1]].tobytes()
            frames[row] = decode_picture(encoded, f"{self._source}, frame {number}")
        return frames


class SourceFrames(LazyFrames):
    """Frames that the reader decodes and `resize_images` shapes whenever they are asked for.

    Args:
        reader: the dataset's.
        camera: which of its cameras.
        starts: (E + 1,) int64: episode e has the frames `starts[e] … starts[e + 1] - 1`.
        size: (height, width) to deliver.
        resize: `stretch` or `pad`; None for frames as they are.
    """

    def __init__(
        self, reader: Reader, camera: str, starts: NDArray[np.int64], size: tuple[int, int], resize: Resize | None
    ) -> None:
        super().__init__(int(starts[-1]), *size)
        self._reader = reader
        self._camera = camera
        self._starts = starts
        self._resize = resize

    def read(self, numbers: NDArray[np.int64]) -> UInt8:
        frames = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        episodes = np.searchsorted(self._starts, numbers, side="right") - 1
        for episode in np.unique(episodes).tolist():
            places = np.flatnonzero(episodes == episode)
            source = self._reader.episode(episode).images[self._camera]
            frames[places] = resized(source[numbers[places] - self._starts[episode]], self.shape[1:3], self._resize)
        return frames


def resized(frames: UInt8, size: Sequence[int], mode: Resize | None) -> UInt8:
    """(n, H, W, 3) uint8 at the size (height, width), or as they are when `mode` is None."""
    if mode is None or tuple(frames.shape[1:3]) == tuple(size):
        return frames
    return resize_images(frames, (size[0], size[1]), mode)


def blocks(frames: Frames) -> Iterator[UInt8]:
    """The frames in order, `BLOCK` at a time, each decoded once."""
    iterator = iter(frames)
    while block := list(islice(iterator, BLOCK)):
        yield np.stack(block)


def encode_jpeg(frame: UInt8) -> bytes:
    """The JPEG of a (H, W, 3) uint8 RGB frame, colours at full resolution."""
    import av

    codec = av.CodecContext.create("mjpeg", "w")
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt = "yuvj444p"
    codec.time_base = Fraction(1)
    codec.qmin = codec.qmax = JPEG_QUANTIZER
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return b"".join(bytes(packet) for packet in codec.encode(picture))
