"""Videos that tools take over without encoding them again: equal pixels, true metadata, and when not."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from menura.data import Episode, LeRobotWriter, Reader, compact, open_dataset
from menura.data.encoding import ENCODERS, encode_video, encoder_like
from menura.data.frames import PickedFrames, VideoFrames
from menura.data.joining import coding, obstacle
from menura.data.tools.editing import convert, delete, merge, rename, split, trim
from menura.data.tools.writing import UNFINISHED
from menura.data.video_index import video_index
from menura.errors import DataError
from menura.features import CameraFeature, Features, VectorFeature
from menura.files import TEMPORARY, replace_directory

FEATURES = Features(
    state=VectorFeature(("x",)),
    action=VectorFeature(("x",)),
    cameras={"top": CameraFeature(64, 80), "wrist": CameraFeature(64, 64)},
    fps=20,
)
LENGTHS = (20, 33, 16)


def pictures(number: int, length: int, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    shade = (x + 2 * y)[None] + 5 * np.arange(length)[:, None, None] + 40 * number
    return np.stack([shade % 256, 255 - shade % 200, 60 + shade % 90], axis=-1).astype(np.uint8)


def episode(number: int) -> Episode:
    length = LENGTHS[number % 3]
    rows = np.linspace(0, 1, length)[:, None] + number
    images = {name: pictures(number, length, c.height, c.width) for name, c in FEATURES.cameras.items()}
    return Episode(rows, rows, images, fps=20, seed=number)


def write(root: Path, codec: str = "libx264", numbers: range = range(3)) -> Path:
    with LeRobotWriter(root, FEATURES, codec=codec) as writer:
        for number in numbers:
            writer.add_episode(episode(number))
    return root


def pixels(reader: Reader, cut: slice = slice(None)) -> list[dict[str, bytes]]:
    return [
        {name: np.asarray(frames[:])[cut].tobytes() for name, frames in reader.images(index).items()}
        for index in range(len(reader))
    ]


def packets(root: Path) -> list[bytes]:
    """Of every video of a dataset, file by file."""
    found = []
    for path in sorted(root.rglob("*.mp4")):
        with av.open(str(path)) as container:
            found += [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
    return found


def spec(root: Path, camera: str = "top") -> dict[str, Any]:
    info: dict[str, Any] = json.loads((root / "meta/info.json").read_text())["features"]
    return dict(info[f"observation.images.{camera}"]["info"])


def require_true(root: Path) -> None:
    """meta/info.json says what each of the videos is."""
    for path in root.rglob("*.mp4"):
        said = spec(root, path.parent.parent.name.removeprefix("observation.images."))
        assert coding(path) == (said["video.codec"], said["video.pix_fmt"]), path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source")


@pytest.mark.parametrize("codec", sorted(ENCODERS))
def test_a_whole_conversion_copies_every_packet_and_keeps_the_codec(tmp_path: Path, codec: str) -> None:
    source = write(tmp_path / "source", codec)
    made = convert(source, tmp_path / "made", progress=False)
    assert packets(made) == packets(source)
    assert pixels(open_dataset(made)) == pixels(open_dataset(source))
    assert spec(made) == spec(source)
    require_true(made)


def test_merge_split_delete_and_rename_copy(source: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", numbers=range(3, 5))
    here, there = pixels(open_dataset(source)), pixels(open_dataset(other))
    assert pixels(open_dataset(merge([source, other], tmp_path / "merged", progress=False))) == here + there
    parts = split(source, tmp_path / "parts", {"a": [2], "b": [1, 0]}, progress=False)
    assert [pixels(open_dataset(part)) for part in parts] == [[here[2]], [here[1], here[0]]]
    assert pixels(open_dataset(delete(source, tmp_path / "left", episodes=[1], progress=False))) == [here[0], here[2]]
    renamed = open_dataset(rename(source, tmp_path / "renamed", cameras={"top": "front"}, progress=False))
    assert [one["front"] for one in pixels(renamed)] == [one["top"] for one in here]


def test_episodes_of_one_large_file_are_cut_out_of_it(source: Path, tmp_path: Path) -> None:
    compacted = compact(source, tmp_path / "compacted", progress=False)
    assert len(list(compacted.rglob("*.mp4"))) == 2
    made = delete(compacted, tmp_path / "made", episodes=[1], progress=False)
    expected = pixels(open_dataset(source))
    assert pixels(open_dataset(made)) == [expected[0], expected[2]]
    assert len(packets(made)) == 2 * (LENGTHS[0] + LENGTHS[2])


@pytest.mark.parametrize(("start", "copied"), [(4, True), (3, False)])
def test_a_trim_copies_what_begins_at_a_keyframe(source: Path, tmp_path: Path, start: int, copied: bool) -> None:
    made = trim(source, tmp_path / "made", start=start, stop=3, progress=False)
    assert open_dataset(made).lengths().tolist() == [length - start - 3 for length in LENGTHS]
    equal = pixels(open_dataset(made)) == pixels(open_dataset(source), slice(start, -3))
    assert equal is copied
    if not copied:
        old, new = (open_dataset(root).episode(0).images["top"] for root in (source, made))
        assert np.abs(np.asarray(old[start:-3]).astype(int) - np.asarray(new[:])).mean() < 4


def test_what_differs_from_the_first_is_encoded_again_and_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "other", "libsvtav1", range(3, 5))
    made = merge([source, other], tmp_path / "made", progress=True)
    require_true(made)
    assert spec(made)["video.codec"] == "h264"
    assert pixels(open_dataset(made))[:3] == pixels(open_dataset(source))
    assert "4 videos could not be copied and were encoded again, by libx264." in capsys.readouterr().err
    made = convert(source, tmp_path / "archive", codec="libsvtav1", progress=False)
    require_true(made)
    assert (spec(made)["video.codec"], spec(made)["video.pix_fmt"]) == ("av1", "yuv420p")


def test_a_pixel_format_of_its_own_is_a_codec_of_its_own(source: Path, tmp_path: Path) -> None:
    made = convert(source, tmp_path / "made", codec="libx264-420", progress=False)
    assert spec(made)["video.pix_fmt"] == "yuv420p"
    require_true(made)
    assert pixels(open_dataset(made)) != pixels(open_dataset(source))


def test_statistics_of_copied_cameras_are_those_of_sampled_frames(source: Path, tmp_path: Path) -> None:
    made = convert(source, tmp_path / "made", progress=False)
    old, new = (json.loads((root / "meta/stats.json").read_text()) for root in (source, made))
    for name in FEATURES.cameras:
        key = f"observation.images.{name}"
        assert new[key]["count"] == old[key]["count"] == [sum(LENGTHS)]
        for field in ("mean", "std"):
            np.testing.assert_allclose(new[key][field], old[key][field], atol=0.02)
    assert {key: new[key] for key in ("observation.state", "action")} == {
        key: old[key] for key in ("observation.state", "action")
    }


def test_a_writer_copies_by_itself_and_goes_on(source: Path, tmp_path: Path) -> None:
    reader = open_dataset(source)
    for number in range(3):
        with LeRobotWriter(tmp_path / "made", FEATURES, resume=number > 0) as writer:
            writer.add_episode(reader.episode(number))
            assert writer.encoded_again == 0
    assert pixels(open_dataset(tmp_path / "made")) == pixels(reader)
    assert not list((tmp_path / "made").rglob(f"{TEMPORARY}*"))


def test_cameras_of_one_episode_may_be_copied_or_encoded(source: Path, tmp_path: Path) -> None:
    given = open_dataset(source).episode(0)
    mixed = {"top": given.images["top"], "wrist": np.asarray(given.images["wrist"][:])}
    with LeRobotWriter(tmp_path / "made", FEATURES) as writer:
        writer.add_episode(Episode(given.state, given.action, mixed, fps=20))
    made = open_dataset(tmp_path / "made").episode(0)
    assert np.array_equal(made.images["top"][:], given.images["top"][:])
    assert np.abs(np.asarray(made.images["wrist"][:]).astype(int) - mixed["wrist"]).mean() < 4


def test_nothing_stays_of_an_episode_that_is_refused(source: Path, tmp_path: Path) -> None:
    given = open_dataset(source).episode(0)
    bad = Episode(np.full_like(given.state, np.nan), given.action, given.images, fps=20)
    with LeRobotWriter(tmp_path / "made", FEATURES) as writer:
        with pytest.raises(DataError, match="expected a finite number"):
            writer.add_episode(bad)
        assert not [path for path in (tmp_path / "made" / "videos").rglob("*") if path.is_file()]
        writer.add_episode(given)
    assert len(open_dataset(tmp_path / "made")) == 1


def test_a_damaged_video_is_refused(source: Path, tmp_path: Path) -> None:
    video = min(source.rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:-2000])
    with pytest.raises(DataError, match="Fetch it again or remove its episodes"):
        convert(source, tmp_path / "made", progress=False)


def b_frames(path: Path, frames: np.ndarray) -> Path:
    """A video whose groups of pictures are not closed against their neighbours."""
    with av.open(str(path), "w") as container:
        options = {"g": "8", "bf": "2", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
        stream: Any = container.add_stream("libx264", rate=20, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_frames_that_need_others_are_never_cut_out(tmp_path: Path) -> None:
    """Every stretch that is called free of obstacles decodes alone, to the same pixels."""
    path = b_frames(tmp_path / "b.mp4", pictures(0, 32, 64, 64))
    index = video_index(path)
    free = [
        (start, stop)
        for start in range(32)
        for stop in range(start + 1, 33)
        if obstacle(path, start, stop - start, 20) is None
    ]
    assert (0, 32) in free
    assert {start for start, _ in free} <= {int(np.flatnonzero(index.packets == key)[0]) for key in index.keyframes}
    assert len(free) < 32  # most stretches end amid frames that refer to each other
    features = Features(None, VectorFeature(("x",)), {"top": CameraFeature(64, 64)}, fps=20)
    with LeRobotWriter(tmp_path / "made", features) as writer:
        for start, stop in free:
            frames = VideoFrames(path, start, stop - start, 64, 64)
            writer.add_episode(Episode(None, np.zeros((stop - start, 1)), {"top": frames}, fps=20))  # type: ignore[arg-type]
        assert writer.encoded_again == 0
    made = open_dataset(tmp_path / "made")
    for number, (start, stop) in enumerate(free):
        expected = VideoFrames(path, start, stop - start, 64, 64)
        assert np.array_equal(made.episode(number).images["top"][:], expected[:]), (start, stop)


def test_other_times_and_sizes_are_obstacles(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    encode_video(path, pictures(0, 10, 64, 64), fps=20, height=64, width=64, codec="libx264")
    assert obstacle(path, 0, 10, 20) is None
    assert "expected one frame each 1/25 s" in str(obstacle(path, 0, 10, 25))
    assert "expected them, got a file of 10 frames" in str(obstacle(path, 4, 7, 20))
    assert "expected a keyframe first" in str(obstacle(path, 1, 2, 20))
    assert encoder_like(("hevc", "yuv420p")) is None


def test_picked_frames_come_one_after_the_other_as_by_index(source: Path) -> None:
    frames = open_dataset(source).episode(1).images["top"]
    picked = PickedFrames(frames, np.array([30, 1, 1, 7, *range(25)]))
    assert np.array_equal(np.stack(list(picked)), picked[:])


def test_a_split_goes_on_after_an_interruption(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"a": [0, 1], "b": [2]}
    add = LeRobotWriter.add_episode

    def stops(writer: LeRobotWriter, given: Episode) -> None:
        if writer.root.name == "b":
            raise KeyboardInterrupt
        add(writer, given)

    monkeypatch.setattr(LeRobotWriter, "add_episode", stops)
    with pytest.raises(KeyboardInterrupt, match=r"Interrupted: 0 of 1 episodes are written\. The same command goes on"):
        split(source, tmp_path / "made", parts, progress=False)
    monkeypatch.undo()
    before = (tmp_path / "made/a/meta/info.json").stat().st_mtime_ns
    with pytest.raises(DataError, match="got an unfinished dataset of other work"):
        split(source, tmp_path / "made", {"a": [0], "b": [2]}, progress=False)
    made = split(source, tmp_path / "made", parts, progress=False)
    assert (tmp_path / "made/a/meta/info.json").stat().st_mtime_ns == before
    assert [len(open_dataset(part)) for part in made] == [2, 1]
    assert not (tmp_path / "made" / UNFINISHED).exists()


def test_a_full_disk_is_told_with_its_place_and_the_same_call_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = LeRobotWriter.add_episode

    def full(writer: LeRobotWriter, given: Episode) -> None:
        if len(writer) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")  # as libraries do that do not say where
        add(writer, given)

    monkeypatch.setattr(LeRobotWriter, "add_episode", full)
    with pytest.raises(OSError, match="No space left on device") as told:
        convert(source, tmp_path / "made", progress=False)
    assert told.value.filename == str(tmp_path / "made")
    assert len(open_dataset(tmp_path / "made")) == 2
    monkeypatch.undo()
    made = open_dataset(convert(source, tmp_path / "made", progress=False))
    assert pixels(made) == pixels(open_dataset(source))


@pytest.mark.parametrize("delay", [0.02, 0.1])
def test_a_killed_copy_leaves_the_old_or_the_new_and_goes_on(source: Path, tmp_path: Path, delay: float) -> None:
    script = (
        "import sys; from menura.data.tools.editing import delete; print('ready', flush=True);"
        "delete(sys.argv[1], episodes=[0], in_place=True, progress=False)"
    )
    old = pixels(open_dataset(source))
    with subprocess.Popen([sys.executable, "-c", script, str(source)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
    if source.exists() and len(open_dataset(source)) < len(old):
        assert pixels(open_dataset(source)) == old[1:]
        return
    delete(source, episodes=[0], in_place=True, progress=False)
    assert pixels(open_dataset(source)) == old[1:]
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_change_killed_between_its_two_renames_is_told_and_mended(source: Path, tmp_path: Path) -> None:
    expected = pixels(open_dataset(source))
    made = delete(source, tmp_path / f"{TEMPORARY}source", episodes=[1], progress=False)  # as an in-place change does
    source.rename(tmp_path / ".old-source")
    with pytest.raises(DataError, match=r"killed in its last moment\. Run that command again, or .* mv '.*old-source'"):
        open_dataset(source)
    assert made.exists()
    delete(source, episodes=[0], in_place=True, progress=False)
    assert pixels(open_dataset(source)) == expected[1:]
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    replace_directory(convert(source, tmp_path / "copy", progress=False), source)
    assert pixels(open_dataset(source)) == expected[1:]
