"""Every frame by its number, whatever the codec and the groups of pictures: the number is written into the pixels."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from menura.data import video, video_index
from menura.data.frames import VideoFrames
from menura.data.store_frames import Passage
from menura.data.video import Wanted, iterate_frames, read_frames, read_into
from menura.errors import DataError

COUNT, HEIGHT, WIDTH = 90, 32, 64
BITS = 7

#: Encoder and its options. Groups: of two (LeRobot), short, long, open, pictures that refer forwards, one for all.
SETTINGS = {
    "h264 g=2": ("libx264", {"g": "2", "bf": "0"}),
    "h264 g=2 bf": ("libx264", {"g": "2"}),
    "h264 g=12 bf=3": ("libx264", {"g": "12", "bf": "3"}),
    "h264 pyramid": ("libx264", {"g": "30", "bf": "4", "b-pyramid": "normal", "refs": "4"}),
    "h264 open": ("libx264", {"g": "10", "bf": "3", "x264-params": "open-gop=1"}),
    "h264 g=250": ("libx264", {"g": "250"}),
    "hevc open": ("libx265", {"x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none"}),
    "av1 g=2": ("libsvtav1", {"g": "2", "preset": "10"}),
    "av1 g=30": ("libsvtav1", {"g": "30", "preset": "10"}),
}


def numbered(number: int) -> np.ndarray:
    """A frame whose columns of eight pixels are the bits of its number, white or black."""
    bits = [number >> bit & 1 for bit in range(BITS)] + [0]
    row = np.repeat(np.array(bits, np.uint8) * 255, WIDTH // 8)
    return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    columns = frame.reshape(HEIGHT, 8, WIDTH // 8, 3)[:, :, 2:-2].mean(axis=(0, 2, 3))
    return sum(1 << bit for bit in range(BITS) if columns[bit] > 127)


def encode(path: Path, setting: str, *, stamps: list[int] | None = None, container: str = "mp4") -> None:
    """`stamps` are the presentation times of the frames, in 1/600 s; evenly spread when not given."""
    encoder, options = SETTINGS[setting]
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(encoder, rate=30, options={**options, "crf": "20"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 600)
        for number in range(COUNT):
            picture = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            picture.pts = stamps[number] if stamps else 20 * number
            picture.time_base = Fraction(1, 600)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


@pytest.fixture(scope="module", params=SETTINGS)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("film") / "film.mp4"
    encode(path, request.param)
    return path


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=12))
def test_any_frames_in_any_order(film: Path, wanted: list[int]) -> None:
    assert [number_of(frame) for frame in read_frames(film, wanted)] == wanted


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, COUNT - 1), length=st.integers(1, COUNT))
def test_every_frame_from_anywhere(film: Path, start: int, length: int) -> None:
    numbers = range(start, min(start + length, COUNT))
    assert [number_of(frame) for frame in iterate_frames(film, numbers.start, numbers.stop)] == list(numbers)


def test_the_frames_are_those_of_pyav(film: Path) -> None:
    with av.open(str(film)) as container:
        expected = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    np.testing.assert_array_equal(read_frames(film, range(COUNT)), expected)
    np.testing.assert_array_equal(np.stack(list(iterate_frames(film))), expected)
    for number in (0, 1, 41, COUNT - 1):
        np.testing.assert_array_equal(read_frames(film, [number])[0], expected[number])


def test_only_what_is_needed_is_decoded(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No packet beyond the last wanted frame's, and none before its keyframe."""
    decoded = []
    plain = video._Decoder._pictures

    def counting(self, start: int, last: int):
        decoded.append(last - start + 1)
        return plain(self, start, last)

    monkeypatch.setattr(video._Decoder, "_pictures", counting)
    index = video_index.video_index(film)
    for number in (0, 1, 47, COUNT - 1):
        decoded.clear()
        read_frames(film, [number])
        assert decoded == [index.packets[number] - index.starts[number] + 1]
    decoded.clear()
    read_frames(film, range(COUNT))
    assert decoded == [COUNT]


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
@pytest.mark.parametrize("setting", ["h264 g=12 bf=3", "av1 g=30"])
def test_uneven_times_and_other_containers(tmp_path: Path, setting: str, container: str) -> None:
    if (setting, container) == ("av1 g=30", "mov"):
        pytest.skip("no AV1 in mov")
    stamps = np.cumsum(np.random.default_rng(0).integers(10, 60, COUNT)).tolist()
    path = tmp_path / "film"
    encode(path, setting, stamps=stamps, container=container)
    wanted = [89, 3, 40, 41, 12, 0, 77]
    assert [number_of(frame) for frame in read_frames(path, wanted)] == wanted
    times = [video_index.video_index(path).seconds(number) for number in range(COUNT)]
    np.testing.assert_allclose(times, (np.array(stamps) - stamps[0]) / 600, atol=2e-3)


