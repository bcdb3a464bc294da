"""Where the frames of a camera go while an episode is recorded: a video file, or pictures in memory. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from menura.data.encoding import VideoEncoder
from menura.data.episode import UInt8
from menura.data.pictures import encode_png
from menura.files import put_in_place, temporary_beside


class FrameSink(Protocol):
    """Takes frames until it is closed or abandoned."""

    def __len__(self) -> int:
        """How many it holds."""

    def add(self, frame: UInt8) -> None:
        """The next frame (H, W, 3); it may be changed as soon as this returns."""

    def close(self) -> None:
        """No more will come."""

    def abandon(self) -> None:
        """Removes what was made of them; also when closed, or half made."""


class VideoFile(VideoEncoder):
    """An mp4 under a temporary name, until it is put in its place.

    Args:
        path: that place.
        fps, height, width, codec: as `VideoEncoder` has them.
    """

    def __init__(self, path: Path, *, fps: float, height: int, width: int, codec: str) -> None:
        self.path = path
        self._temporary = temporary_beside(path)
        try:
            super().__init__(self._temporary, fps=fps, height=height, width=width, codec=codec)
        except BaseException:
            self._temporary.unlink()
            raise

    def put_in_place(self) -> None:
        """Makes the closed file durable, under its name."""
        put_in_place(self._temporary, self.path)

    def abandon(self) -> None:
        super().abandon()
        self._temporary.unlink(missing_ok=True)


class PngFrames:
    """Every frame as a PNG, in memory: they become a column of the data file."""

    def __init__(self) -> None:
        self.encoded: list[bytes] = []

    def __len__(self) -> int:
        return len(self.encoded)

    def add(self, frame: UInt8) -> None:
        self.encoded.append(encode_png(frame))

    def close(self) -> None:
        """Nothing is open."""

    def abandon(self) -> None:
        self.encoded.clear()
