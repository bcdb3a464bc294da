"""What the benchmarks of video share: a dataset of two cameras, decoding by PyAV alone, and turns at the clock."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from menura.data.episode import Episode
from menura.data.frames import VideoFrames
from menura.data.readers.base import Reader
from menura.features import CameraFeature, Features, VectorFeature

HEIGHT, WIDTH, FPS = 240, 320, 30
CAMERAS = ("top", "wrist")
KEYFRAMES = 2
#: Codec -> (encoder, its options): as LeRobot 0.6.1 records (a keyframe every two frames, crf 30).
CODECS: Mapping[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"g": str(KEYFRAMES), "crf": "30"}),
    "av1": ("libsvtav1", {"g": str(KEYFRAMES), "crf": "30", "preset": "10"}),
}
WIDTH_OF_STATE = 14


def scene(count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) of a square that moves over a patchwork, with a camera's noise."""
    rng = np.random.default_rng(0)
    patchwork = np.kron(rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3)), np.ones((16, 16, 1))).astype(np.int16)
    for number in range(count):
        frame = patchwork.copy()
        top, left = int(90 + 80 * np.cos(number / 23)), int(130 + 100 * np.sin(number / 17))
        frame[top : top + 48, left : left + 48] = (250, 40, 40)
        yield np.clip(frame + rng.integers(-4, 5, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)


def encode(path: Path, codec: str, count: int) -> None:
    """Writes `scene(count)` as an mp4."""
    encoder, options = CODECS[codec]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=Fraction(FPS), options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in scene(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


class Films(Reader):
    """Every camera of every `per_file` episodes in a file of its own. The files of a codec are copies of one."""

    def __init__(self, directory: Path, codec: str, *, files: int = 1, per_file: int = 4, frames: int = 250) -> None:
        self.name = codec
        self.features = Features(
            state=VectorFeature.of_width(WIDTH_OF_STATE, "s"),
            action=VectorFeature.of_width(WIDTH_OF_STATE, "a"),
            cameras={camera: CameraFeature(HEIGHT, WIDTH) for camera in CAMERAS},
            fps=FPS,
        )
        self.frames, self._per_file = frames, per_file
        self.files = [
            {camera: directory / f"{codec}-{camera}-{number}.mp4" for camera in CAMERAS} for number in range(files)
        ]
        first, *others = (path for paths in self.files for path in paths.values())
        encode(first, codec, per_file * frames)
        for path in others:
            shutil.copy(first, path)

    def __len__(self) -> int:
        return len(self.files) * self._per_file

    def lengths(self) -> NDArray[np.int64]:
        return np.full(len(self), self.frames)

    def fingerprint(self) -> str:
        return f"{self.files} {self._per_file} {self.frames}"

    def images(self, index: int) -> dict[str, VideoFrames]:
        file, place = divmod(index, self._per_file)
        return {
            camera: VideoFrames(path, place * self.frames, self.frames, HEIGHT, WIDTH)
            for camera, path in self.files[file].items()
        }

    def episode(self, index: int) -> Episode:
        rows = np.random.default_rng(index).normal(size=(self.frames, WIDTH_OF_STATE)).astype(np.float32)
        return Episode(state=rows, action=rows, images=self.images(index), fps=FPS)

    def place(self, row: int) -> tuple[int, int]:
        """Of a frame of the dataset: the number of its files, and its own number in each of them."""
        return divmod(row, self._per_file * self.frames)


class ItemByItem:
    """What a dataset with `__getitem__` does: each frame looked up by its time and decoded, item by item, one thread.

    Args:
        films: the dataset.
        keep_open: whether files stay open, with one colour converter each, as LeRobot's torchcodec backend keeps them;
            else each frame opens its file, as its PyAV backend does.
    """

    def __init__(self, films: Films, keep_open: bool) -> None:
        self._films, self._keep_open = films, keep_open
        self._open: dict[Path, tuple[Any, Any, Any]] = {}

    def batch(self, rows: list[int]) -> NDArray[np.uint8]:
        """(B, K, H, W, 3)."""
        items = []
        for row in rows:
            file, frame = self._films.place(row)
            items.append(np.stack([self._frame(path, frame) for path in self._films.files[file].values()]))
        return np.stack(items)

    def _frame(self, path: Path, frame: int) -> NDArray[np.uint8]:
        container, stream, reformatter = self._open.get(path) or self._opened(path)
        stamp = round(Fraction(frame, FPS) / stream.time_base)
        container.seek(stamp, stream=stream, backward=True)
        picture = next(picture for picture in container.decode(stream) if picture.pts >= stamp)
        pixels = _rgb(reformatter, picture)
        if not self._keep_open:
            container.close()
        return pixels

    def _opened(self, path: Path) -> tuple[Any, Any, Any]:
        container = av.open(str(path))
        container.streams.video[0].codec_context.thread_count = 1
        opened = container, container.streams.video[0], VideoReformatter()
        if self._keep_open:
            self._open[path] = opened
        return opened


class OnlyDecoding:
    """Decodes the packets that some frames cannot do without, each once, by one thread; makes nothing of the pictures.

    Every packet lies in memory, so that neither files nor colours count.
    """

    def __init__(self, films: Films) -> None:
        self._films = films
        self._opened: dict[Path, tuple[Any, list[Any]]] = {}
        for path in {path for paths in films.files for path in paths.values()}:
            container = av.open(str(path))
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            self._opened[path] = container, [packet for packet in container.demux(stream) if packet.size]

    def batch(self, rows: list[int]) -> None:
        needed: dict[Path, set[int]] = {}
        for row in rows:
            file, frame = self._films.place(row)
            for path in self._films.files[file].values():
                needed.setdefault(path, set()).update(range(frame - frame % KEYFRAMES, frame + 1))
        for path, numbers in needed.items():
            container, packets = self._opened[path]
            codec = container.streams.video[0].codec_context
            for number in sorted(numbers):
                if number % KEYFRAMES == 0:
                    codec.flush_buffers()
                codec.decode(packets[number])


def decode_plainly(path: Path) -> int:
    """Every frame to RGB as PyAV's manual does it; the number of frames."""
    count = 0
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            picture.to_ndarray(format="rgb24")
            count += 1
    return count


def decode_tuned(path: Path) -> int:
    """As `decode_plainly`, with one thread and one converter for all frames: what is fastest on all cores at once."""
    count = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        for picture in container.decode(stream):
            _rgb(reformatter, picture)
            count += 1
    return count


_ONE_THREAD: dict[str, int] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


def _rgb(reformatter: Any, picture: Any) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = reformatter.reformat(picture, format="rgb24", **_ONE_THREAD).to_ndarray()
    return pixels


@dataclass(frozen=True)
class Cost:
    """The least of several times: on the clock, and of all cores and ended processes together."""

    wall_s: float = float("inf")
    cpu_s: float = float("inf")


def take_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Cost]:
    """The cost of each way; they take turns, so that a busy machine hits all of them."""
    best = dict.fromkeys(ways, Cost())
    for _ in range(rounds):
        for name, way in ways.items():
            start, cpu = time.perf_counter(), _cpu_s()
            way()
            wall_s, cpu_s = time.perf_counter() - start, _cpu_s() - cpu
            best[name] = Cost(min(best[name].wall_s, wall_s), min(best[name].cpu_s, cpu_s))
    return best


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
