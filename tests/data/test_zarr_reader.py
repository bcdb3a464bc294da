"""Replay buffers as Diffusion Policy, its real robots and UMI lay them out."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data import open_dataset
from menura.errors import DataError
from menura.features import CameraFeature, Rotation

zarr = pytest.importorskip("zarr", reason="pip install 'menura[zarr]'")
numcodecs = pytest.importorskip("numcodecs")

FORMAT_2 = {} if int(zarr.__version__.split(".")[0]) < 3 else {"zarr_format": 2}
ENDS = (4, 7, 12)
ROWS = 12


def save(root: Path, data: Mapping[str, Any], ends: Any = ENDS, *, chunk: int = 5, **codecs: Any) -> Path:
    """As `ReplayBuffer` writes: groups `data` and `meta`, arrays in chunks of some rows, packed with Blosc."""
    zarr.open_group(str(root), mode="w", **FORMAT_2)
    arrays = {f"data/{name}": np.asarray(array) for name, array in data.items()}
    for name, array in {**arrays, "meta/episode_ends": np.asarray(ends, np.int64)}.items():
        zarr.open_group(str(root), path=name.split("/")[0], mode="a", **FORMAT_2)
        compressor = codecs.get(name.split("/")[1]) or numcodecs.Blosc("zstd", clevel=5, shuffle=2)
        made = zarr.create(
            shape=array.shape,
            chunks=(chunk, *array.shape[1:]),
            dtype=array.dtype,
            compressor=compressor,
            store=str(root),
            path=name,
            **FORMAT_2,
        )
        made[:] = array
    return root


def zipped(root: Path) -> Path:
    path = root.with_name(root.name + ".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root))
    return path


def pusht() -> dict[str, np.ndarray]:
    """Frames are float32 in 0 … 255, as in pusht_cchi_v7_replay.zarr."""
    rng = np.random.default_rng(0)
    return {
        "img": rng.integers(0, 256, (ROWS, 6, 8, 3)).astype(np.float32),
        "state": rng.uniform(0, 512, (ROWS, 5)).astype(np.float32),
        "action": rng.uniform(0, 512, (ROWS, 2)).astype(np.float32),
        "keypoint": rng.uniform(0, 512, (ROWS, 9, 2)).astype(np.float32),
        "n_contacts": np.ones((ROWS, 1), np.float32),
    }


def real() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "action": rng.normal(size=(ROWS, 6)),
        "robot_eef_pose": rng.normal(size=(ROWS, 6)),
        "robot_joint": rng.normal(size=(ROWS, 6)),
        "stage": np.zeros(ROWS, np.int64),
        "timestamp": 1.7e9 + np.arange(ROWS) * 0.1,
        "camera_0": rng.integers(0, 256, (ROWS, 6, 8, 3), np.uint8),
        "camera_1": rng.integers(0, 256, (ROWS, 3, 4, 5), np.uint8),
    }


@pytest.mark.parametrize("packed", [False, True])
def test_pusht(tmp_path: Path, packed: bool) -> None:
    data, root = pusht(), tmp_path / "pusht.zarr"
    save(root, data)
    reader = open_dataset(zipped(root) if packed else root)
    assert reader.name == "pusht"
    assert reader.lengths().tolist() == [4, 3, 5]
    assert reader.features.fps == 10
    assert reader.features.cameras == {"img": CameraFeature(6, 8)}
    assert (reader.features.control_space, reader.features.control_type) == ("ee", "abs")
    assert reader.features.state is not None
    assert reader.features.state.object_names == ("block_x", "block_y", "block_angle")
    for index, (start, stop) in enumerate([(0, 4), (4, 7), (7, 12)]):
        episode = reader.episode(index)
        np.testing.assert_array_equal(episode.state, data["state"][start:stop])
        np.testing.assert_array_equal(episode.action, data["action"][start:stop])
        frames = episode.images["img"]
        np.testing.assert_array_equal(frames[:], data["img"][start:stop].astype(np.uint8))
        np.testing.assert_array_equal(np.stack(list(frames)), frames[:])  # type: ignore[call-overload]
        np.testing.assert_array_equal(frames[[2, 0, 2]], frames[:][[2, 0, 2]])
    with pytest.raises(IndexError):
        reader.episode(3)


def test_a_real_robots_buffer(tmp_path: Path) -> None:
    data = real()
    reader = open_dataset(save(tmp_path / "real.zarr", data))
    assert reader.features.fps == 10
    assert reader.features.cameras == {"camera_0": CameraFeature(6, 8), "camera_1": CameraFeature(4, 5)}
    names = tuple(f"robot_eef_pose_{axis}" for axis in ("x", "y", "z", "rx", "ry", "rz"))
    assert reader.features.state is not None
    assert reader.features.state.names == names
    assert reader.features.state.rotations == (Rotation(names[3:], "axis_angle"),)
    episode = reader.episode(1)
    np.testing.assert_array_equal(episode.state, data["robot_eef_pose"][4:7].astype(np.float32))
    np.testing.assert_allclose(episode.timestamps, [0, 0.1, 0.2], atol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_array_equal(episode.images["camera_1"][:], data["camera_1"][4:7].transpose(0, 2, 3, 1))


def test_umi(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    data = {
        "robot0_eef_pos": rng.normal(size=(ROWS, 3)),
        "robot0_eef_rot_axis_angle": rng.normal(size=(ROWS, 3)),
        "robot0_gripper_width": rng.normal(size=(ROWS, 1)),
        "robot0_demo_start_pose": rng.normal(size=(ROWS, 6)),
    }
    root = save(tmp_path / "umi.zarr", data)
    with pytest.raises(DataError, match=r"keys.action: expected one of \[.*\], got 'action'"):
        open_dataset(root, fps=20)
    poses = ["robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width"]
    reader = open_dataset(root, fps=20, keys={"action": poses})
    joined = np.concatenate([data[key] for key in poses], axis=1).astype(np.float32)
    np.testing.assert_array_equal(reader.episode(2).state, joined[7:])
    np.testing.assert_array_equal(reader.episode(2).action, joined[7:])
    assert reader.features.action.rotations[0].representation == "axis_angle"


def test_a_codec_that_is_not_installed(tmp_path: Path) -> None:
    """UMI's cameras are coded as JPEG XL."""
    root = save(tmp_path / "umi.zarr", real())
    path = root / "data/camera_0/.zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), "compressor": {"id": "imagecodecs_unknown"}}))
    with pytest.raises(DataError, match=r"umi.zarr: data/camera_0: cannot be opened .* pip install imagecodecs"):
        open_dataset(root)
    assert len(open_dataset(root, keys={"images": ["camera_1"]}).episode(0)) == 4


