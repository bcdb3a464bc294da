"""RLDS as tensorflow-datasets wrote it, as Open X-Embodiment lays it out, and as damage leaves it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import open_dataset
from menura.data.formats import recognise
from menura.data.pictures import encode_png
from menura.data.readers.crc32c import crc32c
from menura.data.readers.open_x import known_fps
from menura.data.readers.rlds import RldsReader
from menura.data.readers.tf_example import read_example
from menura.data.readers.tfds_features import read_features
from menura.data.readers.tfds_shards import Shards
from menura.errors import DataError
from menura.features import CameraFeature, Features, Rotation, VectorFeature

FIXTURES = Path(__file__).parents[1] / "fixtures" / "rlds"
TINY = FIXTURES / "tiny_arm"
VERSION = TINY / "1.0.0"
ACTION = ("action/world_vector", "action/rotation_delta", "action/open_gripper")
TRAIN = "tiny_arm-train.tfrecord-0000{}-of-00002"


def tiny(path: Path = TINY, **options: Any) -> RldsReader:
    return RldsReader(path, **{"fps": 5, "keys": {"action": ACTION}, **options})


@pytest.fixture(scope="module")
def golden() -> Mapping[str, Any]:
    """What tensorflow-datasets 4.9.10 reads."""
    return dict(np.load(FIXTURES / "tiny_arm.golden.npz"))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(VERSION, tmp_path / "tiny_arm" / "1.0.0"))


def joined(golden: Mapping[str, Any], split: str, keys: tuple[str, ...]) -> np.ndarray:
    columns = [golden[f"{split}/steps/{key}"] for key in keys]
    return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1).astype(np.float32)


# Written by tensorflow-datasets


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_leaf_equals_what_tensorflow_datasets_reads(split: str, golden: Mapping[str, Any]) -> None:
    leaves, shards = read_features(VERSION), Shards(VERSION, split)
    examples = [read_example(shards.record(index), "record") for index in range(len(shards))]
    assert [leaves["steps/reward"].count(example) for example in examples] == golden[f"{split}/lengths"].tolist()
    compared = 0
    for key, leaf in leaves.items():
        if f"{split}/{key}" not in golden or leaf.kind == "image":
            continue
        expected = golden[f"{split}/{key}"]
        found = [element for example in examples for element in leaf.elements(example)]
        if leaf.kind == "text":
            assert [text.decode() for text in found] == expected.tolist()
        else:
            assert found[0].dtype == expected.dtype
            np.testing.assert_array_equal(np.array(found), expected)
        compared += 1
    assert compared == 15


def test_episodes_equal_what_tensorflow_datasets_reads(golden: Mapping[str, Any]) -> None:
    reader = tiny(last_step="keep")
    lengths = golden["train/lengths"]
    assert reader.lengths().tolist() == lengths.tolist() == [7, 5, 9]
    episodes = [reader.episode(index) for index in range(len(reader))]
    np.testing.assert_array_equal(
        np.concatenate([episode.state for episode in episodes]), joined(golden, "train", ("observation/state",))
    )
    np.testing.assert_array_equal(
        np.concatenate([episode.action for episode in episodes]), joined(golden, "train", ACTION)
    )
    starts = np.cumsum(lengths) - lengths
    assert [episode.task for episode in episodes] == golden["train/steps/language_instruction"][starts].tolist()
    assert [episode.success for episode in episodes] == golden["train/episode_metadata/success"].tolist()
    paths = golden["train/episode_metadata/file_path"].tolist()
    assert [episode.extra for episode in episodes] == [{"file_path": path} for path in paths]


def test_pictures_equal_what_tensorflow_datasets_reads(golden: Mapping[str, Any]) -> None:
    """PNG exactly; JPEG within what two decoders differ by, which is how they spread the halved colours."""
    reader = tiny(last_step="keep")
    for camera, tolerance in (("image", 0), ("wrist_image", 2)):
        frames = np.concatenate([reader.episode(index).images[camera][:] for index in range(len(reader))])[::4]
        difference = np.abs(frames.astype(int) - golden[f"train/steps/observation/{camera}"])
        assert difference.mean() <= tolerance


def test_features() -> None:
    assert tiny().features == Features(
        state=VectorFeature(tuple(f"state_{i}" for i in range(5))),
        action=VectorFeature(
            (
                *(f"world_vector_{i}" for i in range(3)),
                *(f"rotation_delta_{i}" for i in range(3)),
                "open_gripper",
            )
        ),
        cameras={"image": CameraFeature(16, 16), "wrist_image": CameraFeature(16, 24)},
        fps=5.0,
        language=True,
    )


def test_it_is_recognised_by_its_version_directory_and_by_its_parent() -> None:
    assert recognise(TINY) == recognise(VERSION) == "rlds"
    for path in (TINY, VERSION):
        reader = open_dataset(path, keys={"action": list(ACTION)}, fps=5, split="val")
        assert (reader.name, len(reader)) == ("tiny_arm", 2)


def test_nothing_of_tensorflow_is_needed() -> None:
    script = (
        "import sys; from menura.data import open_dataset;"
        f"open_dataset({str(VERSION)!r}, keys={{'action': {list(ACTION)!r}}}, fps=5).episode(0).images['image'][0];"
        "print(sorted({'tensorflow', 'tensorflow_datasets', 'google.protobuf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The last step


def test_a_last_step_that_is_a_placeholder_is_left_out(golden: Mapping[str, Any]) -> None:
    """The second episode ends in an action of zeros, as environments leave it; the others end in a real one."""
    written = golden["train/episode_metadata/file_path"].tolist()
    placeholder = written.index("raw/1.npy")
    kept = golden["train/lengths"].tolist()
    expected = [length - (index == placeholder) for index, length in enumerate(kept)]
    reader = tiny()
    assert reader.lengths().tolist() == [len(reader.episode(index)) for index in range(3)] == expected
    assert reader.episode(placeholder).action[-1].any()
    assert reader.episode(placeholder).images["image"].shape[0] == expected[placeholder]
    assert tiny(last_step="keep").lengths().tolist() == kept
    assert tiny(last_step="drop").lengths().tolist() == [length - 1 for length in kept]


def test_an_unknown_way_with_the_last_step_is_refused() -> None:
    with pytest.raises(DataError, match=r"last_step: expected one of \['auto', 'keep', 'drop'\], got 'cut'"):
        tiny(last_step="cut")


# Keys


def test_keys_choose_and_rename() -> None:
    keys = {
        "state": ["joint_position", "gripper_open", "steps/observation/counts", "packed"],
        "action": "action/world_vector",
        "images": {"wrist": "wrist_image"},
        "task": "episode_metadata/file_path",
    }
    reader = tiny(keys=keys)
    assert reader.features.state is not None
    assert reader.features.state.names == (
        *("joint_position_0", "joint_position_1", "joint_position_2", "gripper_open", "counts_0", "counts_1"),
        *("packed_0", "packed_1", "packed_2", "packed_3"),
    )
    assert reader.features.action.names == ("action_0", "action_1", "action_2")
    episode = reader.episode(0)
    assert episode.state.shape == (7, 10)
    assert set(np.unique(episode.state[:, 3])) == {0, 1}
    assert list(episode.images) == ["wrist"]
    assert episode.task.startswith("raw/")


def test_a_camera_is_called_by_its_key_unless_named() -> None:
    keys = {"action": ACTION, "images": ["observation/image", "wrist_image"]}
    assert list(tiny(keys=keys).features.cameras) == ["image", "wrist_image"]
    keys = {"action": ACTION, "images": {"a/b": "steps/observation/image"}}
    assert list(tiny(keys=keys).features.cameras) == ["a/b"]


def test_no_state_and_no_cameras() -> None:
    reader = tiny(keys={"state": [], "action": list(ACTION), "images": {}})
    assert reader.features.state is None
    assert reader.episode(0).state.shape == (7, 0)
    assert not reader.episode(0).images


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {},
            "action: expected one vector, got one in parts, whose order is not known. Say which by keys.action; there",
        ),
        ({"action": "action"}, "got 'action', which has parts: name these"),
        ({"action": "action/world_vektor"}, "did you mean action/world_vector. Say which by keys.action"),
        ({"action": []}, "action: expected at least one key, got none"),
        ({"action": ACTION, "state": "contacts"}, "state: expected another kind than that of 'contacts'"),
        ({"action": ACTION, "images": ["depth"]}, "images: expected another kind than that of 'depth'"),
        ({"action": ACTION, "task": "state"}, "task: expected another kind than that of 'state'"),
        ({"action": ACTION, "images": {"a": "imgae"}}, "did you mean image"),
    ],
)
def test_keys_that_are_wrong_or_not_certain(keys: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=re.escape(problem)):
        tiny(keys=keys)


# Layouts of well-known datasets: their features.json with the content they have, and no shards but their names


def tensor(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    name = "tensorflow_datasets.core.features." + ("tensor_feature.Tensor" if shape else "scalar.Scalar")
    return {"pythonClassName": name, "tensor": {"shape": dimensions, "dtype": dtype, "encoding": "none"}}


def image(height: int, width: int, channels: int = 3, dtype: str = "uint8") -> dict[str, Any]:
    shape = {"dimensions": [str(height), str(width), str(channels)]}
    content = {"shape": shape, "dtype": dtype, "encodingFormat": "jpeg"}
    return {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image", "image": content}


def text() -> dict[str, Any]:
    return {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def group(**features: Any) -> dict[str, Any]:
    name = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    return {"pythonClassName": name, "featuresDict": {"features": features}}


def layout(directory: Path, dataset: str, steps: dict[str, Any]) -> Path:
    flags = {name: tensor(dtype="bool") for name in ("is_first", "is_last", "is_terminal")}
    sequence = {"feature": group(**steps, **flags), "length": "-1"}
    name = "tensorflow_datasets.core.features.dataset_feature.Dataset"
    features = group(steps={"pythonClassName": name, "sequence": sequence}, episode_metadata=group(file_path=text()))
    (directory / "features.json").write_text(json.dumps(features))
    info = {"name": dataset, "version": "1.0.0", "splits": [{"name": "train", "shardLengths": ["1"]}]}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    (directory / f"{dataset}-train.tfrecord-00000-of-00001").touch()
    return directory


BRIDGE = {
    "observation": group(
        image_0=image(256, 256), image_1=image(256, 256), image_2=image(256, 256), image_3=image(256, 256),
        state=tensor(7),
    ),
    "action": tensor(7),
    "goal_image": image(256, 256),
    "language_instruction": text(),
    "language_embedding": tensor(512),
}  # fmt: skip
DROID = {
    "observation": group(
        cartesian_position=tensor(6, dtype="float64"), gripper_position=tensor(1, dtype="float64"),
        joint_position=tensor(7, dtype="float64"), exterior_image_1_left=image(180, 320),
        exterior_image_2_left=image(180, 320), wrist_image_left=image(180, 320),
    ),
    "action": tensor(7, dtype="float64"),
    "action_dict": group(
        joint_position=tensor(7, dtype="float64"), joint_velocity=tensor(7, dtype="float64"),
        gripper_position=tensor(1, dtype="float64"),
    ),
    "language_instruction": text(),
    "language_instruction_2": text(),
    "language_instruction_3": text(),
}  # fmt: skip
RT_1 = {
    "observation": group(
        image=image(256, 320), natural_language_instruction=text(), natural_language_embedding=tensor(512),
        base_pose_tool_reached=tensor(7), gripper_closed=tensor(1),
    ),
    "action": group(
        world_vector=tensor(3), rotation_delta=tensor(3), gripper_closedness_action=tensor(1),
        terminate_episode=tensor(3, dtype="int32"),
    ),
}  # fmt: skip


def test_the_layout_of_bridge(tmp_path: Path) -> None:
    reader = RldsReader(layout(tmp_path, "bridge_dataset", BRIDGE))
    assert reader.features.fps == 5
    assert (reader.features.state_dim, reader.features.action_dim) == (7, 7)
    assert list(reader.features.cameras) == ["image_0", "image_1", "image_2", "image_3"]
    assert reader.features.language


def test_an_observation_that_is_one_vector(tmp_path: Path) -> None:
    """As D4RL's datasets in tensorflow-datasets have it."""
    steps = {"observation": tensor(11), "action": tensor(3), "reward": tensor()}
    features = RldsReader(layout(tmp_path, "d4rl_mujoco_hopper", steps), fps=125).features
    assert (features.state_dim, features.action_dim, features.language) == (11, 3, False)


