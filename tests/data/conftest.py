"""Small datasets made of arrays, for every test of this directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.features import CameraFeature, Features, VectorFeature

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lerobot"  # written by LeRobot 0.6.1 itself


class ArrayReader(Reader):
    """Episodes of random arrays; `hook(index)` is called whenever one is read."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        state_dim: int = 3,
        action_dim: int = 2,
        cameras: Mapping[str, tuple[int, int]] | None = None,
        name: str = "arrays",
        seed: int = 0,
        fps: float = 10.0,
        hook: Callable[[int], None] | None = None,
    ) -> None:
        self.name = name
        self.features = Features(
            state=VectorFeature.of_width(state_dim, "s") if state_dim else None,
            action=VectorFeature.of_width(action_dim, "a"),
            cameras={camera: CameraFeature(*size) for camera, size in (cameras or {}).items()},
            fps=fps,
            language=True,
        )
        self._lengths = list(lengths)
        self._seed = seed
        self.hook = hook

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self) -> np.ndarray:
        return np.array(self._lengths, np.int64)

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self._lengths, self._seed, self.features.to_dict())).encode()).hexdigest()

    def episode(self, index: int) -> Episode:
        if self.hook is not None:
            self.hook(index)
        length, rng = self._lengths[index], np.random.default_rng((self._seed, index))
        return Episode(
            state=rng.normal(size=(length, self.features.state_dim)).astype(np.float32),
            action=rng.normal(size=(length, self.features.action_dim)).astype(np.float32),
            images={
                name: rng.integers(256, size=(length, camera.height, camera.width, 3), dtype=np.uint8)
                for name, camera in self.features.cameras.items()
            },
            task=f"task {index % 2}",
            fps=self.features.fps,
            success=True,
            seed=index,
        )


@pytest.fixture(scope="session")
def make_reader() -> Callable[..., ArrayReader]:
    return ArrayReader


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of datasets written by LeRobot itself."""
    return FIXTURES


@pytest.fixture(scope="session")
def golden(fixtures: Path) -> Callable[[str], dict[str, Any]]:
    """What LeRobot itself reads back from a fixture, by name."""
    return lambda name: dict(np.load(fixtures / f"{name}.golden.npz"))


# HDF5 files laid out as their programs write them. Each maker returns what it wrote, one mapping an episode.


def gradient(length: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(length, height, width, 3) uint8: reddish, smooth (JPEG hardly changes it), every frame another."""
    y, x = np.mgrid[:height, :width]
    red = 200 + np.arange(length)[:, None, None] * 3 + 0 * x
    green = 60 + y * 2 + seed % 7 * 5 + 0 * red
    blue = 10 + x + 0 * red
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def make_aloha() -> Callable[..., list[dict[str, Any]]]:
    def make(
        directory: Path,
        lengths: Sequence[int] = (6, 4, 5),
        *,
        images: str = "raw",
        bgr: bool = False,
        cameras: Mapping[str, tuple[int, int]] | None = None,
    ) -> list[dict[str, Any]]:
        from menura.data.pictures import encode_jpeg

        directory.mkdir(parents=True, exist_ok=True)
        written = []
        for index, length in enumerate(lengths):
            rng = np.random.default_rng(index)
            arrays = {key: rng.normal(size=(length, 14)).astype(np.float32) for key in ("qpos", "qvel", "action")}
            frames = {
                name: gradient(length, *size, seed=index) for name, size in (cameras or {"cam_high": (24, 32)}).items()
            }
            with h5py.File(directory / f"episode_{index}.hdf5", "w") as file:
                file.attrs["sim"], file.attrs["compress"] = False, images != "raw"
                file["action"] = arrays["action"]
                file["base_action"] = np.full((length, 2), index, np.float32)
                file["observations/qpos"], file["observations/qvel"] = arrays["qpos"], arrays["qvel"]
                for name, pixels in frames.items():
                    stored = pixels[..., ::-1] if bgr else pixels
                    key = f"observations/images/{name}"
                    if images == "raw":
                        file.create_dataset(key, data=stored, chunks=(1, *stored.shape[1:]))
                        continue
                    encoded = [encode_jpeg(frame) for frame in stored]
                    longest = max(map(len, encoded)) + 5
                    if images == "padded":
                        rows = [np.frombuffer(each.ljust(longest, b"\0"), np.uint8) for each in encoded]
                        file.create_dataset(key, data=np.stack(rows), chunks=(1, longest))
                    elif images == "strings":
                        file.create_dataset(key, data=np.array(encoded, dtype=f"S{longest}"))
                    else:
                        dataset = file.create_dataset(key, (length,), h5py.vlen_dtype(np.uint8))
                        for row, each in enumerate(encoded):
                            dataset[row] = np.frombuffer(each, np.uint8)
            written.append({**arrays, "frames": frames})
        return written

    return make


OSC_POSE = {"type": "OSC_POSE", "input_max": 1, "input_min": -1, "control_delta": True}


