"""What each HDF5 format means: ALOHA, robomimic and robosuite, LIBERO, Minari."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from menura.data import open_dataset
from menura.errors import ConfigError, DataError
from menura.features import Rotation

Make = Callable[..., list[dict[str, Any]]]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
MINARI = Path(__file__).parents[1] / "fixtures" / "minari"
ALOHA = Path(__file__).parents[1] / "fixtures" / "aloha"


def worst(frames: Any, pixels: np.ndarray) -> int:
    return int(np.abs(np.asarray(frames).astype(int) - pixels).max())


# ALOHA


def test_aloha(tmp_path: Path, make_aloha: Make) -> None:
    wrote = make_aloha(tmp_path / "pour", [6, 4, 5])
    reader = open_dataset(tmp_path / "pour")
    assert (reader.name, len(reader), reader.lengths().tolist()) == ("pour", 3, [6, 4, 5])
    features = reader.features
    assert (features.fps, features.robot, features.control_space, features.control_type) == (
        50,
        "aloha",
        "joint",
        "abs",
    )
    assert features.action.names[:7] == (
        "left_waist",
        "left_shoulder",
        "left_elbow",
        "left_forearm_roll",
        "left_wrist_angle",
        "left_wrist_rotate",
        "left_gripper",
    )
    assert features.action == features.state
    assert features.action.units is not None
    assert features.action.units[5:8] == ("rad", "1", "rad")
    assert features.action.grippers == {"left_gripper": (0, 1), "right_gripper": (0, 1)}
    for index, truth in enumerate(wrote):
        episode = reader.episode(index)
        np.testing.assert_array_equal(episode.state, truth["qpos"])
        np.testing.assert_array_equal(episode.action, truth["action"])
        assert worst(episode.images["cam_high"], truth["frames"]["cam_high"]) == 0
        assert (episode.fps, episode.task, episode.success, episode.extra) == (50, "", None, {"sim": False})


def test_aloha_one_file_is_one_episode(tmp_path: Path, make_aloha: Make) -> None:
    wrote = make_aloha(tmp_path)
    reader = open_dataset(tmp_path / "episode_1.hdf5", fps=25)
    assert (len(reader), reader.features.fps) == (1, 25)
    np.testing.assert_array_equal(reader.episode(0).state, wrote[1]["qpos"])


@pytest.mark.parametrize("images", ["padded", "varying", "strings"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_aloha_jpeg(tmp_path: Path, make_aloha: Make, images: str, colour: str) -> None:
    """The frames come out red whichever way round they went in, when it is said which."""
    wrote = make_aloha(tmp_path, images=images, bgr=colour == "bgr")
    frames = open_dataset(tmp_path, colour=colour).episode(1).images["cam_high"]
    assert worst(frames, wrote[1]["frames"]["cam_high"]) <= 6
    assert worst(frames[[3, 0]], wrote[1]["frames"]["cam_high"][[3, 0]]) <= 6


def test_aloha_coded_by_opencv_itself() -> None:
    """What `cv2.imencode` makes of RGB frames is `bgr`, and red again (see the fixtures' README)."""
    y, x = np.mgrid[:24, :32]
    images = open_dataset(ALOHA, colour="bgr").episode(0).images
    assert list(images) == ["cam_high", "cam_left_wrist"]
    for number, frames in enumerate(images.values()):
        for step in range(4):
            truth = np.stack([200 + step * 3 + 0 * x, 60 + y * 2 + number * 20, 10 + x], axis=-1)
            assert worst(frames[step], truth) <= 14  # quality 50
    assert open_dataset(ALOHA, colour="rgb").episode(0).images["cam_high"][0][..., 2].min() > 180  # blue: the wrong one


def test_aloha_jpeg_needs_its_colour_said(tmp_path: Path, make_aloha: Make) -> None:
    make_aloha(tmp_path, images="padded")
    with pytest.raises(DataError, match=r"cam_high: expected `colour`.*args: \{colour: rgb\}, look at a frame"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, keys={"images": []})) == 3  # nobody looks
    with pytest.raises(DataError, match="colour: expected 'rgb' or 'bgr', got 'rbg'"):
        open_dataset(tmp_path, colour="rbg")


def test_aloha_raw_bgr(tmp_path: Path, make_aloha: Make) -> None:
    wrote = make_aloha(tmp_path, bgr=True)
    assert (
        worst(open_dataset(tmp_path, colour="bgr").episode(0).images["cam_high"], wrote[0]["frames"]["cam_high"]) == 0
    )


