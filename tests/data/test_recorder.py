"""Episodes recorded frame by frame: nothing is dropped, what is wrong is refused at once, a kill costs one episode."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import LeRobotWriter, Recorder, background, open_dataset
from menura.data.sinks import VideoFile
from menura.errors import DataError, FeatureMismatch
from menura.features import CameraFeature, Features, VectorFeature

FEATURES = Features(
    state=VectorFeature(("x", "y")),
    action=VectorFeature(("dx", "dy")),
    cameras={"top": CameraFeature(32, 48), "wrist": CameraFeature(24, 24)},
    fps=30.0,
    language=True,
)


def frame(number: int, episode: int = 0) -> dict[str, Any]:
    """A function of its numbers: the shade of every picture says which frame it is."""
    shade = np.uint8((37 * episode + 5 * number) % 200)
    images = {
        name: np.full((camera.height, camera.width, 3), shade, np.uint8) for name, camera in FEATURES.cameras.items()
    }
    return {"state": [number, episode], "action": [-number, shade], "images": images}


def record(recorder: Recorder, frames: int, episode: int = 0) -> None:
    for number in range(frames):
        recorder.append(**frame(number, episode))


def record_until_stuck(recorder: Recorder) -> None:
    record(recorder, 3)
    raise RuntimeError("the arm is stuck")


def require_episode(root: Path, episode: int, frames: int) -> None:
    """That it is there, whole: as many frames as rows, each where it belongs."""
    got = open_dataset(root).episode(episode)
    np.testing.assert_array_equal(got.state, [[number, episode] for number in range(frames)])
    for pictures in got.images.values():
        assert len(pictures) == frames
        shades = np.asarray(pictures).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(shades, got.action[:, 1], atol=2)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.name != ".menura.lock"]


@pytest.mark.parametrize("video", [True, False])
def test_frame_by_frame(tmp_path: Path, video: bool) -> None:
    with LeRobotWriter(tmp_path, FEATURES, video=video) as writer:
        for episode in range(2):
            with writer.begin(task="lift", seed=episode) as recorder:
                record(recorder, 40, episode)
                assert len(recorder) == 40
                recorder.save(success=True, extra={"operator": "ada"})
            assert len(writer) == episode + 1
            require_episode(tmp_path, episode, 40)  # on disk as soon as it is saved
    got = open_dataset(tmp_path).episode(1)
    assert (got.task, got.seed, got.success, got.extra) == ("lift", 1, True, {"operator": "ada"})
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    assert stats["observation.images.top"]["count"] == [80]


def test_a_block_that_ends_saves_and_one_that_fails_discards(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path, FEATURES) as writer:
        with writer.begin() as recorder:
            record(recorder, 3)
        before = files(tmp_path)
        with pytest.raises(RuntimeError, match="stuck"), writer.begin() as recorder:
            record_until_stuck(recorder)
        assert files(tmp_path) == before
        with writer.begin() as recorder:
            record(recorder, 5, episode=1)
            recorder.discard()
            recorder.discard()  # twice is once
        assert files(tmp_path) == before
        with writer.begin() as recorder:
            record(recorder, 4, episode=1)
    assert open_dataset(tmp_path).lengths().tolist() == [3, 4]
    require_episode(tmp_path, 1, 4)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (0.0, 0.05, r"frame 1: timestamp: expected frame / fps = 0\.0333, .* got 0\.0500\. Record with Hdf5Writer"),
        (0.0, -1 / 30, r"frame 1: timestamp: expected seconds after 0\.0, got -0\.03"),
        (0.0, np.nan, r"frame 1: timestamp: expected seconds after 0\.0, got nan"),
        (0.0, None, r"frame 1: timestamp: expected one of every frame or of none"),
        (None, 1 / 30, r"frame 1: timestamp: expected one of every frame or of none"),
    ],
)
def test_times_that_cannot_be_kept_are_refused_at_once(
    tmp_path: Path, first: float | None, second: float | None, message: str
) -> None:
    with LeRobotWriter(tmp_path, FEATURES) as writer, writer.begin() as recorder:
        recorder.append(**frame(0), timestamp=first)
        with pytest.raises(DataError, match=message):
            recorder.append(**frame(1), timestamp=second)
        recorder.append(**frame(1), timestamp=None if first is None else 1.05 / 30)
    require_episode(tmp_path, 0, 2)


def test_what_is_appended_may_be_changed_at_once(tmp_path: Path) -> None:
    state, picture = np.zeros(2, np.float32), frame(0)["images"]
    with LeRobotWriter(tmp_path, FEATURES) as writer, writer.begin() as recorder:
        for number in range(20):
            state[:] = number, 0
            for array in picture.values():
                array[:] = 5 * number
            recorder.append(state=state, action=[-number, 5 * number], images=picture)
    require_episode(tmp_path, 0, 20)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"state": [1.0]}, FeatureMismatch, "state: expected 2 numbers, got shape (1,)."),
        ({"state": None}, FeatureMismatch, "state: expected 2 numbers, got none."),
        ({"action": ["a", "b"]}, FeatureMismatch, "action: expected 2 numbers, got list."),
        (
            {"action": [0.0, np.inf]},
            DataError,
            "action: dimension 1 (dy): expected a finite number, got inf. "
            "Mend what measures it, or discard the episode.",
        ),
        ({"images": {}}, FeatureMismatch, "cameras: expected ['top', 'wrist'], got []."),
        (
            {"images": frame(0)["images"] | {"top": np.zeros((48, 32, 3), np.uint8)}},
            FeatureMismatch,
            "camera 'top': expected uint8 of shape (32, 48, 3), got uint8 of (48, 32, 3).",
        ),
        (
            {"images": frame(0)["images"] | {"wrist": np.zeros((24, 24, 3), np.float32)}},
            FeatureMismatch,
            "camera 'wrist': expected uint8 of shape (24, 24, 3), got float32 of (24, 24, 3).",
        ),
    ],
)
def test_a_wrong_frame_is_refused_at_once(
    tmp_path: Path, change: Mapping[str, Any], error: type[Exception], message: str
) -> None:
    with LeRobotWriter(tmp_path, FEATURES) as writer, writer.begin() as recorder:
        record(recorder, 2)
        with pytest.raises(error) as caught:
            recorder.append(**{**frame(2), **change})
        assert str(caught.value) == f"Episode 0, frame 2: {message}"
        recorder.append(**frame(2))  # the wrong one was not added
    require_episode(tmp_path, 0, 3)


def test_use_out_of_order_is_refused(tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path, FEATURES)
    recorder = writer.begin()
    with pytest.raises(DataError, match=r"episode 0 is under way\. Save or discard it first\."):
        writer.begin()
    with pytest.raises(DataError, match="episode 0 is under way"):
        writer.finalize()
    with pytest.raises(DataError, match="Episode 0: expected at least 1 frame, got none"):
        recorder.save()
    with pytest.raises(DataError, match="Episode 0: expected an episode under way, got one that ended"):
        recorder.append(**frame(0))
    recorder = writer.begin()
    record(recorder, 1)
    with pytest.raises(DataError, match="extra: expected facts that JSON can hold"):
        recorder.save(extra={"arm": object()})
    writer.finalize()
    with pytest.raises(DataError, match="is finalized"):
        writer.begin()


def test_a_writer_that_fails_discards_what_is_under_way(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stuck"), LeRobotWriter(tmp_path, FEATURES) as writer:
        record_until_stuck(writer.begin())
    assert not list(tmp_path.rglob("*.mp4"))
    assert not any("encoder" in thread.name for thread in threading.enumerate())


def test_an_episode_that_was_forgotten_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught, LeRobotWriter(tmp_path, FEATURES) as writer:
        record(writer.begin(), 3)
    assert str(caught.value) == "LeRobotWriter: episode 0 was under way at the end. Save or discard it there."
    LeRobotWriter(tmp_path, FEATURES, resume=True).finalize()  # the directory is free


@pytest.fixture
def slow_encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Encoders that wait for the event before each frame, with room for 4 frames."""
    go = threading.Event()
    add = VideoFile.add

    def add_later(self: VideoFile, picture: np.ndarray) -> None:
        assert go.wait(10)
        add(self, picture)

    monkeypatch.setattr(background, "_MOST", 4)
    monkeypatch.setattr(VideoFile, "add", add_later)
    yield go
    go.set()