@pytest.fixture(scope="session")
def make_robomimic() -> Callable[..., list[dict[str, Any]]]:
    def make(
        path: Path,
        lengths: Sequence[int] = (5, 4, 6),
        *,
        cameras: Sequence[str] = ("agentview", "robot0_eye_in_hand"),
        kwargs: Mapping[str, Any] | None = None,
        chunks: bool | None = None,
    ) -> list[dict[str, Any]]:
        default = {"control_freq": 20, "robots": "Panda", "controller_configs": OSC_POSE, "reward_shaping": False}
        written = []
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            data.attrs["total"] = sum(lengths)
            data.attrs["env_args"] = json.dumps(
                {"env_name": "Lift", "type": 1, "env_kwargs": default if kwargs is None else dict(kwargs)}
            )
            for index, length in enumerate(lengths):
                rng = np.random.default_rng(index)
                widths = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}
                obs = {key: rng.normal(size=(length, width)) for key, width in widths.items()}
                frames = {f"{name}_image": gradient(length, 20, 28, seed=index) for name in cameras}
                demo = data.create_group(f"demo_{index}")
                demo.attrs["num_samples"] = length
                arrays = {"actions": rng.uniform(-1, 1, (length, 7)), "states": rng.normal(size=(length, 32))}
                arrays["rewards"] = np.zeros(length)
                arrays["rewards"][-1] = index % 2 == 0
                arrays["dones"] = np.eye(length, dtype=np.int64)[-1]
                for key, array in arrays.items():
                    demo[key] = array
                for key, array in {**obs, **frames}.items():
                    demo.create_dataset(f"obs/{key}", data=array, chunks=chunks, compression="gzip" if chunks else None)
                    demo[f"next_obs/{key}"] = array
                written.append({**arrays, **obs, **frames})
            file["mask/train"] = np.array([b"demo_2", b"demo_0"])
            file["mask/valid"] = np.array([b"demo_1"])
        return written

    return make


@pytest.fixture(scope="session")
def make_libero() -> Callable[..., list[dict[str, Any]]]:
    def make(
        path: Path,
        lengths: Sequence[int] = (5, 4),
        *,
        instruction: str = "put the bowl on the plate",
        convention: str | None = "opengl",
    ) -> list[dict[str, Any]]:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = []
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            kwargs = {"control_freq": 20, "robots": ["Panda"], "controller_configs": OSC_POSE, "reward_shaping": True}
            data.attrs["env_args"] = json.dumps({"env_name": "X", "problem_name": "x", "env_kwargs": kwargs})
            data.attrs["problem_info"] = json.dumps({"problem_name": "x", "language_instruction": instruction})
            data.attrs["bddl_file_name"] = "chiliocosm/bddl_files/x.bddl"
            data.attrs["num_demos"], data.attrs["total"] = len(lengths), sum(lengths)
            if convention is not None:
                data.attrs["macros_image_convention"] = convention
            for index, length in enumerate(lengths):
                rng = np.random.default_rng(index)
                obs = {"gripper_states": rng.normal(size=(length, 2)), "joint_states": rng.normal(size=(length, 7))}
                obs["ee_states"] = rng.normal(size=(length, 6))
                obs["ee_pos"], obs["ee_ori"] = obs["ee_states"][:, :3], obs["ee_states"][:, 3:]
                frames = {key: gradient(length, 16, 16, seed=index) for key in ("agentview_rgb", "eye_in_hand_rgb")}
                demo = data.create_group(f"demo_{index}")
                actions = rng.uniform(-1, 1, (length, 7))
                demo["actions"], demo["states"] = actions, rng.normal(size=(length, 20))
                demo["rewards"] = demo["dones"] = np.eye(length, dtype=np.uint8)[-1]
                for key, array in {**obs, **frames}.items():
                    demo[f"obs/{key}"] = array[:, ::-1] if key in frames and convention == "opengl" else array
                written.append({"actions": actions, **obs, **frames})
        return written

    return make


@pytest.fixture(scope="session")
def make_minari() -> Callable[..., list[dict[str, Any]]]:
    def make(directory: Path, lengths: Sequence[int] = (4, 6, 3), *, box: bool = False) -> list[dict[str, Any]]:
        (directory / "data").mkdir(parents=True)
        (directory / "data/metadata.json").write_text(json.dumps({"dataset_id": "toy/reach-v0", "data_format": "hdf5"}))
        written = []
        with h5py.File(directory / "data/main_data.hdf5", "w", track_order=True) as file:
            for index, length in enumerate(lengths):
                rng = np.random.default_rng(index)
                rows = {key: rng.normal(size=(length + 1, width)) for key, width in (("goal", 2), ("observation", 3))}
                rows["pixels"] = gradient(length + 1, 12, 16, seed=index)
                actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
                group = file.create_group(f"episode_{index}")
                group.attrs["id"], group.attrs["seed"], group.attrs["total_steps"] = index, 100 + index, length
                if box:
                    group["observations"] = rows["observation"]
                else:
                    for key, array in rows.items():
                        group[f"observations/{key}"] = array
                group["actions"], group["rewards"] = actions, np.zeros(length)
                group["terminations"], group["truncations"] = np.zeros(length, bool), np.zeros(length, bool)
                group["infos/success"] = np.arange(length + 1) == (length if index != 1 else -1)
                written.append({"actions": actions, **{key: array[:-1] for key, array in rows.items()}})
        return written

    return make
