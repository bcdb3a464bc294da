"""Frames against rows: what the video files hold, told by their headers without decoding. Torch-free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from menura.data.checking.remedies import delete
from menura.data.checking.report import Finding, Place
from menura.data.episode import Frames
from menura.data.frames import VideoFrames
from menura.data.video import video_index
from menura.errors import DataError


class VideoLengths:
    """Every file holds the frames that its episodes say they have there.

    Args:
        limit: of more files than this, so many evenly spaced ones are opened.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._spans: dict[str, dict[Path, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
        self.seen: list[str] = []

    def note(self, episode: int, images: Mapping[str, Frames]) -> None:
        """Where the cameras of an episode have their frames."""
        for camera, frames in images.items():
            if isinstance(frames, VideoFrames):
                self._spans[camera][frames.path].append((episode, frames.start, frames.start + len(frames)))

    def findings(self) -> Iterable[Finding]:
        for camera, files in self._spans.items():
            chosen = sorted(files)
            if self._limit is not None and len(chosen) > self._limit:
                picks = np.linspace(0, len(chosen) - 1, self._limit).round().astype(int)
                self.seen.append(f"{self._limit} of {len(chosen)} videos of camera {camera}")
                chosen = [chosen[pick] for pick in picks]
            yield from self._of_camera(camera, {path: files[path] for path in chosen})

    def _of_camera(self, camera: str, files: Mapping[Path, list[tuple[int, int, int]]]) -> Iterable[Finding]:
        missing: list[Place] = []
        surplus: list[Place] = []
        for path, spans in files.items():
            needed = max(stop for _, _, stop in spans)
            try:
                count = frames_in(path, needed)
            except DataError as error:
                yield _damaged(camera, str(error), [episode for episode, _, _ in spans])
                continue
            missing += [
                Place(episode, (max(count - start, 0), stop - start)) for episode, start, stop in spans if stop > count
            ]
            if count > needed and len(spans) == 1 and spans[0][1] == 0:  # the file is this episode's alone
                surplus.append(Place(spans[0][0]))
        if missing:
            yield Finding(
                "frames_rows",
                "error",
                "the video has fewer frames than the table has rows",
                f"Which frame belongs to which row is lost; leave them out: {delete(missing)}",
                1.0,
                tuple(missing),
                camera=camera,
            )
        if surplus:
            yield Finding(
                "frames_rows",
                "warning",
                "the video has more frames than the table has rows",
                f"Good if only the end is cut off; look whether pictures and state agree, else: {delete(surplus)}",
                0.7,
                tuple(surplus),
                camera=camera,
            )


def _damaged(camera: str, message: str, episodes: list[int]) -> Finding:
    places = tuple(map(Place, sorted(episodes)))
    remedy = f"Fetch the file again, or leave its episodes out: {delete(places)}"
    return Finding("damaged", "error", message, remedy, 1.0, places, camera=camera)


def frames_in(path: Path, needed: int) -> int:
    """How many frames a file holds: by its header; where that disagrees with what is needed, by its packets."""
    import av

    try:
        with av.open(str(path)) as container:
            told = container.streams.video[0].frames if container.streams.video else 0
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"Video {path}: cannot be opened ({error}).") from error
    return told if told == needed else len(video_index(path))