def test_append_waits_for_a_slow_encoder_and_drops_nothing(tmp_path: Path, slow_encoder: threading.Event) -> None:
    with LeRobotWriter(tmp_path, FEATURES) as writer, writer.begin() as recorder:
        record(recorder, 4)  # the buffer takes them
        assert recorder.waited_s == 0
        threading.Timer(0.3, slow_encoder.set).start()
        for number in range(4, 30):
            recorder.append(**frame(number))
        assert recorder.waited_s > 0.1
    require_episode(tmp_path, 0, 30)


def test_an_encoder_that_fails_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = VideoFile.add

    def fail_at_5(self: VideoFile, picture: np.ndarray) -> None:
        if len(self) == 5:
            raise OSError("the disk is gone")
        add(self, picture)

    with LeRobotWriter(tmp_path, FEATURES) as writer:
        with writer.begin() as recorder:
            record(recorder, 3)
        before = files(tmp_path)
        monkeypatch.setattr(VideoFile, "add", fail_at_5)
        with pytest.raises(OSError, match="the disk is gone"), writer.begin() as recorder:
            record(recorder, 1000)
        with pytest.raises(OSError, match="the disk is gone"), writer.begin() as recorder:
            record(recorder, 6)  # saved at the end of the block
        assert files(tmp_path) == before
    assert len(open_dataset(tmp_path)) == 1