def test_the_layout_of_droid_asks_for_the_state(tmp_path: Path) -> None:
    directory = layout(tmp_path, "droid", DROID)
    with pytest.raises(DataError, match="state: expected one vector that is called state, got several others"):
        RldsReader(directory)
    state, action = (
        ["cartesian_position", "gripper_position"],
        ["action_dict/joint_position", "action_dict/gripper_position"],
    )
    features = RldsReader(directory, keys={"state": state, "action": action}).features
    pose = tuple(f"cartesian_position_{i}" for i in range(6))
    assert features.state == VectorFeature(
        (*pose, "gripper_position"),
        ("m", "m", "m", "rad", "rad", "rad", "1"),
        rotations=(Rotation(pose[3:], "euler_xyz"),),
        grippers={"gripper_position": (1.0, 0.0)},
    )
    assert features.action.units == (*("rad",) * 7, "1")
    assert (features.fps, features.control_space, features.control_type) == (15, "joint", "abs")
    assert list(features.cameras) == ["exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"]
    assert features.cameras["wrist_image_left"] == CameraFeature(180, 320)
    velocities = RldsReader(directory, keys={"state": state, "action": "action_dict/joint_velocity"}).features
    assert (velocities.action.units, velocities.control_space, velocities.control_type) == (None, None, None)