def test_jpeg_xl(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs", reason="pip install imagecodecs")
    frames = np.indices((ROWS, 32, 32, 3)).sum(axis=0).astype(np.uint8)
    root = save(
        tmp_path / "umi.zarr",
        {**real(), "camera0_rgb": frames},
        chunk=1,
        camera0_rgb=codecs.Jpegxl(lossless=True),
    )
    reader = open_dataset(root, keys={"images": ["camera0_rgb"]})
    np.testing.assert_array_equal(reader.episode(1).images["camera0_rgb"][:], frames[4:7])


def test_keys_choose_join_and_rename(tmp_path: Path) -> None:
    data = real()
    root = save(tmp_path / "real.zarr", data)
    reader = open_dataset(
        root,
        keys={"state": ["robot_joint", "stage"], "action": "robot_eef_pose", "images": {"front": "camera_0"}},
        episodes=[2, 0],
        name="mine",
    )
    assert (reader.name, reader.lengths().tolist(), list(reader.features.cameras)) == ("mine", [5, 4], ["front"])
    assert reader.episode(0).state.shape == (5, 7)
    np.testing.assert_array_equal(reader.episode(0).images["front"][1], data["camera_0"][8])
    assert open_dataset(root, keys={"state": [], "images": []}).features.state is None


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1.0), (np.float64, 255.0), (np.float32, 255.0)])
def test_the_range_of_frames_is_told_by_their_values(tmp_path: Path, dtype: Any, scale: float) -> None:
    data = pusht()
    whole = data["img"].copy()
    data["img"] = (whole / scale).astype(dtype)
    reader = open_dataset(save(tmp_path / "x.zarr", data))
    np.testing.assert_array_equal(reader.episode(1).images["img"][:], whole[4:7].astype(np.uint8))


def test_a_range_that_cannot_be_told(tmp_path: Path) -> None:
    data = pusht()
    data["img"][:] = 0
    data["img"][8:] = 255
    data["img"][7] = 1
    root = save(tmp_path / "x.zarr", data)
    with pytest.raises(DataError, match=r"img: expected frames that show whether white is 1 or 255"):
        open_dataset(root)
    assert open_dataset(root, white=255).episode(2).images["img"][1].max() == 255
    wrong = open_dataset(root, white=1).episode(2).images["img"]
    with pytest.raises(DataError, match=r"data/img: expected frames in 0 … 1, got 1 … 255\. Say what white is"):
        wrong[:]