def test_a_shorter_video_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = VideoFile.add
    monkeypatch.setattr(VideoFile, "add", lambda self, picture: add(self, picture) if picture[0, 0, 0] != 10 else None)
    with LeRobotWriter(tmp_path, FEATURES) as writer:
        with pytest.raises(DataError) as caught, writer.begin() as recorder:
            record(recorder, 6)
        assert str(caught.value) == (
            "Episode 0: camera 'top': expected 6 frames as there are actions, got 5. Record it again."
        )
        assert not list(tmp_path.rglob("*.mp4"))


def test_memory_is_bounded(tmp_path: Path, slow_encoder: threading.Event) -> None:
    """A camera's frames wait in the buffers that were made for them and nowhere else."""
    taken = []
    with LeRobotWriter(tmp_path, FEATURES) as writer, writer.begin() as recorder:
        thread = threading.Thread(target=lambda: taken.extend(recorder.append(**frame(n)) for n in range(9)))
        thread.start()
        time.sleep(0.2)
        assert len(recorder) == 4
        slow_encoder.set()
        thread.join()
    assert len(taken) == 9
    require_episode(tmp_path, 0, 9)


# A full disk


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the system refuses writes in the same places."""
    code = """
        import resource, sys
        sys.path.insert(0, {tests!r})
        import numpy as np
        from test_recorder import FEATURES, frame, record
        from menura.data import LeRobotWriter

        rng = np.random.default_rng(0)
        with LeRobotWriter({root!r}, FEATURES) as writer:
            with writer.begin() as recorder:
                record(recorder, 10)
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
            try:
                with writer.begin() as recorder:
                    for number in range(300):
                        noise = {{name: rng.integers(0, 256, image.shape, dtype=np.uint8)
                                 for name, image in frame(0)["images"].items()}}
                        recorder.append(**(frame(number) | {{"images": noise}}))
            except OSError as error:
                print(type(error).__name__, error.strerror)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            with writer.begin() as recorder:
                record(recorder, 7, episode=1)
    """
    for limit in (0, 3_000, 40_000, 200_000):
        root = tmp_path / str(limit)
        text = textwrap.dedent(code).format(tests=str(Path(__file__).parent), root=str(root), limit=limit)
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["OSError File too large"]
        assert open_dataset(root).lengths().tolist() == [10, 7]
        require_episode(root, 0, 10)
        require_episode(root, 1, 7)
        assert not list(root.rglob(".tmp-*"))


# Killed


RECORDING = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_recorder import FEATURES, record
    from menura.data import LeRobotWriter

    with LeRobotWriter({root!r}, FEATURES, resume=True) as writer:
        print(len(writer), flush=True)
        while True:
            with writer.begin() as recorder:
                record(recorder, 20 + len(writer), len(writer))
            print(len(writer), flush=True)
"""


def kill_while_recording(root: Path, after_s: float) -> None:
    """Records into `root` until killed; what was told to be on disk must be there, whole, and more may be added."""
    code = textwrap.dedent(RECORDING).format(tests=str(Path(__file__).parent), root=str(root))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline())]
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout if line.endswith("\n")]
    reader = open_dataset(root) if told[-1] or list(root.rglob("meta/episodes/*/file-*.parquet")) else []
    assert told[-1] <= len(reader) <= told[-1] + 1
    for episode in range(max(0, told[0] - 1), len(reader)):
        require_episode(root, episode, 20 + episode)


def test_killed_while_recording(tmp_path: Path) -> None:
    for after_s in (0.0, 0.13, 0.31):
        kill_while_recording(tmp_path, after_s)


@pytest.mark.slow
def test_killed_at_100_moments(tmp_path: Path) -> None:
    moments = random.Random(0)
    for number in range(100):
        kill_while_recording(tmp_path / str(number // 10), moments.uniform(0, 0.3))