def test_the_layout_of_rt_1_asks_for_the_action(tmp_path: Path) -> None:
    directory = layout(tmp_path, "fractal20220817_data", RT_1)
    keys = {"state": ["base_pose_tool_reached", "gripper_closed"]}
    with pytest.raises(DataError, match=r"action: expected one vector.*'action/terminate_episode \(3,\)'"):
        RldsReader(directory, keys=keys)
    features = RldsReader(directory, keys={**keys, "action": ["action/world_vector", "action/rotation_delta"]}).features
    assert (features.fps, features.state_dim, features.action_dim, features.language) == (3, 8, 6, True)


def test_features_as_they_were_before_tfds_4_6(tmp_path: Path) -> None:
    kind = "tensorflow_datasets.core.features.{}"
    state = {"type": kind.format("tensor_feature.Tensor"), "content": {"shape": [3], "dtype": "float32"}}
    photo = {"type": kind.format("image_feature.Image"), "content": {"shape": [None, None, 3], "dtype": "uint8"}}
    steps = {"type": kind.format("features_dict.FeaturesDict"), "content": {"state": state, "photo": photo}}
    sequence = {"type": kind.format("dataset_feature.Dataset"), "content": {"feature": steps, "length": None}}
    top = {"type": kind.format("features_dict.FeaturesDict"), "content": json.dumps({"features": {"steps": sequence}})}
    (tmp_path / "features.json").write_text(json.dumps(top))
    leaves = read_features(tmp_path)
    assert (leaves["steps/state"].shape, leaves["steps/state"].sequences) == ((3,), 1)
    assert (leaves["steps/photo"].kind, leaves["steps/photo"].shape) == ("image", (None, None, 3))


