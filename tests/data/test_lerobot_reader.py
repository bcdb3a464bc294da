"""LeRobotDataset v3.0 as LeRobot wrote it, as others may write it, and as damage leaves it."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from menura.data import Episode, LeRobotReader, LeRobotWriter, open_dataset
from menura.data.encoding import encode_video
from menura.errors import DataError
from menura.features import CameraFeature, Features, VectorFeature

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lerobot"
GOLDEN = ("lerobot_v3_video", "lerobot_v3_image", "lerobot_v3_many_files", "lerobot_v21")


# Written by LeRobot 0.6.1, and the last by 0.3.3


@pytest.mark.parametrize("name", GOLDEN)
def test_tables_equal_what_was_written(name: str) -> None:
    reader, golden = open_dataset(FIXTURES / name), np.load(FIXTURES / f"{name}.golden.npz")
    for index in range(len(reader)):
        episode = reader.episode(index)
        np.testing.assert_array_equal(episode.state, golden[f"state_{index}"])
        np.testing.assert_array_equal(episode.action, golden[f"action_{index}"])
        assert len(episode) == reader.lengths()[index]


@pytest.mark.parametrize("name", GOLDEN)
def test_items_equal_what_lerobot_reads(name: str) -> None:
    """Frames -1 and 0, actions 0 … 7, task and time at each golden index."""
    reader, golden = open_dataset(FIXTURES / name), np.load(FIXTURES / f"{name}.golden.npz")
    starts = np.concatenate([[0], np.cumsum(reader.lengths())])
    for item in golden["indices"]:
        index = int(np.searchsorted(starts, item, side="right")) - 1
        episode, step = reader.episode(index), int(item - starts[index])
        assert episode.task == str(golden[f"{item}/task"])
        assert np.float32(episode.timestamps[step]) == golden[f"{item}/timestamp"]  # type: ignore[index]
        steps = np.minimum(np.arange(step, step + 8), len(episode) - 1)
        np.testing.assert_array_equal(episode.action[steps], golden[f"{item}/action"])
        for camera, frames in episode.images.items():
            expected = golden[f"{item}/observation.images.{camera}"].transpose(0, 2, 3, 1).astype(int)
            assert np.abs(frames[[max(step - 1, 0), step]] - expected).mean() <= 2


def test_features_of_the_video_fixture() -> None:
    reader = LeRobotReader(FIXTURES / "lerobot_v3_video")
    assert reader.features == Features(
        state=VectorFeature(tuple(f"s{i}" for i in range(6))),
        action=VectorFeature(tuple(f"a{i}" for i in range(4))),
        cameras={"top": CameraFeature(96, 96), "wrist": CameraFeature(64, 80)},
        fps=10.0,
        language=True,
        robot="sim",
    )
    assert [reader.episode(i).task for i in range(3)] == ["push the block", "lift the block", "push the block"]


@pytest.mark.parametrize("name", GOLDEN)
def test_frames_are_the_same_however_asked_for(name: str) -> None:
    episode = open_dataset(FIXTURES / name).episode(1)
    for frames in episode.images.values():
        whole = np.asarray(frames)
        assert whole.shape == frames.shape
        assert whole.dtype == np.uint8
        np.testing.assert_array_equal(np.stack(list(frames)), whole)  # type: ignore[call-overload]
        np.testing.assert_array_equal(frames[::-3], whole[::-3])
        np.testing.assert_array_equal(frames[len(frames) - 1], whole[-1])


# Written as others write


FEATURES = Features(
    state=VectorFeature(("x", "y")),
    action=VectorFeature(("dx",)),
    cameras={"top": CameraFeature(16, 24)},
    fps=10.0,
    language=True,
)


def write(root: Path, lengths: tuple[int, ...] = (4, 3), *, video: bool = True) -> Path:
    with LeRobotWriter(root, FEATURES, video=video) as writer:
        for number, length in enumerate(lengths):
            frames = np.full((length, 16, 24, 3), 20 * number, np.uint8)
            frames += np.arange(length, dtype=np.uint8)[:, None, None, None] * 8
            writer.add_episode(
                Episode(
                    state=np.arange(length * 2).reshape(length, 2) + 100 * number,
                    action=np.arange(length).reshape(length, 1),
                    images={"top": frames},
                    task="push",
                    fps=10,
                )
            )
    return root


def edit_info(root: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))


def edit_table(path: Path, edit: Callable[[pa.Table], pa.Table], **arguments: Any) -> None:
    table = pq.read_table(path)
    pq.write_table(edit(table).replace_schema_metadata(table.schema.metadata), path, **arguments)


DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"


def test_shape_one_is_a_scalar_on_disk(tmp_path: Path) -> None:
    write(tmp_path)
    assert pq.read_schema(tmp_path / DATA).field("action").type == pa.float32()
    assert LeRobotReader(tmp_path).episode(0).action.shape == (4, 1)


def test_some_episodes_in_another_order(tmp_path: Path) -> None:
    reader = LeRobotReader(write(tmp_path, (4, 3, 5)), episodes=[2, 0])
    assert len(reader) == 2
    assert reader.lengths().tolist() == [5, 4]
    assert reader.episode(0).state[0].tolist() == [200, 201]
    with pytest.raises(IndexError, match="expected an episode in 0 … 1, got 2"):
        reader.episode(2)
    with pytest.raises(DataError) as caught:
        LeRobotReader(tmp_path, episodes=[1, 3])
    assert str(caught.value) == f"{tmp_path}: episodes: expected some of 0 … 2, got [3]."


def test_joined_and_renamed_keys(tmp_path: Path) -> None:
    write(tmp_path)
    edit_table(
        tmp_path / DATA,
        lambda table: (
            table.append_column("observation.effort", pa.array(np.arange(7, dtype=np.float64)))
            .append_column("note", pa.array(["hello"] * 7))
            .append_column("action.ee", table.column("observation.state"))
        ),
        row_group_size=2,
    )

    def declare(info: dict[str, Any]) -> None:
        info["features"]["observation.effort"] = {"dtype": "float64", "shape": [1], "names": ["effort"]}
        info["features"]["note"] = {"dtype": "string", "shape": [1], "names": None}
        info["features"]["action.ee"] = {"dtype": "float32", "shape": [2], "names": {"motors": ["u", "v"]}}

    edit_info(tmp_path, declare)
    reader = LeRobotReader(tmp_path, keys={"state": ["observation.state", "observation.effort"], "action": "action.ee"})
    assert reader.features.state == VectorFeature(("x", "y", "effort"))
    assert reader.features.action == VectorFeature(("u", "v"))
    assert reader.episode(1).state.tolist() == [[100, 101, 4], [102, 103, 5], [104, 105, 6]]
    assert reader.episode(1).action.tolist() == [[100, 101], [102, 103], [104, 105]]
    assert LeRobotReader(tmp_path, keys={"state": []}).features.state is None
    assert LeRobotReader(tmp_path, keys={"state": []}).episode(0).state.shape == (4, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"state": "observation.stat"},
            "{info}: expected a vector feature 'observation.stat' as state, got ['observation.state', 'action']; "
            "did you mean observation.state? Say which: keys.state.",
        ),
        (
            {"action": "controls"},
            "{info}: expected a vector feature 'controls' as action, got ['observation.state', 'action']. "
            "Say which: keys.action.",
        ),
        ({"images": ["tap"]}, "{root}: expected cameras among ['top'], got 'tap'; did you mean top?"),
    ],
)
def test_keys_that_are_not_there(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    write(tmp_path)
    with pytest.raises(DataError) as caught:
        LeRobotReader(tmp_path, keys=arguments)
    assert str(caught.value) == message.format(info=tmp_path / "meta/info.json", root=tmp_path)


def test_default_state_under_another_name(tmp_path: Path) -> None:
    write(tmp_path)
    edit_table(tmp_path / DATA, lambda table: table.rename_columns(["observation.qpos", *table.column_names[1:]]))
    edit_info(
        tmp_path,
        lambda info: info["features"].update({"observation.qpos": info["features"].pop("observation.state")}),
    )
    with pytest.raises(DataError, match=r"got \['action', 'observation.qpos'\].* Say which: keys.state"):
        LeRobotReader(tmp_path)
    assert LeRobotReader(tmp_path, keys={"state": "observation.qpos"}).episode(0).state.shape == (4, 2)


def test_cameras_by_name_or_key(tmp_path: Path) -> None:
    write(tmp_path)
    assert list(LeRobotReader(tmp_path, keys={"images": ["top"]}).features.cameras) == ["top"]
    assert list(LeRobotReader(tmp_path, keys={"images": ["observation.images.top"]}).features.cameras) == ["top"]
    assert list(LeRobotReader(tmp_path, keys={"images": []}).episode(0).images) == []


def test_depth_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    write(tmp_path)
    edit_info(tmp_path, lambda info: info["features"]["observation.images.top"]["info"].update(is_depth_map=True))
    assert list(LeRobotReader(tmp_path).features.cameras) == []
    with pytest.raises(DataError) as caught:
        LeRobotReader(tmp_path, keys={"images": ["top"]})
    assert str(caught.value) == (
        f"{tmp_path}: camera 'top': expected RGB, got a depth map. Leave it out of keys.images."
    )


def test_sizes_declared_channels_first(tmp_path: Path) -> None:
    write(tmp_path)
    edit_info(
        tmp_path,
        lambda info: info["features"]["observation.images.top"].update(
            shape=[3, 16, 24], names=["channels", "height", "width"]
        ),
    )
    assert LeRobotReader(tmp_path).episode(0).images["top"][:].shape == (4, 16, 24, 3)


def test_no_language(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "meta/tasks.parquet").unlink()
    edit_table(tmp_path / EPISODES, lambda table: table.drop_columns(["tasks"]))
    reader = LeRobotReader(tmp_path)
    assert not reader.features.language
    assert reader.episode(0).task == ""


def test_one_video_file_for_all_episodes(tmp_path: Path) -> None:
    """As LeRobot lays them out: `from_timestamp` says where an episode begins, rounded as a sum of durations is."""
    write(tmp_path, (4, 3))
    reader = LeRobotReader(tmp_path)
    frames = np.concatenate([np.asarray(reader.episode(i).images["top"]) for i in range(2)])
    encode_video(tmp_path / VIDEO, frames, fps=10, height=16, width=24, codec="libx264")

    def one_file(table: pa.Table) -> pa.Table:
        key = "videos/observation.images.top/"
        for name, values in (
            ("file_index", [0, 0]),
            ("from_timestamp", [0.0, 0.4000007]),
            ("to_timestamp", [0.4, 0.7]),
        ):
            table = table.set_column(table.column_names.index(key + name), key + name, pa.array(values))
        return table

    edit_table(tmp_path / EPISODES, one_file)
    joined = LeRobotReader(tmp_path).episode(1).images["top"]
    assert np.abs(np.asarray(joined).astype(int) - frames[4:]).mean() <= 2
    assert abs(int(joined[0].mean()) - 20) <= 2


def test_own_facts_do_not_need_the_file(tmp_path: Path) -> None:
    """Without `meta/menura.json` (copied by a tool that does not know it) a dataset is still one."""
    write(tmp_path)
    (tmp_path / "meta/menura.json").unlink()
    assert LeRobotReader(tmp_path).features == FEATURES


def with_columns(root: Path, **columns: tuple[pa.Array, dict[str, Any]]) -> Path:
    """A dataset of 7 frames with further features: key -> (column, what meta/info.json says of it)."""
    write(root)

    def append(table: pa.Table) -> pa.Table:
        for key, (column, _) in columns.items():
            table = table.append_column(key, column)
        return table

    edit_table(root / DATA, append)
    edit_info(root, lambda info: info["features"].update({key: spec for key, (_, spec) in columns.items()}))
    return root


def test_features_of_every_kind(tmp_path: Path) -> None:
    """Those that nobody names are left alone; any numbers may be named."""
    grid = np.arange(7 * 6, dtype=np.float32).reshape(7, 2, 3)
    with_columns(
        tmp_path,
        flags=(pa.array([[True, False]] * 7, pa.list_(pa.bool_(), 2)), {"dtype": "bool", "shape": [2], "names": None}),
        counts=(pa.array([[3]] * 7, pa.list_(pa.int64())), {"dtype": "int64", "shape": [1], "names": ["count"]}),
        done=(pa.array([False, True] * 3 + [True]), {"dtype": "bool", "shape": [1], "names": None}),
        grid=(pa.array(grid.tolist()), {"dtype": "float32", "shape": [2, 3], "names": None}),
        language_events=(
            pa.array([[{"role": "user", "content": "now"}]] * 7),
            {"dtype": "language", "shape": [1], "names": None},
        ),
        words=(pa.array([f"word {i}" for i in range(7)]), {"dtype": "string", "shape": [1], "names": None}),
    )
    plain = LeRobotReader(tmp_path)
    assert plain.features == FEATURES
    assert plain.episode(1).task == "push"
    reader = LeRobotReader(tmp_path, keys={"state": ["flags", "counts", "done", "grid"], "task": "words"})
    assert reader.features.state is not None
    assert reader.features.state.names == ("flags_0", "flags_1", "count", "done_0", *(f"grid_{i}" for i in range(6)))
    state = reader.episode(1).state
    np.testing.assert_array_equal(state[:, :4], [[1, 0, 3, 0], [1, 0, 3, 1], [1, 0, 3, 1]])
    np.testing.assert_array_equal(state[:, 4:], grid[4:].reshape(3, 6))
    assert reader.episode(1).task == "word 4"
    with pytest.raises(DataError) as caught:
        LeRobotReader(tmp_path, keys={"task": "word"})
    assert str(caught.value) == (
        f"{tmp_path / 'meta/info.json'}: keys.task: expected a feature of texts, one of ['words'], got 'word'; "
        f"did you mean words? Leave keys.task out for the dataset's own tasks."
    )
    for key in ("language_events", "words", "observation.images.top", "index"):
        with pytest.raises(DataError, match=f"expected a vector feature '{key}' as state"):
            LeRobotReader(tmp_path, keys={"state": key})


def test_an_instruction_that_changes(tmp_path: Path) -> None:
    """The task is that of the first frame; all are in the metadata."""
    write(tmp_path)
    tasks = pa.table({"task_index": [0, 1], "task": ["push", "pull"]})
    pq.write_table(tasks, tmp_path / "meta/tasks.parquet")

    def changing(table: pa.Table) -> pa.Table:
        place = table.column_names.index("task_index")
        return table.set_column(place, "task_index", pa.array([1, 1, 0, 0, 0, 0, 0]))

    edit_table(tmp_path / DATA, changing)

    def named(table: pa.Table) -> pa.Table:
        place = table.column_names.index("tasks")
        return table.set_column(place, "tasks", pa.array([["pull", "push"], ["push"]]))

    edit_table(tmp_path / EPISODES, named)
    reader = LeRobotReader(tmp_path)
    assert [reader.episode(i).task for i in range(2)] == ["pull", "push"]
    assert reader.metadata(0)["tasks"] == ["pull", "push"]
    assert "tasks" not in reader.metadata(1)


def test_times_are_those_of_the_file(tmp_path: Path) -> None:
    write(tmp_path)
    times = np.array([0, 0.1, 0.25, 0.3, 0, 0.1, 0.2], np.float32)

    def late(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index("timestamp"), "timestamp", pa.array(times))

    edit_table(tmp_path / DATA, late)
    np.testing.assert_array_equal(LeRobotReader(tmp_path).episode(0).timestamps, times[:4])  # type: ignore[arg-type]


def test_two_cameras_whose_keys_end_alike(tmp_path: Path) -> None:
    write(tmp_path, video=False)
    edit_table(tmp_path / DATA, lambda table: table.append_column("observation.top", table["observation.images.top"]))
    edit_info(
        tmp_path,
        lambda info: info["features"].update({"observation.top": info["features"]["observation.images.top"]}),
    )
    reader = LeRobotReader(tmp_path)
    assert list(reader.features.cameras) == ["top", "observation.top"]
    np.testing.assert_array_equal(*(frames[:] for frames in reader.episode(1).images.values()))
    assert list(LeRobotReader(tmp_path, keys={"images": ["observation.top"]}).features.cameras) == ["observation.top"]


@pytest.mark.parametrize(
    ("shape", "names"), [([16, 24], None), ([16, 24, 1], ["height", "width", "channels"]), ([16, 24, 4], None)]
)
def test_cameras_without_colours_are_left_out(tmp_path: Path, shape: list[int], names: list[str] | None) -> None:
    write(tmp_path)
    edit_info(tmp_path, lambda info: info["features"]["observation.images.top"].update(shape=shape, names=names))
    assert LeRobotReader(tmp_path).features.cameras == {}


# Many episodes, processes, changes


def test_ten_thousand_episodes(tmp_path: Path) -> None:
    write(tmp_path, (2,))
    only = pq.read_table(tmp_path / EPISODES).to_pylist()[0]
    rows = [dict(only) for _ in range(10_000)]
    for number, row in enumerate(rows):
        row["episode_index"] = number
        row["dataset_from_index"], row["dataset_to_index"] = 2 * number, 2 * number + 2
        row["data/file_index"] = number
    schema = pq.read_schema(tmp_path / EPISODES).remove_metadata()
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / EPISODES)
    edit_info(tmp_path, lambda info: info.update(total_episodes=10_000))
    reader = LeRobotReader(tmp_path)
    assert reader.lengths().sum() == 20_000
    assert reader.episode(0).state.shape == (2, 2)


@pytest.mark.parametrize("video", [True, False])
def test_pickles_with_its_episodes(tmp_path: Path, video: bool) -> None:
    reader = LeRobotReader(write(tmp_path, video=video))
    episode = reader.episode(0)
    again = pickle.loads(pickle.dumps((reader, episode)))
    np.testing.assert_array_equal(again[0].episode(1).state, reader.episode(1).state)
    np.testing.assert_array_equal(again[1].images["top"][:], episode.images["top"][:])


def test_fingerprint(tmp_path: Path) -> None:
    write(tmp_path)
    first = LeRobotReader(tmp_path).fingerprint()
    assert LeRobotReader(tmp_path).fingerprint() == first
    assert LeRobotReader(tmp_path, episodes=[0]).fingerprint() != first
    assert LeRobotReader(tmp_path, keys={"images": []}).fingerprint() != first
    (tmp_path / ".menura.lock").touch()
    (tmp_path / "data/chunk-000/.tmp-1-file-000.parquet").touch()
    assert LeRobotReader(tmp_path).fingerprint() == first
    os.utime(tmp_path / VIDEO, ns=(0, 0))
    assert LeRobotReader(tmp_path).fingerprint() != first


# Damage


def use(root: Path) -> None:
    reader = LeRobotReader(root)
    for index in range(len(reader)):
        for frames in reader.episode(index).images.values():
            np.asarray(frames)


def cut(path: Path, keep: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def drop_last_row(path: Path) -> None:
    edit_table(path, lambda table: table.slice(0, len(table) - 1))


def swap_episodes(path: Path) -> None:
    edit_table(path, lambda table: table.take([1, 0]))


def replace_column(name: str, values: Callable[[pa.Table], Any]) -> Callable[[Path], None]:
    def edit(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, pa.array(values(table)))

    return lambda path: edit_table(path, edit)


def shorter_video(path: Path) -> None:
    encode_video(path, np.zeros((3, 16, 24, 3), np.uint8), fps=10, height=16, width=24, codec="libx264")


def slower_video(path: Path) -> None:
    encode_video(path, np.zeros((4, 16, 24, 3), np.uint8), fps=5, height=16, width=24, codec="libx264")


def smaller_video(path: Path) -> None:
    encode_video(path, np.zeros((4, 8, 12, 3), np.uint8), fps=10, height=8, width=12, codec="libx264")


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("meta/info.json", Path.unlink, "{path}: expected a file, found none. Fetch the dataset again."),
        ("meta/info.json", cut, r"{path}: not JSON \(.*\). Fetch the file again."),
        (DATA, Path.unlink, "{path}: expected a file, found none. Fetch the dataset again."),
        (DATA, cut, r"{path}: damaged or cut off \(.*\). Fetch the file again."),
        (
            DATA,
            drop_last_row,
            "{path}: expected rows 4 … 6 to be the 3 frames of episode 1, got 2 of them. Fetch the dataset again.",
        ),
        (
            DATA,
            replace_column("episode_index", lambda table: [0, 0, 0, 1, 1, 1, 1]),
            "{path}: expected rows 0 … 3 to be the 4 frames of episode 0, got 3 of them. Fetch the dataset again.",
        ),
        (
            DATA,
            replace_column("action", lambda table: [[1.0, 2.0]] * 7),
            r"{root}: episode 0: action: expected 1 numbers a frame as meta/info.json says, "
            r"got list<element: double>. Fetch the dataset again.",
        ),
        (
            DATA,
            lambda path: edit_table(path, lambda table: table.drop_columns(["action"])),
            r"{path}: expected columns \['action'\] as meta/info.json says, got \[.*\]. Fetch the dataset again.",
        ),
        (
            EPISODES,
            Path.unlink,
            r"{root}/meta/episodes: expected chunk-\*/file-\*.parquet, found none. "
            r"No episode was finished here, or not everything was fetched.",
        ),
        (EPISODES, cut, r"{path}: damaged or cut off \(.*\). Fetch the file again."),
        (
            EPISODES,
            drop_last_row,
            "{root}: meta/info.json counts 2 episodes, meta/episodes holds 1. "
            "The recording was cut off; fetch the dataset again.",
        ),
        (
            EPISODES,
            swap_episodes,
            "{root}/meta/episodes: expected row 0 to be episode 0, got episode 1. "
            "A file of the table is missing or doubled; fetch the dataset again.",
        ),
        (VIDEO, Path.unlink, "Video {path}: expected a file, found none. Fetch it again or remove its episodes."),
        (
            VIDEO,
            cut,
            r"Video {path}: (cannot be opened \(.*\)|expected a video stream, got none). "
            r"Fetch it again or remove its episodes.",
        ),
        (
            VIDEO,
            shorter_video,
            "{path}: episode 0, camera 'top': expected frames 0 … 3, got a file of 3 frames. Fetch the dataset again.",
        ),
        (
            VIDEO,
            slower_video,
            "{path}: episode 0, camera 'top': expected frame 3 at 0.3000 s, got it at 0.6000 s. "
            "The video does not run at the dataset's 10 frames per second; encode it again.",
        ),
        (
            VIDEO,
            smaller_video,
            "{path}: episode 0, camera 'top': expected 16 x 24 pixels as meta/info.json says, got 8 x 12. "
            "Fetch the dataset again.",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, file: str, damage: Callable[[Path], None], message: str) -> None:
    write(tmp_path)
    use(tmp_path)
    damage(tmp_path / file)
    with pytest.raises(DataError) as caught:
        use(tmp_path)
    pattern = message.format(path=tmp_path / file, root=tmp_path)
    assert re.fullmatch(pattern, str(caught.value)), str(caught.value)


def test_a_cut_video_whose_table_is_whole(tmp_path: Path) -> None:
    """The index at the file's front, the pictures at its end cut off."""
    write(tmp_path, (60,))
    path = tmp_path / VIDEO
    noise = np.random.default_rng(0).integers(0, 256, (60, 16, 24, 3), np.uint8)
    encode_video(path, noise, fps=10, height=16, width=24, codec="libx264")
    content = bytearray(path.read_bytes())
    content[2000 : len(content) // 2] = bytes(len(content) // 2 - 2000)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=f"Video {path}: .*Fetch it again or remove its episodes"):
        use(tmp_path)


@pytest.mark.parametrize("version", ["v1.6", "v2.1", "unknown"])
def test_another_version(tmp_path: Path, version: str) -> None:
    write(tmp_path)
    edit_info(tmp_path, lambda info: info.update(codebase_version=version))
    with pytest.raises(DataError) as caught:
        LeRobotReader(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'meta/info.json'}: expected codebase_version v3.0, got {version}. "
        f"Leave `format:` out to have it recognised; versions 2.0, 2.1 and 3.0 are read."
    )