def test_aloha_half_a_picture(tmp_path: Path, make_aloha: Make) -> None:
    make_aloha(tmp_path, images="padded")
    with h5py.File(tmp_path / "episode_0.hdf5", "a") as file:
        pictures = file["observations/images/cam_high"]
        row = pictures[2]
        row[len(row) // 3 :] = 0
        pictures[2] = row
    frames = open_dataset(tmp_path, colour="rgb").episode(0).images["cam_high"]
    assert frames[1].shape == (24, 32, 3)
    with pytest.raises(DataError, match=r"episode_0\.hdf5:/observations/images/cam_high, frame 2: damaged"):
        frames[2]


def test_aloha_of_another_width(tmp_path: Path, make_aloha: Make) -> None:
    make_aloha(tmp_path)
    reader = open_dataset(tmp_path, keys={"action": ["action", "base_action"]})
    assert reader.features.action.names[-1] == "base_action_1"
    assert reader.features.control_space is None


def test_unknown_option(tmp_path: Path, make_aloha: Make) -> None:
    make_aloha(tmp_path)
    with pytest.raises(ConfigError, match=r"color: no such argument of AlohaReader; did you mean colour\?"):
        open_dataset(tmp_path, color="bgr")


# robomimic and robosuite


@pytest.fixture
def lift(tmp_path: Path, make_robomimic: Make) -> tuple[Path, list[dict[str, Any]]]:
    return tmp_path / "lift.hdf5", make_robomimic(tmp_path / "lift.hdf5", [5] * 11)


def test_robomimic(lift: tuple[Path, list[dict[str, Any]]]) -> None:
    path, wrote = lift
    reader = open_dataset(path)
    assert (reader.name, len(reader), reader.features.fps) == ("lift", 11, 20)
    assert list(reader.features.cameras) == ["agentview", "robot0_eye_in_hand"]
    for index in (2, 10):  # demo_10 is the last one, not the third
        episode = reader.episode(index)
        keys = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
        np.testing.assert_allclose(episode.state, np.hstack([wrote[index][key] for key in keys]), rtol=1e-6)
        np.testing.assert_allclose(episode.action, wrote[index]["actions"], rtol=1e-6)
        assert worst(episode.images["agentview"], wrote[index]["agentview_image"]) == 0
    assert [reader.episode(index).success for index in range(3)] == [True, False, True]
    assert reader.metadata(1) == {"success": False}


def test_robomimic_features(lift: tuple[Path, list[dict[str, Any]]]) -> None:
    features = open_dataset(lift[0]).features
    assert features.state is not None
    quat = tuple(f"robot0_eef_quat_{axis}" for axis in ("qx", "qy", "qz", "qw"))
    assert features.state.names == (
        "robot0_eef_pos_x",
        "robot0_eef_pos_y",
        "robot0_eef_pos_z",
        *quat,
        "robot0_gripper_qpos_0",
        "robot0_gripper_qpos_1",
    )
    assert features.state.rotations == (Rotation(quat, "quat_xyzw"),)
    assert features.state.units == ("m", "m", "m", "1", "1", "1", "1", "m", "m")
    assert features.state.grippers["robot0_gripper_qpos_1"] == (0.0, -0.04)
    assert features.action.names == ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert features.action.grippers == {"gripper": (1, -1)}
    assert features.action.rotations == ()  # a delta scaled to −1 … 1 is no rotation
    assert (features.control_space, features.control_type, features.robot) == ("ee", "delta", "panda")


def test_robomimic_low_dim_has_the_object(tmp_path: Path, make_robomimic: Make) -> None:
    wrote = make_robomimic(tmp_path / "x.hdf5", cameras=())
    reader = open_dataset(tmp_path / "x.hdf5")
    assert reader.features.cameras == {}
    assert reader.features.state is not None
    assert reader.features.state.object_names == tuple(f"object_{i}" for i in range(10))
    np.testing.assert_allclose(reader.episode(0).state[:, 9:], wrote[0]["object"], rtol=1e-6)


def test_robomimic_of_unknown_observations(tmp_path: Path, make_robomimic: Make) -> None:
    """A state is neither guessed nor silently left out; pictures alone are enough."""
    make_robomimic(tmp_path / "x.hdf5", [3])
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        obs = file["data/demo_0/obs"]
        obs.move("robot0_eef_pos", "arm_position")
        del obs["robot0_eef_quat"], obs["robot0_gripper_qpos"]
    with pytest.raises(DataError, match=r"expected a state that is known by its name, got .*Say which: keys\.state"):
        open_dataset(tmp_path / "x.hdf5")
    assert open_dataset(tmp_path / "x.hdf5", keys={"state": "arm_position"}).features.state_dim == 3
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        del file["data/demo_0/obs/arm_position"], file["data/demo_0/obs/object"]
    assert open_dataset(tmp_path / "x.hdf5").features.state is None


def test_robomimic_absolute_actions(lift: tuple[Path, list[dict[str, Any]]]) -> None:
    with h5py.File(lift[0], "a") as file:
        for demo in file["data"].values():
            demo["actions_abs"] = np.ones((5, 7))
    features = open_dataset(lift[0], keys={"action": "actions_abs"}).features
    assert features.control_type == "abs"
    assert features.action.rotations == (Rotation(("rx", "ry", "rz"), "axis_angle"),)
    assert features.action.units == ("m", "m", "m", "rad", "rad", "rad", "1")


def test_robomimic_mask(lift: tuple[Path, list[dict[str, Any]]]) -> None:
    path, wrote = lift
    with h5py.File(path, "a") as file:
        file["mask/lost"] = np.array([b"demo_77"])
    train = open_dataset(path, mask="train")
    assert len(train) == 2
    np.testing.assert_allclose(train.episode(1).action, wrote[2]["actions"], rtol=1e-6)
    assert train.fingerprint() != open_dataset(path).fingerprint()
    assert len(open_dataset(path, mask="train", episodes=[1])) == 1
    with pytest.raises(
        DataError, match=r"mask: expected one of \['lost', 'train', 'valid'\], got 'trian'; did you mean train\?"
    ):
        open_dataset(path, mask="trian")
    with pytest.raises(DataError, match=r"/mask/lost: expected demonstrations of the file, got \['demo_77'\]"):
        open_dataset(path, mask="lost")


def test_robomimic_flip(lift: tuple[Path, list[dict[str, Any]]]) -> None:
    path, wrote = lift
    frames = open_dataset(path, flip=True).episode(0).images["agentview"]
    assert worst(frames, wrote[0]["agentview_image"][:, ::-1]) == 0
    assert open_dataset(path, flip=True).fingerprint() != open_dataset(path).fingerprint()


def test_robomimic_files_of_a_directory(tmp_path: Path, make_robomimic: Make) -> None:
    make_robomimic(tmp_path / "part_2.hdf5", [3, 3])
    make_robomimic(tmp_path / "part_10.hdf5", [4])
    assert open_dataset(tmp_path).lengths().tolist() == [3, 3, 4]
    make_robomimic(tmp_path / "part_11.hdf5", [4], kwargs={"control_freq": 10})
    with pytest.raises(DataError, match=r"part_11\.hdf5: control_freq: expected 20 as the other files have, got 10"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"part_11\.hdf5: control space and type: expected \('ee', 'delta'\)"):
        open_dataset(tmp_path, fps=20)
    make_robomimic(tmp_path / "part_11.hdf5", [4], kwargs={"controller_configs": {"type": "OSC_POSE"}})
    assert open_dataset(tmp_path, fps=20).features.fps == 20


@pytest.mark.parametrize(
    ("controller", "space", "kind"),
    [
        ({"type": "OSC_POSE", "control_delta": False}, "ee", "abs"),
        ({"type": "OSC_POSE"}, "ee", "delta"),
        ({"type": "JOINT_POSITION"}, "joint", "delta"),
        ({"type": "JOINT_VELOCITY"}, None, None),
        ({"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE", "input_type": "absolute"}}}, "ee", "abs"),
        ({"type": "BASIC", "body_parts": {"right": {"type": "IK_POSE", "input_type": "delta"}}}, "ee", "delta"),
        (None, None, None),
    ],
)
def test_robomimic_controllers(
    tmp_path: Path, make_robomimic: Make, controller: Any, space: str | None, kind: str | None
) -> None:
    make_robomimic(tmp_path / "x.hdf5", kwargs={"control_freq": 20, "controller_configs": controller})
    features = open_dataset(tmp_path / "x.hdf5").features
    assert (features.control_space, features.control_type) == (space, kind)