def test_features_that_cannot_be_read_are_none_of_the_choice(tmp_path: Path) -> None:
    audio = {"pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio", "audio": {}}
    steps = {**BRIDGE, "sound": audio, "odd": tensor(2, dtype="bfloat16")}
    reader = RldsReader(layout(tmp_path, "bridge", steps))
    assert reader.features.action_dim == 7
    with pytest.raises(DataError, match=r"another kind than that of 'sound' \(other of Audio"):
        RldsReader(tmp_path, keys={"action": "sound"})


# Records made by hand, for what the fixture does not hold


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def write_record(path: Path, columns: Mapping[str, Any]) -> None:
    """One tf.Example of lists of bytes and arrays of numbers, as the only record of a TFRecord file."""
    entries = b""
    for key, column in columns.items():
        if isinstance(column, list):
            feature = message(1, b"".join(message(1, value) for value in column))
        elif column.dtype == bool:
            feature = message(3, message(1, column.tobytes()))
        else:
            feature = message(2, message(1, column.astype("<f4").tobytes()))
        entries += message(1, message(1, key.encode()) + message(2, feature))
    record = message(1, entries)
    length = struct.pack("<Q", len(record))
    checks = [crc32c(length), crc32c(record)]
    masked = [struct.pack("<I", (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)) for crc in checks]
    path.write_bytes(length + masked[0] + record + masked[1])


