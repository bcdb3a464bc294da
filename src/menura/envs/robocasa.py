"""RoboCasa: a mobile Panda in 2,500 kitchens, 365 tasks with language.

Source: Nasiriany et al., "RoboCasa: Large-Scale Simulation of Everyday Tasks for Generalist Robots", 2024, and
RoboCasa365, 2026; https://github.com/robocasa/robocasa 1.0.1 (`robocasa/wrappers/gym_wrapper.py`,
`utils/env_utils.py`, `utils/dataset_registry_utils.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np

from menura.data.episode import Float32, UInt8
from menura.envs.base import Outcome, SimEnv
from menura.envs.packages import installed_versions, known, load_package
from menura.envs.rendering import choose_backend
from menura.errors import EnvironmentFailure, did_you_mean, listed
from menura.features import CameraFeature, Features, Rotation, VectorFeature

FPS = 20  # robosuite's control_freq
_CAMERAS = ("robot0_agentview_left", "robot0_agentview_right", "robot0_eye_in_hand")
# RoboCasa's key -> our names, in the order of its datasets.
_STATE = {
    "state.gripper_qpos": ("gripper_0", "gripper_1"),
    "state.base_position": ("base_x", "base_y", "base_z"),
    "state.base_rotation": ("base_qx", "base_qy", "base_qz", "base_qw"),
    "state.end_effector_position_relative": ("ee_x", "ee_y", "ee_z"),
    "state.end_effector_rotation_relative": ("ee_qx", "ee_qy", "ee_qz", "ee_qw"),
}
_ACTION = {  # `convert_action`
    "action.end_effector_position": ("x", "y", "z"),
    "action.end_effector_rotation": ("rx", "ry", "rz"),
    "action.gripper_close": ("gripper",),
    "action.base_motion": ("base_forward", "base_left", "base_turn", "torso"),
    "action.control_mode": ("drive",),
}
_NAMES = tuple(name for names in _ACTION.values() for name in names)
_INSTALL = (
    "It is in no registry and wants mujoco 3.3.1, numpy 2.2.5 and robosuite 1.5.2: make an environment of its own "
    "(Python 3.11), there `pip install git+https://github.com/ARISE-Initiative/robosuite "
    "git+https://github.com/robocasa/robocasa gymnasium msgpack`, `python -m robocasa.scripts.setup_macros` and "
    "`python -m robocasa.scripts.download_kitchen_assets` (10 GB), and name it in the YAML: "
    "`python: robocasa/bin/python`."
)


class RoboCasaEnv(SimEnv):
    """One of RoboCasa's tasks at 20 Hz.

    State: fingers (m), the base's pose in the world, the gripper's pose in the base's frame (m, quaternions x y z w).
    Action: deltas of the gripper's pose and the base's motion in [-1, 1], the gripper (0 open, 1 closed) and whether
    the base is driven (1) or the arm moved (0). RoboCasa draws its three cameras at every step, looked at or not.

    Args:
        task: a class of RoboCasa's, such as `PickPlaceCounterToCabinet`.
        split: `pretrain` or `target` kitchens and objects, or `all`.
        cameras: which of `robot0_agentview_left`, `robot0_agentview_right`, `robot0_eye_in_hand` are observed.
        image_size: height and width of every camera.
        max_episode_steps: by default the task's horizon in RoboCasa's registry.
    """

    distributions: ClassVar[tuple[str, ...]] = ("robocasa", "robosuite", "mujoco", "gymnasium")
    supported: ClassVar[bool] = False

    def __init__(
        self,
        task: str = "PickPlaceCounterToCabinet",
        split: str = "target",
        cameras: tuple[str, ...] = (),
        image_size: int = 256,
        max_episode_steps: int | None = None,
    ) -> None:
        known("RoboCasaEnv.split", split, ("pretrain", "target", "all"))
        shown = [known("RoboCasaEnv.cameras", name, _CAMERAS) for name in cameras]
        self._split = split
        self._sim, horizon = _make(task, split, image_size)
        self.max_episode_steps = max_episode_steps or horizon
        self.success_rule = "RoboCasa's _check_success() at any step"
        self.noisy_actions = np.array([name not in ("gripper", "drive") for name in _NAMES])
        state = tuple(name for names in _STATE.values() for name in names)
        quaternions = [_STATE[key] for key in _STATE if "rotation" in key]
        self.features = Features(
            state=VectorFeature(
                state,
                rotations=tuple(Rotation(names, "quat_xyzw") for names in quaternions),
                grippers={"gripper_0": (0.0, 0.04), "gripper_1": (0.0, -0.04)},
            ),
            action=VectorFeature(_NAMES, grippers={"gripper": (1.0, 0.0)}),
            cameras={name: CameraFeature(image_size, image_size) for name in shown},
            fps=FPS,
            language=True,
            control_space="ee",
            control_type="delta",
            robot="panda_omron",
        )
        self.start(0)
        self.declare_spaces([0 if name in ("gripper", "drive") else -1 for name in _NAMES], np.ones(len(_NAMES)))

    def start(self, seed: int) -> None:
        np.random.seed(seed % 2**32)  # noqa: NPY002 (robosuite draws from it)
        self._observed: Mapping[str, Any]
        self._observed, _ = self._sim.reset(seed=seed)
        self.task = str(self._observed["annotation.human.task_description"])

    def apply(self, action: Float32) -> Outcome:
        parts, begin = {}, 0
        for key, names in _ACTION.items():
            parts[key] = action[begin : begin + len(names)]
            begin += len(names)
        self._observed, reward, _, _, info = self._sim.step(parts)
        return Outcome(float(reward), success=bool(info["success"]))

    def state(self) -> Float32:
        return np.concatenate([self._observed[key] for key in _STATE]).astype(np.float32)

    def image(self, camera: str) -> UInt8:
        return np.array(self._observed[f"video.{camera}"], np.uint8)

    def render(self) -> UInt8:
        return self.image(_CAMERAS[0])

    def protocol(self) -> dict[str, Any]:
        return {**super().protocol(), "versions": installed_versions(self.distributions), "split": self._split}

    def close(self) -> None:
        self._sim.close()


def _make(task: str, split: str, image_size: int) -> tuple[Any, int]:
    """The package's environment, and the steps it gives the task."""
    choose_backend()
    load_package("robocasa", "RoboCasaEnv", _INSTALL)
    load_package("robocasa.wrappers.gym_wrapper", "RoboCasaEnv", _INSTALL)
    registry = load_package("robocasa.utils.dataset_registry_utils", "RoboCasaEnv", _INSTALL)
    tasks = [id.partition("/")[2] for id in gymnasium.registry if id.startswith("robocasa/")]
    if task not in tasks:
        raise EnvironmentFailure(
            f"RoboCasaEnv.task: expected one of RoboCasa's ({listed(tasks)}), got {task!r}"
            f"{did_you_mean(task, tasks) or '.'}"
        )
    sim = gymnasium.make(
        f"robocasa/{task}",
        split=split,
        camera_widths=image_size,
        camera_heights=image_size,
        disable_env_checker=True,
    )
    return sim, int(registry.get_task_horizon(task))