def test_no_rate(tmp_path: Path) -> None:
    data = real()
    data["timestamp"] = data["timestamp"] + np.random.default_rng(0).uniform(0, 0.05, ROWS)
    for given in (data, {key: value for key, value in data.items() if key != "timestamp"}):
        root = save(tmp_path / f"{len(given)}.zarr", given)
        with pytest.raises(DataError) as caught:
            open_dataset(root)
        assert str(caught.value) == (f"{root}: expected a rate, got none in the files. Say it: args: {{fps: …}}.")
        assert open_dataset(root, fps=20).features.fps == 20


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            {},
            {"keys": {"action": "actoin"}},
            r"keys.action: expected one of \[.*\], got 'actoin'; did you mean action",
        ),
        ({}, {"keys": {"state": "camera_0"}}, r"camera_0: expected numbers \(N, n\) as state, got uint8 of shape"),
        ({}, {"keys": {"images": ["stage"]}}, r"stage: expected frames \(N, H, W, 3\) or \(N, 3, H, W\), got int64"),
        ({}, {"keys": {"task": "stage"}}, r"keys.task: expected none"),
        ({}, {"episodes": [0, 3]}, r"episodes: expected some of 0 … 2, got \[3\]"),
        ({}, {"fps": 0}, r"fps: expected steps per second > 0, got 0"),
        ({}, {"white": 2}, r"white: expected 1 or 255, got 2"),
        ({"ends": (4, 4, 12)}, {}, r"meta/episode_ends: expected increasing numbers, got \[4, 4, 12\]"),
        ({"ends": (4, 7, 13)}, {}, r"data/robot_eef_pose: expected 13 rows as meta/episode_ends says, got 12"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, change: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    root = save(tmp_path / "real.zarr", real(), **change)
    with pytest.raises(DataError, match=f"{re.escape(str(root))}: {message}"):
        open_dataset(root, **arguments)


def test_damage_is_named(tmp_path: Path) -> None:
    root = save(tmp_path / "real.zarr", real())
    chunk = root / "data/camera_0/0.0.0.0"
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    reader = open_dataset(root)
    with pytest.raises(DataError, match=r"data/camera_0/0.0.0.0: expected 0 bytes, got \d+: cut off"):
        reader.episode(0).images["camera_0"][:]
    whole = (root / "data/robot_eef_pose/1.0").read_bytes()
    for content in (whole[:-1], whole[:10], b""):
        (root / "data/robot_eef_pose/1.0").write_bytes(content)
        with pytest.raises(DataError, match=r"data/robot_eef_pose/1.0: expected \d+ bytes, got \d+: cut off. Fetch"):
            reader.episode(1)
    (root / "data/robot_eef_pose/1.0").write_bytes(b"\xff" * 12 + whole[12:])
    with pytest.raises(DataError, match=r"real.zarr: data/robot_eef_pose: damaged"):
        reader.episode(1)
    packed = zipped(root)
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"real.zarr.zip: not a whole zip file"):
        open_dataset(packed)
    shutil.rmtree(root / "meta/episode_ends")
    with pytest.raises(DataError, match=r"expected arrays data/\* and meta/episode_ends, got \['data/action'"):
        open_dataset(root)


@pytest.mark.parametrize("packed", [False, True])
def test_pickles_with_its_episodes(tmp_path: Path, packed: bool) -> None:
    root = save(tmp_path / "real.zarr", real())
    reader = open_dataset(zipped(root) if packed else root)
    episode = reader.episode(1)
    episode.images["camera_0"][:]
    again, same = pickle.loads(pickle.dumps((reader, episode)))
    assert again.fingerprint() == reader.fingerprint()
    np.testing.assert_array_equal(same.images["camera_0"][:], episode.images["camera_0"][:])


def test_the_fingerprint_follows_content_and_selection(tmp_path: Path) -> None:
    root = save(tmp_path / "real.zarr", real())
    prints = {
        open_dataset(root, **arguments).fingerprint()
        for arguments in (
            {},
            {"episodes": [0]},
            {"keys": {"images": []}},
            {"keys": {"state": "robot_joint"}},
            {"fps": 5},
        )
    }
    assert len(prints) == 5
    save(root, real(), chunk=4)
    assert open_dataset(root).fingerprint() not in prints


def test_zarr_is_imported_when_a_store_is_opened() -> None:
    code = "import sys, menura.data.readers.zarr; assert not {'zarr', 'numcodecs', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
