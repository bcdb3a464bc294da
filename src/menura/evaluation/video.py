"""An mp4 of an episode: H.264, as every browser plays it, written while the episode runs. Torch-free."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from menura.data.episode import UInt8
from menura.files import TEMPORARY


class VideoWriter:
    """Frames (H, W, 3) uint8 RGB -> `path`, which appears whole when the writer is closed, or not at all.

    Sides of odd length lose no pixel: the last row or column is repeated, since H.264 in 4:2:0 needs even ones.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self._path.with_name(f"{TEMPORARY}{self._path.name}")
        self._fps = Fraction(fps).limit_denominator(1000)
        self._container: Any = None
        self._stream: Any = None

    def add(self, frame: UInt8) -> None:
        import av

        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._open(frame.shape[0], frame.shape[1])
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Writes what is left and puts the file in its place. Without a frame there is no file."""
        if self._container is None:
            return
        self._container.mux(self._stream.encode())
        self._container.close()
        self._container = None
        self._temporary.replace(self._path)

    def discard(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _open(self, height: int, width: int) -> None:
        import av

        # faststart puts the index first, so that a page can play the file while it loads.
        self._container = av.open(str(self._temporary), mode="w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(
            "libx264", rate=self._fps, options={"preset": "veryfast", "crf": "23", "threads": "1"}
        )
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"


def is_video_step(step: int, fps: float, video_fps: float) -> bool:
    """Whether the frame after `step` steps (0: the first observation) is shown in a video of `video_fps`.

    Of an episode at `fps`, the video has one frame each 1 / video_fps seconds, so that it plays in real time.
    """
    if step == 0 or video_fps >= fps:
        return True
    return int(step * video_fps / fps) != int((step - 1) * video_fps / fps)