def droid_record(directory: Path, **changes: Any) -> Path:
    columns = {
        "steps/action": np.ones(14),
        "steps/observation/joint_position": np.arange(14),
        "steps/observation/wrist_image_left": [encode_png(np.full((180, 320, 3), step, np.uint8)) for step in (1, 2)],
        "steps/is_last": np.array([False, True]),
        "steps/language_instruction": [b"", b""],
        "steps/language_instruction_2": ["drücke den Knopf".encode(), b""],
        "steps/language_instruction_3": [b"push", b"push"],
        "episode_metadata/file_path": [b"lab/success/1.h5"],
    }
    write_record(layout(directory, "droid", DROID) / "droid-train.tfrecord-00000-of-00001", {**columns, **changes})
    return directory


DROID_KEYS = {"state": "joint_position", "images": {"wrist": "wrist_image_left"}}


def test_the_first_instruction_that_is_not_empty(tmp_path: Path) -> None:
    reader = RldsReader(droid_record(tmp_path), keys=DROID_KEYS)
    episode = reader.episode(0)
    assert reader.tasks() == [episode.task] == ["drücke den Knopf"]
    assert (len(episode), episode.extra, episode.success) == (2, {"file_path": "lab/success/1.h5"}, None)
    assert episode.images["wrist"][:].reshape(2, -1)[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("last", [0.0, np.nan])
def test_a_last_action_of_zeros_or_nan_is_a_placeholder(tmp_path: Path, last: float) -> None:
    action = np.concatenate([np.ones(7), np.full(7, last)])
    reader = RldsReader(droid_record(tmp_path, **{"steps/action": action}), keys=DROID_KEYS)
    assert reader.lengths().tolist() == [1]
    unflagged = droid_record(tmp_path, **{"steps/action": action, "steps/is_last": np.array([False, False])})
    assert RldsReader(unflagged, keys=DROID_KEYS).lengths().tolist() == [2]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"steps/action": np.zeros(0)}, "steps/action: expected at least one step, got none"),
        ({"steps/observation/joint_position": np.ones(21)}, "expected 2 steps as 'steps/action' has, got 3"),
        ({"steps/language_instruction": [b"\xff"]}, "steps/language_instruction: expected UTF-8"),
        ({"steps/action": [b"a", b"b"]}, "steps/action: expected a multiple of 7 values"),
    ],
)
def test_what_contradicts_itself_is_named(tmp_path: Path, changes: Mapping[str, Any], problem: str) -> None:
    reader = RldsReader(droid_record(tmp_path, **changes), keys=DROID_KEYS)
    with pytest.raises(DataError, match=f"droid-train.tfrecord-00000-of-00001: record 0.*{problem}"):
        reader.episode(0)


