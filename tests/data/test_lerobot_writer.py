"""What is written is read back, each episode is durable, and a kill at any moment costs only the one under way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from menura.data import Episode, LeRobotReader, LeRobotWriter, compute_statistics, convert, open_dataset
from menura.data import rolling as rolling_module
from menura.errors import DataError, FeatureMismatch
from menura.features import CameraFeature, Features, VectorFeature

FEATURES = Features(
    state=VectorFeature(("x", "y", "cube"), units=("m", "m", "m"), object_names=("cube",)),
    action=VectorFeature(("dx", "dy")),
    cameras={"top": CameraFeature(32, 48, "fast"), "wrist.left": CameraFeature(40, 40, "fast")},
    fps=20.0,
    language=True,
    control_space="ee",
    control_type="delta",
    robot="sim",
)


def make_episode(index: int, length: int = 6, features: Features = FEATURES) -> Episode:
    rng = np.random.default_rng(index)
    images = {}
    for name, camera in features.cameras.items():
        y, x = np.mgrid[: camera.height, : camera.width]
        shade = (x * 3 + y * 2)[None] + np.arange(length)[:, None, None] * 5 + index
        images[name] = np.stack([shade, shade + 40, 255 - shade], axis=-1).clip(0, 255).astype(np.uint8)
    return Episode(
        state=rng.normal(size=(length, features.state_dim)),
        action=rng.normal(size=(length, features.action_dim)),
        images=images,
        task=("push", "lift")[index % 2],
        fps=features.fps,
        success=index % 3 != 0,
        seed=1000 + index,
        extra={"steps": [index]},
    )


def write(root: Path, lengths: list[int], **arguments: Any) -> None:
    with LeRobotWriter(root, FEATURES, **arguments) as writer:
        for index, length in enumerate(lengths):
            writer.add_episode(make_episode(index, length))


def assert_equal(got: Episode, wrote: Episode, worst_mean: float) -> None:
    np.testing.assert_array_equal(got.state, wrote.state)
    np.testing.assert_array_equal(got.action, wrote.action)
    assert (got.task, got.success, got.seed, got.extra) == (wrote.task, wrote.success, wrote.seed, wrote.extra)
    assert list(got.images) == list(wrote.images)
    for name, frames in wrote.images.items():
        difference = np.abs(np.asarray(got.images[name]).astype(int) - np.asarray(frames))
        assert difference.mean() <= worst_mean


@pytest.mark.parametrize(("arguments", "worst"), [({}, 2), ({"codec": "libsvtav1"}, 2), ({"video": False}, 0)])
def test_round_trip(tmp_path: Path, arguments: dict[str, Any], worst: float) -> None:
    write(tmp_path / "data", [6, 3, 9], **arguments)
    reader = open_dataset(tmp_path / "data")
    assert reader.features == FEATURES
    assert reader.name == "data"
    assert reader.lengths().tolist() == [6, 3, 9]
    for index, length in enumerate([6, 3, 9]):
        assert_equal(reader.episode(index), make_episode(index, length), worst)


def test_without_state_cameras_or_language(tmp_path: Path) -> None:
    features = Features(state=None, action=VectorFeature(("a",)), fps=12.5)
    with LeRobotWriter(tmp_path, features) as writer:
        writer.add_episode(Episode(state=None, action=[[1.0], [2.0]], fps=12.5))  # type: ignore[arg-type]
    reader = open_dataset(tmp_path)
    assert reader.features == features
    assert reader.episode(0).action.tolist() == [[1.0], [2.0]]
    assert reader.episode(0).state.shape == (2, 0)
    assert reader.episode(0).task == ""


def test_the_tree_is_a_lerobot_dataset(tmp_path: Path) -> None:
    """Facts of the format, as LeRobot 0.6's reader needs them."""
    write(tmp_path, [6, 3])
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 9, 2)
    assert info["fps"] == 20
    assert isinstance(info["fps"], int)
    assert info["splits"] == {"train": "0:2"}
    assert info["features"]["observation.images.wrist.left"]["shape"] == [40, 40, 3]
    assert info["features"]["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}

    data = pq.ParquetFile(tmp_path / "data/chunk-000/file-000.parquet")
    assert data.metadata.num_row_groups == 2
    table = data.read()
    assert str(table.schema.field("observation.state").type) == "fixed_size_list<element: float>[3]"
    assert table.column("index").to_pylist() == list(range(9))
    assert table.column("frame_index").to_pylist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert table.column("task_index").to_pylist() == [0] * 6 + [1] * 3
    assert table.column("timestamp").to_pylist()[1] == pytest.approx(0.05)
    described = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert described["action"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": 2, "_type": "List"}
    assert "observation.images.top" not in table.column_names

    tasks = pq.read_table(tmp_path / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["push", "lift"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]

    episodes = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in episodes] == [(0, 6), (6, 9)]
    assert episodes[1]["videos/observation.images.top/file_index"] == 1
    assert episodes[1]["videos/observation.images.top/to_timestamp"] == pytest.approx(0.15)
    assert episodes[1]["stats/action/count"] == [3]
    assert np.shape(episodes[1]["stats/observation.images.top/mean"]) == (3, 1, 1)


def test_statistics_of_the_dataset(tmp_path: Path) -> None:
    write(tmp_path, [6, 3, 9], video=False)
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    episodes = [make_episode(index, length) for index, length in enumerate([6, 3, 9])]
    for key, rows in (
        ("observation.state", np.concatenate([episode.state for episode in episodes])),
        ("action", np.concatenate([episode.action for episode in episodes])),
    ):
        exact = compute_statistics(rows)
        assert stats[key]["count"] == [18]
        for name in ("mean", "std", "min", "max", "q01", "q99"):
            np.testing.assert_allclose(stats[key][name], getattr(exact, name), rtol=1e-9)
    pixels = np.concatenate([np.asarray(episode.images["top"]) for episode in episodes]) / 255
    image = stats["observation.images.top"]
    np.testing.assert_allclose(np.reshape(image["mean"], 3), pixels.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.reshape(image["std"], 3), pixels.std(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.reshape(image["max"], 3), pixels.max(axis=(0, 1, 2)))


@pytest.mark.parametrize("name", ["lerobot_v3_image", "lerobot_v3_many_files", "lerobot_v3_video"])
def test_statistics_agree_with_those_of_lerobot(tmp_path: Path, fixtures: Path, name: str) -> None:
    """Of the same episodes, written by LeRobot and by us; the quantiles are others by definition."""
    features = json.loads((fixtures / name / "meta/info.json").read_text())["features"]
    theirs = json.loads((fixtures / name / "meta/stats.json").read_text())
    made = convert(fixtures / name, tmp_path / "made", lossless=True, progress=False)
    ours = json.loads((made / "meta/stats.json").read_text())
    assert {"observation.state", "action", "timestamp", "frame_index", "episode_index", "index"} <= ours.keys()
    for key in ours.keys() & theirs.keys():
        kind = features[key]["dtype"]
        fields, tolerance = ("min", "max", "mean", "std"), 0.01
        if kind == "video":
            fields = ("mean", "std")  # theirs are of the pictures before these were encoded
        elif kind != "image":
            assert ours[key]["count"] == theirs[key]["count"], key
            tolerance = 1e-5 * max(1.0, np.abs(theirs[key]["max"]).max())
        for field in fields:
            np.testing.assert_allclose(ours[key][field], theirs[key][field], atol=tolerance, err_msg=f"{key} {field}")


def test_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and chunks roll over, with and without a resume between."""
    monkeypatch.setattr(rolling_module, "_EPISODES_PER_FILE", 2)
    monkeypatch.setattr(rolling_module, "FILES_PER_CHUNK", 2)
    write(tmp_path / "once", [3] * 11, video=False)
    assert (tmp_path / "once/data/chunk-002/file-001.parquet").exists()
    for index in range(11):
        with LeRobotWriter(tmp_path / "often", FEATURES, video=False, resume=True) as writer:
            writer.add_episode(make_episode(index, 3))
    for name in ("once", "often"):
        reader = open_dataset(tmp_path / name)
        assert len(reader) == 11
        for index in range(11):
            assert_equal(reader.episode(index), make_episode(index, 3), 0)
    assert (tmp_path / "once/meta/stats.json").read_bytes() == (tmp_path / "often/meta/stats.json").read_bytes()
    assert [episode.seed for episode in map(open_dataset(tmp_path / "often").episode, range(11))] == list(
        range(1000, 1011)
    )


def test_resume(tmp_path: Path) -> None:
    write(tmp_path, [6, 3])
    with LeRobotWriter(tmp_path, FEATURES, resume=True) as writer:
        assert len(writer) == 2
        writer.add_episode(make_episode(2, 4))
    reader = open_dataset(tmp_path)
    assert reader.lengths().tolist() == [6, 3, 4]
    assert_equal(reader.episode(0), make_episode(0, 6), 2)
    assert_equal(reader.episode(2), make_episode(2, 4), 2)


def test_resume_begins_where_nothing_is(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "new", FEATURES, resume=True) as writer:
        writer.add_episode(make_episode(0))
    assert len(open_dataset(tmp_path / "new")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": replace(FEATURES, fps=30.0)}, "features.fps: expected 20.0 as {root} has, got 30.0."),
        (
            {"features": replace(FEATURES, control_type="abs")},
            "features.control_type: expected delta as {root} has, got abs.",
        ),
        ({"video": False}, "codec: expected libx264 as {root} has, got None."),
        ({"robot": "ur5"}, "robot: expected sim as {root} has, got ur5."),
    ],
)
def test_resume_refuses_other_features(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    write(tmp_path, [3])
    with pytest.raises(FeatureMismatch) as caught:
        LeRobotWriter(tmp_path, **({"features": FEATURES, "resume": True} | arguments))
    assert str(caught.value) == f"LeRobotWriter: resume: {message.format(root=tmp_path)} Choose a new directory."
    write_more = LeRobotWriter(tmp_path, FEATURES, resume=True)  # the refusal let go of the directory
    write_more.finalize()


def test_resume_after_another_program_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [3])
    path = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(DataError) as caught:
        LeRobotWriter(tmp_path, FEATURES, resume=True)
    assert str(caught.value) == (
        f"{path}: expected a table of LeRobotWriter, got one of another program. Go on with that one."
    )


def test_existing_directories(tmp_path: Path) -> None:
    write(tmp_path / "data", [3])
    with pytest.raises(DataError) as caught:
        LeRobotWriter(tmp_path / "data", FEATURES)
    assert str(caught.value) == (
        f"LeRobotWriter: expected a new or empty directory, got {tmp_path / 'data'} with files in it. "
        f"Choose another one, or go on with it by resume=True."
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(DataError) as caught:
        LeRobotWriter(tmp_path / "other", FEATURES, resume=True)
    assert "expected a dataset of LeRobotWriter" in str(caught.value)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path, FEATURES)
    with pytest.raises(DataError) as caught:
        LeRobotWriter(tmp_path, FEATURES, resume=True)
    assert str(caught.value) == f"LeRobotWriter: {tmp_path} is being written by another process. Wait for it."
    writer.finalize()
    with pytest.raises(DataError, match="is finalized"):
        writer.add_episode(make_episode(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: replace(e, state=e.state[:, :2]),
            "Episode 1, frame 0: state: expected 3 numbers, got shape (2,).",
        ),
        (
            lambda e: replace(e, fps=30, timestamps=None),
            "Episode 1: fps: expected 20.0 as the dataset has, got 30. Resample it.",
        ),
        (
            lambda e: replace(e, images={"top": e.images["top"]}),
            "Episode 1, frame 0: cameras: expected ['top', 'wrist.left'], got ['top'].",
        ),
        (
            lambda e: replace(e, images=dict(e.images) | {"top": np.zeros((6, 48, 32, 3), np.uint8)}),
            "Episode 1, frame 0: camera 'top': expected uint8 of shape (32, 48, 3), got uint8 of (48, 32, 3).",
        ),
    ],
)
def test_other_episodes_are_refused(tmp_path: Path, change: Callable[[Episode], Episode], message: str) -> None:
    with LeRobotWriter(tmp_path, FEATURES) as writer:
        writer.add_episode(make_episode(0))
        with pytest.raises(FeatureMismatch) as caught:
            writer.add_episode(change(make_episode(1)))
        assert str(caught.value) == message
        writer.add_episode(make_episode(1))
    assert len(open_dataset(tmp_path)) == 2


def test_bad_values_and_times_are_refused(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path, FEATURES) as writer:
        episode = make_episode(0)
        state = episode.state.copy()
        state[4, 1] = np.nan
        with pytest.raises(DataError) as caught:
            writer.add_episode(replace(episode, state=state))
        assert str(caught.value) == (
            "Episode 0, frame 4: state: dimension 1 (y): expected a finite number, got nan. "
            "Mend what measures it, or discard the episode."
        )
        with pytest.raises(DataError, match=r"Episode 0: timestamps: expected frame / fps"):
            writer.add_episode(replace(episode, timestamps=np.arange(6) / 19.0))


class FailingFrames:
    """Frames whose source breaks in the middle."""

    shape = (6, 32, 48, 3)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> np.ndarray:
        if index == 3:
            raise OSError("unplugged")
        return np.zeros((32, 48, 3), np.uint8)


def test_a_failure_within_an_episode_leaves_no_trace(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path, FEATURES) as writer:
        writer.add_episode(make_episode(0))
        broken = replace(make_episode(1), images=dict(make_episode(1).images) | {"top": FailingFrames()})
        with pytest.raises(OSError, match="unplugged"):
            writer.add_episode(broken)
        writer.add_episode(make_episode(2))
    reader = open_dataset(tmp_path)
    assert len(reader) == 2
    assert_equal(reader.episode(1), make_episode(2), 2)
    assert not list(tmp_path.rglob(".tmp-*"))


# Killed


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    import menura.data.writer as writer_module
    from test_lerobot_writer import FEATURES, make_episode
    from pathlib import Path

    steps = 0

    def step():
        global steps
        steps += 1
        if steps == {step}:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(replace):
        def replace_and_count(self, target):
            step()  # written, not yet renamed
            result = replace(self, target)
            step()  # renamed, nothing after it
            return result
        return replace_and_count

    Path.replace = counted(Path.replace)
    with writer_module.LeRobotWriter({root!r}, FEATURES, video={video}) as writer:
        for index in range(3):
            writer.add_episode(make_episode(index))
            print(index, flush=True)
"""


def run_and_kill(root: Path, step: int, video: bool) -> int:
    """How many episodes it told of before it was killed."""
    code = textwrap.dedent(KILLED).format(root=str(root), step=step, video=video, tests=str(Path(__file__).parent))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    return len(result.stdout.splitlines())


# An odd step is before a rename, an even one after it. With video: 1 and 3 are the first files of the tree; 5 and 7 the
# videos of episode 0, 9 its rows, 11 the tasks, 13 the commit, 15 the counts; 17 … 27 the same of episode 1; 29 … 37 of
# episode 2, which has no new task. Without video: 5 … 11, 13 … 19, 21 … 25.
@pytest.mark.parametrize(
    ("step", "video", "committed"),
    [(step, True, 0) for step in (1, 3, 4, 5, 6, 9, 10, 12, 13)]
    + [(step, True, 1) for step in (14, 15, 16, 18, 22, 25)]
    + [(step, True, 2) for step in (26, 29, 34, 35)]
    + [(36, True, 3), (9, False, 0), (10, False, 1), (14, False, 1), (23, False, 2), (24, False, 3)],
)
def test_killed_at_any_moment(tmp_path: Path, step: int, video: bool, committed: int) -> None:
    root = tmp_path / "data"
    finished = run_and_kill(root, step, video)
    assert committed - 1 <= finished <= committed  # an episode counts from its commit on
    worst = 2 if video else 0
    if committed:
        reader = open_dataset(root)
        assert len(reader) == committed
        for index in range(committed):
            assert_equal(reader.episode(index), make_episode(index), worst)
    elif (root / "meta/info.json").exists():
        with pytest.raises(DataError, match="No episode was finished"):
            open_dataset(root)
    with LeRobotWriter(root, FEATURES, video=video, resume=True) as writer:
        for index in range(len(writer), 4):
            writer.add_episode(make_episode(index))
    reader = open_dataset(root)
    assert len(reader) == 4
    for index in range(4):
        assert_equal(reader.episode(index), make_episode(index), worst)
    assert not list(root.rglob(".tmp-*"))
    whole = tmp_path / "whole"
    write(whole, [6] * 4, video=video)
    for name in ("meta/info.json", "meta/stats.json"):
        assert (root / name).read_bytes() == (whole / name).read_bytes()
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.*"))
    assert sorted(path.relative_to(root) for path in root.rglob("*.*")) == files


def test_resume_removes_what_a_kill_left(tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert run_and_kill(root, 22, video=True) == 1
    videos = root / "videos/observation.images.top/chunk-000"
    assert len(list(videos.glob("*.mp4"))) == 2
    LeRobotWriter(root, FEATURES, resume=True).finalize()
    assert len(list(videos.glob("*.mp4"))) == 1
    assert open_dataset(root).lengths().tolist() == [6]


def test_reader_is_what_recognises_it(tmp_path: Path) -> None:
    write(tmp_path, [3])
    assert isinstance(open_dataset(tmp_path), LeRobotReader)