def test_a_file_cut_off_is_named(tmp_path: Path) -> None:
    """The header is whole and counts all frames, the frames end in the middle."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    encode(whole, "h264 g=12 bf=3")
    with av.open(str(whole)) as source, av.open(str(cut), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert len(video_index.video_index(cut)) == COUNT
    content = cut.read_bytes()
    cut.write_bytes(content[: -len(content) // 4])
    with pytest.raises(DataError, match=f"Video {cut}: .*Fetch it again or remove its episodes"):
        read_frames(cut, [COUNT - 1])


def test_threads_fill_the_same_rows(film: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(film.read_bytes())
    rng = np.random.default_rng(0)
    numbers, rows = rng.integers(0, COUNT, 60), rng.permutation(60)
    wanted = [Wanted(film, numbers[:40], rows[:40]), Wanted(other, numbers[40:], rows[40:])]
    one, many = (np.zeros((60, HEIGHT, WIDTH, 3), np.uint8) for _ in range(2))
    read_into(one, wanted)
    read_into(many, wanted, threads=4)
    np.testing.assert_array_equal(one, many)
    assert [number_of(frame) for frame in many[rows]] == numbers.tolist()


def test_several_threads_may_read_one_file(film: Path) -> None:
    def read(seed: int) -> bool:
        numbers = np.random.default_rng(seed).integers(0, COUNT, 10).tolist()
        return [number_of(frame) for frame in read_frames(film, numbers)] == numbers

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(40)))


def test_a_forked_process_opens_its_own_files(film: Path) -> None:
    read_frames(film, [30])  # the parent has it open
    halfway = iterate_frames(film)
    next(halfway)
    child = multiprocessing.get_context("fork").Process(target=_read_in_child, args=(film,))
    child.start()
    assert [number_of(frame) for frame in islice(halfway, 20)] == list(range(1, 21))
    child.join(60)
    assert child.exitcode == 0


def _read_in_child(path: Path) -> None:
    assert not video._open_files._idle
    out = np.zeros((COUNT, HEIGHT, WIDTH, 3), np.uint8)
    read_into(out, [Wanted(path, np.arange(COUNT), np.arange(COUNT))], threads=2)
    assert [number_of(frame) for frame in out] == list(range(COUNT))


def test_lazy_frames_travel(film: Path) -> None:
    frames = VideoFrames(film, 10, 20, HEIGHT, WIDTH)
    frames[0]
    assert number_of(pickle.loads(pickle.dumps(frames))[5]) == 15


def test_files_stay_open_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    plain = video.open_video

    def opening(path: Path):
        opened.append(path)
        return plain(path)

    monkeypatch.setattr(video, "open_video", opening)
    monkeypatch.setattr(video, "_OPEN_FILES", 2)
    monkeypatch.setattr(video, "_open_files", video._OpenFiles())
    films = [tmp_path / f"{number}.mp4" for number in range(3)]
    encode(films[0], "h264 g=2")
    for film in films[1:]:
        film.write_bytes(films[0].read_bytes())
    for film in (films[0], films[1], films[0], films[1], films[0]):
        assert number_of(read_frames(film, [7])[0]) == 7
    assert opened == films[:2]
    read_frames(films[2], [7])
    read_frames(films[1], [7])  # was let go of: it was used longest ago
    assert opened == [*films, films[1]]


def test_an_index_is_kept_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(video_index, "_KEPT_PACKETS", 10)
    film = tmp_path / "film.mp4"
    encode(film, "h264 open")
    first = video_index.video_index(film)
    (kept,) = (tmp_path / "cache" / "video_index").iterdir()

    def unread(path: Path):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(video_index, "_remembered", video_index._Remembered())
    with monkeypatch.context() as patch:
        patch.setattr(video_index, "_read", unread)
        second = video_index.video_index(film)
    for name in ("pts", "packets", "starts", "keyframes", "key_pts", "key_dts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (second.height, second.width, second.time_base) == (HEIGHT, WIDTH, first.time_base)
    for damage in (kept.read_bytes()[:100], b""):  # cut off by whatever
        kept.write_bytes(damage)
        monkeypatch.setattr(video_index, "_remembered", video_index._Remembered())
        np.testing.assert_array_equal(video_index.video_index(film).pts, first.pts)


def test_remembered_indices_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_index, "_REMEMBERED_FRAMES", 2 * COUNT)
    monkeypatch.setattr(video_index, "_remembered", video_index._Remembered())
    for number in range(4):
        film = tmp_path / f"{number}.mp4"
        if number == 0:
            encode(film, "h264 g=2")
        else:
            film.write_bytes((tmp_path / "0.mp4").read_bytes())
        video_index.video_index(film)
    assert [version.path.stem for version in video_index._remembered._indices] == ["2", "3"]


def test_episodes_that_follow_each_other_are_decoded_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    plain = video._Decoder._pictures

    def counting(self, start: int, last: int):
        runs.append(start)
        return plain(self, start, last)

    monkeypatch.setattr(video._Decoder, "_pictures", counting)
    film = tmp_path / "film.mp4"
    encode(film, "h264 g=250")
    passage, got = Passage(), []
    for first, length in ((0, 30), (30, 25), (60, 10), (70, 20)):
        frames = VideoFrames(film, first, length, HEIGHT, WIDTH)
        half = length // 2
        got += [number_of(frame) for frame in passage.through(frames, 0, half)]
        got += [number_of(frame) for frame in passage.through(frames, half, length)]
    assert got == [*range(55), *range(60, 90)]
    assert len(runs) == 2  # from 0 on, and from 60 on