@pytest.mark.parametrize(
    ("rewards", "dones", "reward_shaping", "success"),
    [
        ([0, 0, 1], [0, 0, 1], False, True),
        ([0, 0, 1], [0, 0, 1], None, True),
        ([0, 0, 0], [0, 0, 1], False, False),
        ([0, 0, 0], [0, 0, 1], None, None),
        ([0.1, 0.3, 0.7], [0, 0, 1], True, None),
        ([0.1, 0.3, 1.0], [0, 1, 1], True, True),
        ([0, 0, 0], [0, 1, 1], None, True),
    ],
)
def test_robomimic_success(
    tmp_path: Path, make_robomimic: Make, rewards: Any, dones: Any, reward_shaping: Any, success: bool | None
) -> None:
    path = tmp_path / "x.hdf5"
    make_robomimic(path, [3], kwargs={"control_freq": 20, "reward_shaping": reward_shaping})
    with h5py.File(path, "a") as file:
        file["data/demo_0/rewards"][:], file["data/demo_0/dones"][:] = rewards, dones
    assert open_dataset(path).episode(0).success is success


def test_robocasa_language(lift: tuple[Path, list[dict[str, Any]]]) -> None:
    with h5py.File(lift[0], "a") as file:
        for name, demo in file["data"].items():
            demo.attrs["ep_meta"] = json.dumps({"lang": f"lift {name}"})
    reader = open_dataset(lift[0])
    assert reader.features.language
    assert reader.episode(10).task == "lift demo_10"