def test_cameras_with_fewer_pictures_than_steps(tmp_path: Path) -> None:
    reader = RldsReader(droid_record(tmp_path, **{"steps/observation/wrist_image_left": [b"x"]}), keys=DROID_KEYS)
    with pytest.raises(DataError, match=r"wrist_image_left: expected 2 steps as 'steps/action' has, got 1"):
        reader.episode(0).images["wrist"][0]


def test_the_size_of_pictures_that_declare_none(tmp_path: Path) -> None:
    droid_record(tmp_path)
    features = (tmp_path / "features.json").read_text().replace('"180", "320"', '"-1", "-1"')
    (tmp_path / "features.json").write_text(features)
    assert RldsReader(tmp_path, keys=DROID_KEYS).features.cameras == {"wrist": CameraFeature(180, 320)}


# The rate


def test_rates_that_are_known() -> None:
    assert [known_fps(name) for name in ("droid", "bridge", "fractal20220817_data")] == [15, 5, 3]
    assert known_fps("berkeley_rpt_converted_externally_to_rlds") == 30
    assert known_fps("tiny_arm") is None


def test_an_unknown_rate_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"fps: expected steps per second, got none: .*'tiny_arm' is not known"):
        tiny(fps=None)
    with pytest.raises(DataError, match="fps: expected steps per second > 0, got -1"):
        tiny(fps=-1)


# Selection, laziness, identity


def test_episodes_are_chosen_in_the_order_given(golden: Mapping[str, Any]) -> None:
    reader = tiny(episodes=[2, 0], last_step="keep")
    assert reader.lengths().tolist() == golden["train/lengths"][[2, 0]].tolist()
    np.testing.assert_array_equal(reader.episode(0).action, tiny(last_step="keep").episode(2).action)
    assert reader.tasks() == [reader.episode(index).task for index in range(2)]
    with pytest.raises(IndexError):
        reader.episode(2)
    with pytest.raises(DataError, match=r"episodes: expected some of 0 … 2, got \[3\]"):
        tiny(episodes=[3])


def test_shards_that_are_not_needed_may_be_absent(copied: Path) -> None:
    (copied / TRAIN.format(1)).unlink()
    assert tiny(copied, episodes=[0, 1]).lengths().shape == (2,)
    with pytest.raises(DataError, match=r"expected all 2 shards, got 1 that are not there\. Fetch"):
        tiny(copied)


def test_no_picture_is_decoded_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("menura.data.frames.decode_picture", refuse)
    reader = tiny()
    reader.lengths()
    frames = reader.episode(0).images["image"]
    assert reader.images(0)["image"].shape == frames.shape == (7, 16, 16, 3)
    with pytest.raises(AssertionError, match="decoded"):
        frames[0]


def test_it_survives_pickling_with_its_frames() -> None:
    reader = tiny()
    frames = reader.episode(0).images["wrist_image"]
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again.episode(1).state, reader.episode(1).state)
    assert again.fingerprint() == reader.fingerprint()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[2], frames[2])


def test_the_fingerprint_changes_with_content_and_choice(copied: Path) -> None:
    first = tiny(copied).fingerprint()
    choices = [{"episodes": [0]}, {"split": "val"}, {"fps": 6}, {"last_step": "keep"}, {"keys": {"action": ACTION[0]}}]
    assert len({first, *(tiny(copied, **choice).fingerprint() for choice in choices)}) == 6
    assert tiny(copied).fingerprint() == first
    os.utime(copied / TRAIN.format(0), ns=(1, 1))
    assert tiny(copied).fingerprint() != first


# Damage


def test_several_versions_are_answered_with_their_names(copied: Path) -> None:
    shutil.copytree(copied, copied.with_name("2.0.0"))
    assert recognise(copied.parent) == "rlds"
    message = r"tiny_arm: expected one directory with features.json below it, got 2: \['1\.0\.0', '2\.0\.0'\]"
    with pytest.raises(DataError, match=message):
        tiny(copied.parent)
    assert len(tiny(copied.with_name("2.0.0"))) == 3


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected one directory with features\.json below it, got none"):
        tiny(tmp_path)


