"""Stores of videos: however the work is shared and wherever frames come from, they are the reader's frames, resized."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from menura.data import build_store, collate, open_dataset, pictures, store_frames, store_plan, store_writing, windows
from menura.data.encoding import encode_video
from menura.data.episode import Episode
from menura.data.frames import LazyFrames, VideoFrames
from menura.data.pictures import decode_picture, encode_jpeg
from menura.data.readers.base import Reader
from menura.data.store_plan import Piece, shares
from menura.errors import DataError
from menura.features import CameraFeature, Features, VectorFeature
from menura.processing.images import resize_images

HEIGHT, WIDTH = 24, 32


def smooth(seed: int, count: int) -> np.ndarray:
    """Frames that codecs hardly change, every one another."""
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3))
    ramp = np.linspace(0, 60, WIDTH).astype(int)[None, None, :, None]
    return np.clip(np.broadcast_to(colours, (count, HEIGHT, WIDTH, 3)) // 2 + ramp, 0, 255).astype(np.uint8)


class Films(Reader):
    """One file a camera holds all episodes; `images` is counted, and so is `episode`."""

    def __init__(self, directory: Path, lengths: Sequence[int]) -> None:
        self.name, self._lengths = "films", list(lengths)
        self.cameras = {"top": directory / "top.mp4", "wrist": directory / "wrist.mp4"}
        self.features = Features(
            state=VectorFeature.of_width(1, "s"),
            action=VectorFeature.of_width(1, "a"),
            cameras={camera: CameraFeature(HEIGHT, WIDTH) for camera in self.cameras},
            fps=10,
        )
        for seed, path in enumerate(self.cameras.values()):
            frames = smooth(seed, sum(lengths))
            encode_video(path, frames, fps=10, height=HEIGHT, width=WIDTH, codec="libx264")
        self.opened: list[int] = []

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self) -> np.ndarray:
        return np.array(self._lengths)

    def fingerprint(self) -> str:
        return f"{self.cameras} {self._lengths}"

    def images(self, index: int) -> Mapping[str, LazyFrames]:
        self.opened.append(index)
        start, length = sum(self._lengths[:index]), self._lengths[index]
        return {camera: VideoFrames(path, start, length, HEIGHT, WIDTH) for camera, path in self.cameras.items()}

    def episode(self, index: int) -> Episode:
        start, length = sum(self._lengths[:index]), self._lengths[index]
        rows = np.arange(start, start + length, dtype=np.float32)[:, None]
        return Episode(state=rows, action=rows, images=self.images(index), task=f"task {index}", fps=10)


def frames_of(reader: Reader, camera: str) -> np.ndarray:
    return np.concatenate([reader.episode(index).images[camera][:] for index in range(len(reader))])


@pytest.mark.parametrize("lengths", [[40, 3, 17, 60], [120], [1, 1, 1]])
@pytest.mark.parametrize("size", [None, (10, 12)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_is_the_readers_frames(tmp_path, monkeypatch, lengths, size, workers):
    monkeypatch.setattr(store_plan, "_SHARE_FRAMES", 20)
    reader = Films(tmp_path, lengths)
    store = build_store(reader, image_size=size, num_workers=workers, cache_dir=tmp_path, progress=False)
    for camera in reader.cameras:
        expected = frames_of(reader, camera)
        expected = expected if size is None else resize_images(expected, size)
        np.testing.assert_array_equal(store.images[camera], expected)
    np.testing.assert_array_equal(store.action[:, 0], np.arange(sum(lengths)))
    assert store.tasks == [f"task {index}" for index in range(len(lengths))]
    assert len(store.episodes) == len(lengths)


@pytest.mark.parametrize("lengths", [[40, 3, 17], [60]])
def test_jpegs_keep_their_order_however_the_work_is_shared(tmp_path, monkeypatch, lengths):
    monkeypatch.setattr(store_plan, "_SHARE_FRAMES", 16)
    reader = Films(tmp_path, lengths)
    store = build_store(reader, mode="jpeg", num_workers=2, cache_dir=tmp_path, progress=False)
    for camera in reader.cameras:
        difference = np.abs(store.images[camera][:].astype(int) - frames_of(reader, camera))
        assert difference.mean() < 3
    np.testing.assert_array_equal(store.images["top"][[5, 2, 5]], store.images["top"][:][[5, 2, 5]])


def test_shares_hold_every_frame_once_and_in_order():
    for lengths in ([5, 1000, 3], [40_000], [10] * 500, [7], [1500] * 9):
        for workers in (0, 1, 2, 16):
            pieces = [piece for share in shares(np.array(lengths), workers) for piece in share]
            for episode, length in enumerate(lengths):
                own = [piece for piece in pieces if piece.episode == episode]
                assert [piece.start for piece in own] == [0, *(piece.stop for piece in own[:-1])]
                assert own[-1].stop == length
            assert [piece.episode for piece in pieces] == sorted(piece.episode for piece in pieces)
    assert shares(np.array([4, 4]), 0) == [[Piece(0, 0, 4), Piece(1, 0, 4)]]
    assert len(shares(np.array([40_000]), 2)) == 40  # a single long episode is shared too
    assert len(shares(np.array([1500] * 9), 2)) == 9  # enough episodes: none is read twice


@pytest.mark.parametrize("size", [None, (10, 12)])
def test_windows_without_a_store_equal_those_of_one(tmp_path, size):
    reader = Films(tmp_path, [40, 3, 17])
    options = {"image_size": size, "cache_dir": tmp_path, "progress": False}
    raw, straight = (windows(reader, (-3, 0), range(4), store=mode, **options) for mode in ("raw", "video"))
    assert not list(straight.store.directory.glob("images*"))
    for seed in range(4):
        items = np.random.default_rng(seed).integers(len(raw), size=33)
        expected, got = raw.__getitems__(items), straight.__getitems__(items)
        assert expected.keys() == got.keys()
        np.testing.assert_array_equal(got["image"], expected["image"])
    np.testing.assert_array_equal(straight[59]["image"], raw[59]["image"])


def test_windows_without_a_store_in_workers(tmp_path):
    reader = Films(tmp_path, [40, 3, 17])
    raw, straight = (windows(reader, store=mode, cache_dir=tmp_path, progress=False) for mode in ("raw", "video"))
    straight.__getitems__([3, 50])  # this process has files open and threads running
    loader = DataLoader(straight, batch_size=16, num_workers=2, collate_fn=collate, multiprocessing_context="fork")
    got = np.concatenate([batch["image"].numpy() for batch in loader])
    np.testing.assert_array_equal(got, raw.__getitems__(range(len(raw)))["image"])


def test_episodes_are_not_opened_again(tmp_path):
    reader = Films(tmp_path, [10] * 6)
    data = windows(reader, store="video", cache_dir=tmp_path, progress=False)
    reader.opened.clear()
    for _ in range(3):
        data.__getitems__(range(len(data)))
    assert len(reader.opened) == 2 * 6  # once a camera


class Heavy(LazyFrames):
    """Frames that take memory once they are read."""

    held: int = 0

    def read(self, numbers: np.ndarray) -> np.ndarray:
        self.held = 100
        return np.zeros((len(numbers), *self.shape[1:]), np.uint8)

    @property
    def nbytes(self) -> int:
        return self.held


def test_frames_that_take_memory_are_kept_up_to_a_bound(tmp_path, monkeypatch):
    reader = Films(tmp_path, [2] * 10)
    monkeypatch.setattr(reader, "images", lambda index: {"top": Heavy(2, HEIGHT, WIDTH)})
    monkeypatch.setattr(store_frames, "_KEPT_BYTES", 250)
    starts = np.arange(0, 22, 2)
    frames = store_frames.SourceFrames(reader, "top", starts, (HEIGHT, WIDTH), None)
    for number in range(20):
        frames[number]
        assert frames._held() <= 300
    assert len(frames._episodes) >= 2


def test_pictures_in_parquet_are_read_once_an_episode(fixtures, tmp_path, monkeypatch):
    reader = open_dataset(fixtures / "lerobot_v3_image")
    read = []
    plain = type(reader)._pictures

    def counting(self, key: str, row: int):
        read.append((key, row))
        return plain(self, key, row)

    monkeypatch.setattr(type(reader), "_pictures", counting)
    raw, straight = (windows(reader, store=mode, cache_dir=tmp_path, progress=False) for mode in ("raw", "video"))
    read.clear()
    for _ in range(3):
        items = np.random.default_rng(0).permutation(len(raw))
        np.testing.assert_array_equal(straight.__getitems__(items)["image"], raw.__getitems__(items)["image"])
    assert len(read) == len(set(read))


def test_frames_of_another_size_than_declared(tmp_path):
    reader = Films(tmp_path, [4])
    reader.features = Features(
        state=reader.features.state,
        action=reader.features.action,
        cameras={"top": CameraFeature(HEIGHT, WIDTH + 2)},
        fps=10,
    )
    data = windows(reader, store="video", cache_dir=tmp_path, progress=False)
    with pytest.raises(DataError, match=r"top\.mp4: expected 24 x 34 pixels, got 24 x 32"):
        data[0]


# --- single pictures -------------------------------------------------------------------------------------------------


def test_jpegs_of_changing_sizes_one_after_the_other():
    shapes = [(24, 32), (24, 32), (48, 16), (7, 9), (24, 32)]
    frames = [smooth(seed, 1)[0][:1, :1] + np.zeros((*shape, 3), np.uint8) for seed, shape in enumerate(shapes)]
    encoded = [encode_jpeg(frame) for frame in frames]
    for frame, picture in zip(frames, encoded, strict=True):
        decoded = decode_picture(picture, "it")
        assert decoded.shape == frame.shape
        assert np.abs(decoded.astype(int) - frame).max() <= 4
    held = [decode_picture(picture, "it") for picture in encoded]  # what was given out stays as it was
    for frame, decoded in zip(frames, held, strict=True):
        assert np.abs(decoded.astype(int) - frame).max() <= 4


def test_half_a_jpeg_is_an_error_and_the_next_one_is_none():
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    encoded = encode_jpeg(frame)
    expected = decode_picture(encoded, "whole")
    with pytest.raises(DataError, match="frame 3: damaged"):
        decode_picture(encoded[: len(encoded) // 2], "frame 3")
    np.testing.assert_array_equal(decode_picture(encoded, "whole"), expected)


def test_jpegs_are_decoded_by_a_kept_codec():
    encoded = encode_jpeg(smooth(0, 1)[0])
    decode_picture(encoded, "it")
    kept = pictures._kept.jpeg
    decode_picture(encoded, "it")
    assert pictures._kept.jpeg is kept


def test_an_error_while_books_are_kept_ends_the_work(tmp_path, monkeypatch):
    """A full disk in the process that keeps the books: nothing goes on behind its back, and nothing is left."""

    def full(self, jpegs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_plan, "_SHARE_FRAMES", 16)
    monkeypatch.setattr(store_writing.JpegFiles, "append", full)
    threads = threading.active_count()
    with pytest.raises(DataError, match="got No space left on device") as caught:
        build_store(Films(tmp_path, [30] * 4), mode="raw", num_workers=2, cache_dir=tmp_path, progress=False)
    assert caught.value is not None
    assert threading.active_count() == threads
    assert not list((tmp_path / "store").glob(".tmp-*"))
