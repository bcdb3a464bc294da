"""The cameras of a LeRobotDataset, and their videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from menura.data.frames import VideoFrames
from menura.data.mirror import Mirror
from menura.data.readers.lerobot_meta import INFO, Info, VideoSpan
from menura.data.video import video_index
from menura.errors import DataError

_PREFIXES = ("observation.images.", "observation.")


@dataclass(frozen=True)
class Camera:
    """A camera as `meta/info.json` declares it; `depth` for anything that is not RGB."""

    key: str
    name: str
    height: int
    width: int
    video: bool
    depth: bool

    @classmethod
    def of(cls, key: str, spec: Mapping[str, Any]) -> Camera:
        """Of a feature of dtype `video` or `image`."""
        shape = [*(int(size) for size in spec["shape"]), 1, 1][:3]  # (H, W) has one colour
        names = spec.get("names")
        first = isinstance(names, list) and len(names) == 3 and str(names[0]).startswith("channel")
        if names is None and len(shape) == 3:
            first = shape[0] in (1, 3) and shape[2] not in (1, 3)
        channels, height, width = (shape[0], shape[1], shape[2]) if first else (shape[2], shape[0], shape[1])
        info = {**(spec.get("video_info") or {}), **(spec.get("info") or {})}
        depth = bool(info.get("is_depth_map") or info.get("video.is_depth_map")) or channels != 3
        prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), "")
        return cls(key, key[len(prefix) :], height, width, spec["dtype"] == "video", depth)


class _FetchedVideo(VideoFrames):
    """Frames of a file that is fetched whenever it is needed and not there."""

    def __init__(self, place: Callable[[], Path], *args: Any) -> None:
        super().__init__(Path(), *args)
        self._place = place

    @property
    def path(self) -> Path:
        return self._place()

    def part(self, start: int, stop: int) -> VideoFrames:
        return _FetchedVideo(self._place, self.start + start, stop - start, *self.shape[1:3], self.verify)


def video_frames(
    root: Path, info: Info, span: VideoSpan, camera: Camera, row: int, length: int, mirror: Mirror | None = None
) -> VideoFrames:
    """The frames of episode `row`, where `span` says they lie; checked against the file when first decoded."""
    file = info.video_file(camera.key, int(span.chunk[row]), int(span.file[row]))
    if file is None:
        raise DataError(f"{root / INFO}: video_path: expected a path for {camera.key!r}, got null. Fetch it again.")
    place = partial(Path, root / file) if mirror is None else partial(mirror.local, file)
    seconds = float(span.from_timestamp[row])
    start = round(seconds * info.fps)
    what = f"{root / file}: episode {row}, camera {camera.name!r}"
    check = partial(_check, what, place, camera, info.fps, seconds, start, start + length - 1)
    where = (start, length, camera.height, camera.width, check)
    return VideoFrames(root / file, *where) if mirror is None else _FetchedVideo(place, *where)


def _check(
    what: str, place: Callable[[], Path], camera: Camera, fps: float, seconds: float, first: int, last: int
) -> None:
    """That the file holds frames `first … last`, at their times (`first` at `seconds`), of the camera's size."""
    index = video_index(place())
    if last >= len(index):
        raise DataError(
            f"{what}: expected frames {first} … {last}, got a file of {len(index)} frames. Fetch the dataset again."
        )
    for frame, expected in ((first, seconds), (last, seconds + (last - first) / fps)):
        if abs(index.seconds(frame) - expected) * fps >= 0.5:
            raise DataError(
                f"{what}: expected frame {frame} at {expected:.4f} s, got it at {index.seconds(frame):.4f} s. "
                f"The video does not run at the dataset's {fps:g} frames per second; encode it again."
            )
    if (index.height, index.width) != (camera.height, camera.width):
        raise DataError(
            f"{what}: expected {camera.height} x {camera.width} pixels as meta/info.json says, "
            f"got {index.height} x {index.width}. Fetch the dataset again."
        )