def test_a_dataset_that_is_no_rlds(copied: Path) -> None:
    (copied / "features.json").write_text(json.dumps(group(label=tensor(), image=image(8, 8))))
    with pytest.raises(DataError, match=r"expected episodes with 'steps' as RLDS has them, got .*\['label', 'image'\]"):
        tiny(copied)


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda info: info.update(fileFormat="array_record"), "fileFormat: expected 'tfrecord', got 'array_record'"),
        (lambda info: info.pop("name"), "dataset_info.json: expected the splits and shards"),
        (lambda info: info.update(splits=3), "dataset_info.json: expected the splits and shards"),
        (
            lambda info: info["splits"][0].update(shardLengths=["x"]),
            "dataset_info.json: expected the splits and shards",
        ),
        (lambda info: info["splits"][0].update(shardLengths=[]), "split 'train': expected episodes, got none"),
        (lambda info: info["splits"][0].update(name="all"), "split: expected one of ['all', 'val'], got 'train'"),
    ],
)
def test_damaged_metadata(copied: Path, edit: Callable[[dict[str, Any]], Any], problem: str) -> None:
    change(copied / "dataset_info.json", edit)
    with pytest.raises(DataError, match=re.escape(problem)):
        tiny(copied)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pythonClassName": "a.FeaturesDict", "featuresDict": 3}'])
def test_damaged_features(copied: Path, content: str) -> None:
    (copied / "features.json").write_text(content)
    with pytest.raises(DataError, match=r"features\.json: expected the features of a tensorflow-datasets dataset"):
        tiny(copied)


def test_a_shard_with_fewer_records_than_promised(copied: Path) -> None:
    change(copied / "dataset_info.json", lambda info: info["splits"][0].update(shardLengths=["3", "1"]))
    with pytest.raises(DataError, match=r"00000-of-00002: expected 3 records as dataset_info\.json says, got 2"):
        tiny(copied).lengths()


def test_a_shard_cut_off(copied: Path) -> None:
    path = copied / TRAIN.format(1)
    path.write_bytes(path.read_bytes()[:-100])
    reader = tiny(copied)
    reader.episode(0)
    with pytest.raises(DataError, match=r"00001-of-00002: cut off: record 0 begins at byte 0"):
        reader.episode(2)


def test_a_changed_byte_is_found_unless_told_not_to_look(copied: Path) -> None:
    path = copied / TRAIN.format(1)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x89PNG") + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"00001-of-00002: record 0 .*checksum of the data is wrong"):
        tiny(copied).episode(2)
    assert len(tiny(copied, verify=False).episode(2)) == 9


def test_a_key_that_records_do_not_have(copied: Path) -> None:
    features = (copied / "features.json").read_text().replace('"joint_position"', '"joint_positions"')
    (copied / "features.json").write_text(features)
    reader = tiny(copied, keys={"state": "joint_positions", "action": ACTION})
    with pytest.raises(DataError, match=r"record 0: expected the key 'steps/observation/joint_positions'"):
        reader.episode(0)


def test_a_shape_that_records_do_not_have(copied: Path) -> None:
    features = (copied / "features.json").read_text().replace('"5"', '"6"')
    (copied / "features.json").write_text(features)
    with pytest.raises(
        DataError, match=r"record 0: steps/observation/state: expected a multiple of 6 values .* got 35"
    ):
        tiny(copied).episode(0)


def test_changed_bytes_are_an_error_or_an_episode(copied: Path) -> None:
    """Without looking at the checksum: nothing but a DataError comes of what the bytes say."""
    path = copied / TRAIN.format(1)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    keys = {"state": ["state", "packed", "counts"], "action": ACTION, "images": {"image": "image"}}
    for _ in range(100):
        content = bytearray(whole)
        content[rng.integers(12, len(whole) - 4)] = rng.integers(256)
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            reader = tiny(copied, keys=keys, verify=False, episodes=[2])
            assert len(reader.episode(0)) == reader.lengths()[0]
            reader.episode(0).images["image"][:]
