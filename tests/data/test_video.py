"""Frames by number: any codec, any order, with and without frames that refer to later ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from menura.data.encoding import encode_video
from menura.data.frames import VideoFrames
from menura.data.pictures import decode_picture, encode_png
from menura.data.video import iterate_frames, read_frames, video_index
from menura.errors import DataError

COUNT = 40


def numbered_frames(count: int = COUNT, height: int = 32, width: int = 48) -> np.ndarray:
    """Frames whose brightness tells their number: `number * 6`."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = (np.arange(count) * 6)[:, None, None, None]
    return frames


def number_of(frame: np.ndarray) -> int:
    return round(float(frame.mean()) / 6)


def encode_with_bidirectional_frames(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"g": "12", "bf": "3", "crf": "10"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for frame in numbered_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module", params=["libx264", "libsvtav1", "bidirectional"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("video") / "file.mp4"
    if request.param == "bidirectional":
        encode_with_bidirectional_frames(path)
    else:
        encode_video(path, numbered_frames(), fps=25, height=32, width=48, codec=request.param)
    return path


def test_index_counts_every_frame(video: Path) -> None:
    index = video_index(video)
    assert len(index) == COUNT
    assert (index.height, index.width) == (32, 48)
    np.testing.assert_allclose([index.seconds(i) for i in range(COUNT)], np.arange(COUNT) / 25, atol=1e-4)


def test_in_order(video: Path) -> None:
    assert [number_of(frame) for frame in iterate_frames(video)] == list(range(COUNT))
    assert [number_of(frame) for frame in iterate_frames(video, 7, 11)] == [7, 8, 9, 10]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=8))
def test_any_order_with_repeats(video: Path, numbers: list[int]) -> None:
    frames = read_frames(video, numbers)
    assert [number_of(frame) for frame in frames] == numbers


def test_frames_act_like_an_array(video: Path) -> None:
    frames = VideoFrames(video, start=5, length=10, height=32, width=48)
    assert len(frames) == 10
    assert frames.shape == (10, 32, 48, 3)
    assert frames[0].shape == (32, 48, 3)
    assert number_of(frames[0]) == 5
    assert number_of(frames[-1]) == 14
    assert [number_of(frame) for frame in frames[2:6:2]] == [7, 9]
    assert [number_of(frame) for frame in frames[np.array([3, 3, 1])]] == [8, 8, 6]
    assert [number_of(frame) for frame in frames] == list(range(5, 15))
    np.testing.assert_array_equal(np.asarray(frames), frames[:])
    assert frames[3:3].shape == (0, 32, 48, 3)
    with pytest.raises(IndexError):
        frames[10]


def test_beyond_the_file(video: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_frames(video, [COUNT])
    assert str(caught.value) == f"Video {video}: expected frames 0 … 39, got 40 … 40."


@pytest.mark.parametrize("keep", [0, 100, 1200])
def test_damaged(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.mp4"
    encode_video(path, numbered_frames(), fps=25, height=32, width=48, codec="libx264")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"Video {path}: cannot be opened .* Fetch it again or remove its episodes"):
        read_frames(path, [0])


def test_missing(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    with pytest.raises(DataError) as caught:
        read_frames(path, [0])
    assert str(caught.value) == (f"Video {path}: expected a file, found none. Fetch it again or remove its episodes.")


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "file.mp4"
    for count in (5, 9):
        encode_video(path, numbered_frames(count), fps=25, height=32, width=48, codec="libx264")
        assert len(video_index(path)) == count


def test_odd_sizes_keep_their_size(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    encode_video(path, numbered_frames(3, 33, 47), fps=25, height=33, width=47, codec="libx264")
    assert read_frames(path, [1]).shape == (1, 33, 47, 3)


def test_unknown_codec(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        encode_video(tmp_path / "x.mp4", numbered_frames(2), fps=25, height=32, width=48, codec="libx265")
    assert str(caught.value) == (
        "codec: expected one of ['libx264', 'libx264-ultrafast', 'libx264-420', 'libsvtav1'], got 'libx265'; "
        "did you mean libx264?"
    )


@pytest.mark.parametrize("shape", [(7, 5, 3), (84, 84, 3)])
def test_png_is_lossless(shape: tuple[int, ...]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(decode_picture(encode_png(frame), "it"), frame)


def test_not_a_picture() -> None:
    with pytest.raises(DataError) as caught:
        decode_picture(b"GIF89a", "data/x.parquet, frame 3")
    assert str(caught.value) == (
        "data/x.parquet, frame 3: expected a PNG or a JPEG, got bytes that begin with b'GIF8'."
    )


def test_damaged_picture() -> None:
    encoded = encode_png(numbered_frames(1)[0])
    with pytest.raises(DataError, match="frame 3: damaged"):
        decode_picture(encoded[:60], "frame 3")