def test_robomimic_attributes_that_are_damaged(lift: tuple[Path, list[dict[str, Any]]]) -> None:
    with h5py.File(lift[0], "a") as file:
        file["data"].attrs["env_args"] = "{half"
    with pytest.raises(DataError, match=r"lift\.hdf5:/data: attribute 'env_args': expected JSON"):
        open_dataset(lift[0])


@pytest.mark.skipif(not SHARED.exists(), reason="the folder of real recordings is not here")
def test_real_robosuite_demonstrations() -> None:
    """Human demonstrations of Lift as robosuite 1.4.0 ships them: no observations, no rate."""
    path = SHARED / "robosuite_lift_human.hdf5"
    with pytest.raises(DataError, match=r"expected a rate.*args: \{fps: …\}; robosuite's recorder ran at 20"):
        open_dataset(path)
    reader = open_dataset(path, fps=20)
    assert reader.lengths().tolist() == [482, 510, 392]
    assert reader.features.state is not None
    assert len(reader.features.state.object_names) == 32  # the whole simulator
    assert reader.features.action.names[-1] == "gripper"
    assert (reader.features.control_type, reader.features.robot) == ("delta", "panda")
    with h5py.File(path) as file:
        np.testing.assert_allclose(reader.episode(1).state, file["data/demo_2/states"][()], rtol=1e-6)
    assert reader.episode(1).success is None


# LIBERO


def test_libero(tmp_path: Path, make_libero: Make) -> None:
    bowl = make_libero(tmp_path / "KITCHEN_2_put_the_bowl_demo.hdf5")
    make_libero(tmp_path / "KITCHEN_10_open_the_drawer_demo.hdf5", [3], instruction="open the drawer")
    reader = open_dataset(tmp_path)
    assert reader.lengths().tolist() == [5, 4, 3]
    assert [reader.episode(index).task for index in (0, 2)] == ["put the bowl on the plate", "open the drawer"]
    assert list(reader.features.cameras) == ["agentview", "eye_in_hand"]
    assert (reader.features.fps, reader.features.language, reader.features.robot) == (20, True, "panda")
    episode = reader.episode(1)
    np.testing.assert_allclose(episode.state, np.hstack([bowl[1]["ee_states"], bowl[1]["gripper_states"]]), rtol=1e-6)
    assert worst(episode.images["eye_in_hand"], bowl[1]["eye_in_hand_rgb"]) == 0  # upright
    assert episode.success is True
    assert reader.features.state is not None
    assert reader.features.state.rotations == (Rotation(("ee_rx", "ee_ry", "ee_rz"), "axis_angle"),)
    assert reader.features.state.grippers["gripper_0"] == (0.0, 0.04)


def test_libero_keys(tmp_path: Path, make_libero: Make) -> None:
    make_libero(tmp_path / "x.hdf5")
    keys = {"state": ["joint_states", "gripper_states"], "images": {"front": "agentview_rgb"}}
    features = open_dataset(tmp_path / "x.hdf5", keys=keys).features
    assert features.state is not None
    assert features.state.names[:2] == ("joint_0", "joint_1")
    assert features.state.units == ("rad",) * 7 + ("m",) * 2
    assert list(features.cameras) == ["front"]


def test_libero_frames_are_turned_as_the_file_says(tmp_path: Path, make_libero: Make) -> None:
    for convention in ("opengl", "opencv"):
        wrote = make_libero(tmp_path / f"{convention}.hdf5", convention=convention)
        frames = open_dataset(tmp_path / f"{convention}.hdf5").episode(0).images["agentview"]
        assert worst(frames, wrote[0]["agentview_rgb"]) == 0
    with pytest.raises(DataError, match=r"macros_image_convention: expected 'opengl' or 'opencv', the same in every"):
        open_dataset(tmp_path)


