"""Cameras whose frames already lie in a video as it would be written: their packets are copied. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from menura.data.encoding import encoder, explaining
from menura.data.episode import Frames
from menura.data.frames import PickedFrames, VideoFrames
from menura.data.joining import JoinedVideo, coding, obstacle
from menura.data.lerobot_stats import ChannelHistogram
from menura.files import put_in_place, temporary_beside

# Image statistics are of every 20th frame, or of more where an episode has fewer than 160: decoding is what takes time.
_EVERY, _FEWEST = 20, 8


def copyable(frames: Frames, *, fps: float, codec: str) -> VideoFrames | None:
    """`frames`, where they are a stretch of a video as `codec` makes it, at `fps`, that can be cut out; else None.

    The codec and the pixel format count, as they are in the file; not the quality or the distance of keyframes.

    Raises:
        DataError: the file is damaged, or contradicts its dataset.
    """
    if not isinstance(frames, VideoFrames):
        return None
    frames.verify()
    settings = encoder(codec)
    if coding(frames.path) != (settings.name, settings.pixels):
        return None
    return frames if obstacle(frames.path, frames.start, len(frames), fps) is None else None


class CopiedVideo:
    """A stretch of a video in a file of its own, under a temporary name until it is put in its place.

    Args:
        path: that place.
        frames: what is `copyable`.
        fps: frames per second.

    Raises:
        DataError: a damaged file.
        OSError: no room on the disk.
    """

    def __init__(self, path: Path, frames: VideoFrames, fps: float) -> None:
        self.path = path
        self._length = len(frames)
        self._temporary = temporary_beside(path)
        try:
            with explaining(f"Copying from {frames.path}", path.parent, "Fetch it again or remove its episodes."):
                joined = JoinedVideo(self._temporary, fps)
                joined.append(frames.path, frames.start, len(frames))
                joined.close()
        except BaseException:
            self.abandon()
            raise

    def __len__(self) -> int:
        return self._length

    def put_in_place(self) -> None:
        """Makes the file durable, under its name."""
        put_in_place(self._temporary, self.path)

    def abandon(self) -> None:
        """Removes it, where it was not put in its place."""
        self._temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class CopiedCamera:
    """A camera of an episode whose video is there already.

    Attributes:
        sink: the video.
        histogram: of its frames, of which some stand for those around them.
    """

    sink: CopiedVideo
    histogram: ChannelHistogram

    @classmethod
    def of(cls, frames: VideoFrames, path: Path, fps: float) -> CopiedCamera:
        """Copies `frames` for `path`; raises as `CopiedVideo` does."""
        return cls(CopiedVideo(path, frames, fps), _sampled(frames))


def _sampled(frames: VideoFrames) -> ChannelHistogram:
    histogram = ChannelHistogram()
    step = min(_EVERY, max(1, len(frames) // _FEWEST))
    numbers = np.arange(0, len(frames), step)
    for number, frame in zip(numbers.tolist(), PickedFrames(frames, numbers), strict=True):
        histogram.add(frame, times=min(step, len(frames) - number))
    return histogram