def test_libero_that_does_not_say_how_it_was_rendered(tmp_path: Path, make_libero: Make) -> None:
    wrote = make_libero(tmp_path / "x.hdf5", convention=None)
    with pytest.raises(DataError, match=r"got \['None'\]. Look at a frame, and say args: \{flip: true\}"):
        open_dataset(tmp_path / "x.hdf5")
    frames = open_dataset(tmp_path / "x.hdf5", flip=False).episode(0).images["agentview"]
    assert worst(frames, wrote[0]["agentview_rgb"]) == 0
    assert len(open_dataset(tmp_path / "x.hdf5", keys={"images": []})) == 2


# Minari


def test_minari(tmp_path: Path, make_minari: Make) -> None:
    wrote = make_minari(tmp_path / "reach", [2] * 12)
    reader = open_dataset(tmp_path / "reach", fps=25)
    assert (reader.name, len(reader), reader.features.fps) == ("toy/reach-v0", 12, 25)
    assert reader.features.state is not None
    assert reader.features.state.names == ("goal_0", "goal_1", "observation_0", "observation_1", "observation_2")
    for index in (2, 10):
        episode = reader.episode(index)
        truth = wrote[index]
        np.testing.assert_allclose(episode.state, np.hstack([truth["goal"], truth["observation"]]), rtol=1e-6)
        np.testing.assert_array_equal(episode.action, truth["actions"])
        assert worst(episode.images["pixels"], truth["pixels"]) == 0
        assert (episode.seed, episode.success) == (100 + index, True)
    assert reader.episode(1).success is False


@pytest.mark.parametrize("place", [".", "data", "data/main_data.hdf5"])
def test_minari_by_any_of_its_paths(tmp_path: Path, make_minari: Make, place: str) -> None:
    make_minari(tmp_path / "reach", box=True)
    reader = open_dataset(tmp_path / "reach" / place, fps=25)
    assert reader.name == "toy/reach-v0"
    assert reader.features.state_dim == 3
    assert reader.lengths().tolist() == [4, 6, 3]


def test_minari_keys(tmp_path: Path, make_minari: Make) -> None:
    make_minari(tmp_path / "reach")
    keys = {"state": ["observation"], "images": {"front": "pixels"}}
    reader = open_dataset(tmp_path / "reach", fps=25, keys=keys)
    assert reader.episode(0).state.shape == (4, 3)
    assert list(reader.features.cameras) == ["front"]


def test_minari_keeps_no_rate(tmp_path: Path, make_minari: Make) -> None:
    make_minari(tmp_path / "reach")
    with pytest.raises(DataError, match=r"expected a rate, got none in the file.*render_fps"):
        open_dataset(tmp_path / "reach")


def test_minari_discrete_actions(tmp_path: Path, make_minari: Make) -> None:
    make_minari(tmp_path / "reach")
    with h5py.File(tmp_path / "reach/data/main_data.hdf5", "a") as file:
        for group in file.values():
            steps = len(group["actions"])
            del group["actions"]
            group["actions"] = np.zeros(steps, np.int64)
    with pytest.raises(DataError, match="expected continuous actions, got int64"):
        open_dataset(tmp_path / "reach", fps=25)


def test_minari_mission(tmp_path: Path, make_minari: Make) -> None:
    make_minari(tmp_path / "reach")
    with h5py.File(tmp_path / "reach/data/main_data.hdf5", "a") as file:
        for name, group in file.items():
            rows = [f"go to {name}"] * (len(group["actions"]) + 1)
            group.create_dataset("observations/mission", data=rows, dtype=h5py.string_dtype())
    reader = open_dataset(tmp_path / "reach", fps=25)
    assert reader.features.language
    assert reader.episode(2).task == "go to episode_2"


def test_written_by_minari_itself() -> None:
    """Minari 0.5.4: a Dict space with JPEG pictures (see the fixtures' README)."""
    reader = open_dataset(MINARI, fps=20)
    golden = np.load(MINARI / "golden.npz")
    assert len(reader) == 2
    for index in range(2):
        episode = reader.episode(index)
        state = np.hstack([golden[f"{index}/goal"], golden[f"{index}/observation"]])
        np.testing.assert_array_equal(episode.state, state[:-1])
        np.testing.assert_array_equal(episode.action, golden[f"{index}/actions"])
        difference = np.asarray(episode.images["pixels"]).astype(int) - golden[f"{index}/pixels"][:-1]
        assert np.abs(difference).max() <= 4  # two JPEG decoders
