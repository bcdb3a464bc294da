"""ManiSkill 3: manipulation tasks in SAPIEN, stepped on the CPU, drawn only when asked.

Source: Tao et al., "ManiSkill3: GPU Parallelized Robotics Simulation and Rendering for Generalizable Embodied AI",
2024; https://github.com/haosulab/ManiSkill (`mani_skill/envs/sapien_env.py`, `utils/wrappers/gymnasium.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np

from menura.data.episode import Float32, UInt8
from menura.envs.base import Outcome, SimEnv
from menura.envs.packages import installed_versions, known, load_package
from menura.errors import EnvironmentFailure
from menura.features import CameraFeature, ControlSpace, ControlType, Features, Rotation, VectorFeature

_CONTROL: dict[str, tuple[ControlSpace, ControlType]] = {
    "pd_ee_delta_pose": ("ee", "delta"),
    "pd_ee_delta_pos": ("ee", "delta"),
    "pd_joint_delta_pos": ("joint", "delta"),
    "pd_joint_pos": ("joint", "abs"),
}
_TCP = ("tcp_x", "tcp_y", "tcp_z", "tcp_qw", "tcp_qx", "tcp_qy", "tcp_qz")
_INSTALL = (
    "Run `pip install mani-skill`, where a Vulkan device is (a GPU's driver, or Mesa's lavapipe 24.3 or later); beside "
    "packages it disagrees with, in an environment of its own that the YAML names: `python: maniskill/bin/python`."
)
# How SAPIEN, which draws, says that no Vulkan device is there, or none that can do what it needs (its issues 194, 195).
_NO_VULKAN = ("failed to find a rendering device", "vk::")
TASKS = (
    *("PickCube-v1", "PushCube-v1", "PullCube-v1", "StackCube-v1", "PegInsertionSide-v1", "PlugCharger-v1"),
    *("LiftPegUpright-v1", "PokeCube-v1", "RollBall-v1", "PlaceSphere-v1", "PushT-v1", "TurnFaucet-v1"),
)


class ManiSkillEnv(SimEnv):
    """One task of ManiSkill 3, one environment, on the CPU backend, at ManiSkill's own rate (20 Hz).

    State: the robot's joint positions (rad; a Panda's fingers in m) and the tool's pose (m, quaternion w x y z); with
    `object_state` everything else that ManiSkill's `state_dict` tells, of objects and goals. Action: as the control
    mode has it, within its own bounds. An episode ends at the step limit only.

    Args:
        task: an id, such as `PickCube-v1`; any that ManiSkill has registered.
        control_mode: `pd_ee_delta_pose` (1 ≙ 10 cm, 0.1 rad), `pd_ee_delta_pos`, `pd_joint_delta_pos`, `pd_joint_pos`.
        cameras: `{name: [height, width]}` of ManiSkill's sensors, most often `base_camera` and `hand_camera`; all at
            one size.
        object_state: whether the state tells of objects and goals.
        instruction: what is to be done, in words; the task's name where there are none.
        max_episode_steps: by default the one ManiSkill registered.
    """

    distributions: ClassVar[tuple[str, ...]] = ("mani-skill", "sapien", "torch", "gymnasium")
    suites: ClassVar[Mapping[str, tuple[str, ...]]] = {"table_top": TASKS}
    supported: ClassVar[bool] = False

    def __init__(
        self,
        task: str = "PickCube-v1",
        control_mode: str = "pd_ee_delta_pose",
        cameras: Mapping[str, tuple[int, int]] | None = None,
        object_state: bool = False,
        instruction: str = "",
        max_episode_steps: int | None = None,
    ) -> None:
        known("ManiSkillEnv.control_mode", control_mode, _CONTROL)
        self._cameras = dict(cameras or {})
        self._sim = _make(task, control_mode, self._cameras)
        self._object_state = object_state
        self._observed: Mapping[str, Any]
        self._observed, _ = self._sim.reset(seed=0)
        self.task = instruction or task.partition("-")[0]
        self.max_episode_steps = max_episode_steps or int(self._sim.spec.max_episode_steps)
        self.success_rule = 'ManiSkill\'s info["success"] at any step'
        space, (control, type_) = self._sim.action_space, _CONTROL[control_mode]
        width = space.shape[0]
        names = (*(f"{'ee' if control == 'ee' else 'joint'}_{i}" for i in range(width - 1)), "gripper")
        self.noisy_actions = np.array([True] * (width - 1) + [False])
        self.features = Features(
            state=self._state_feature(),
            action=VectorFeature(names, grippers={"gripper": (-1.0, 1.0)}),
            cameras={name: CameraFeature(height, width) for name, (height, width) in self._cameras.items()},
            fps=float(self._sim.unwrapped.control_freq),
            language=bool(instruction),
            control_space=control,
            control_type=type_,
            robot=str(self._sim.unwrapped.robot_uids),
        )
        self.declare_spaces(space.low, space.high)

    def start(self, seed: int) -> None:
        self._observed, _ = self._sim.reset(seed=seed)

    def apply(self, action: Float32) -> Outcome:
        self._observed, reward, _, _, info = self._sim.step(action)
        return Outcome(float(reward), success=bool(info["success"]))

    def state(self) -> Float32:
        parts = [self._observed["agent"]["qpos"], self._observed["extra"]["tcp_pose"]]
        parts += [value for _, value in self._objects()] if self._object_state else []
        return np.concatenate([np.asarray(part, np.float32).ravel() for part in parts])

    def image(self, camera: str) -> UInt8:
        return _picture(self._sim.unwrapped.get_sensor_images()[camera]["rgb"])

    def render(self) -> UInt8:
        return _picture(self._sim.render())

    def protocol(self) -> dict[str, Any]:
        return {**super().protocol(), "versions": installed_versions(self.distributions)}

    def close(self) -> None:
        self._sim.close()

    def _objects(self) -> Iterator[tuple[str, Any]]:
        return ((key, value) for key, value in self._observed["extra"].items() if key != "tcp_pose")

    def _state_feature(self) -> VectorFeature:
        joints = tuple(f"qpos_{i}" for i in range(np.size(self._observed["agent"]["qpos"])))
        objects = tuple(f"{key}_{i}" for key, value in self._objects() for i in range(np.size(value)))
        shown = objects if self._object_state else ()
        return VectorFeature((*joints, *_TCP, *shown), object_names=shown, rotations=(Rotation(_TCP[3:], "quat_wxyz"),))


def _make(task: str, control_mode: str, cameras: Mapping[str, tuple[int, int]]) -> Any:
    """ManiSkill's environment in the wrapper that makes it a plain one: numpy, no batch."""
    load_package("mani_skill.envs", "ManiSkillEnv", _INSTALL)
    wrappers = load_package("mani_skill.utils.wrappers.gymnasium", "ManiSkillEnv", _INSTALL)
    sizes = set(map(tuple, cameras.values()))
    if len(sizes) > 1:
        raise EnvironmentFailure(f"ManiSkillEnv.cameras: expected one size for all, got {sorted(sizes)}.")
    further: dict[str, Any] = {"num_envs": 1, "sim_backend": "physx_cpu"}
    for height, width in sizes:
        further["sensor_configs"] = {"height": height, "width": width}
    known("ManiSkillEnv.task", task, [id for id in gymnasium.registry if "/" not in id])
    further |= {"obs_mode": "state_dict", "control_mode": control_mode, "render_mode": "rgb_array"}
    try:
        env = gymnasium.make(task, **further)
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_VULKAN):
            raise
        raise EnvironmentFailure(
            f"ManiSkillEnv: expected a Vulkan device, which it needs without any camera too, got: {error}. "
            "Install a GPU's driver, or Mesa's lavapipe 24.3 or later."
        ) from error
    lacking = [name for name in cameras if name not in env.unwrapped.scene.sensors]  # type: ignore[attr-defined]
    if lacking:
        sensors_there = ", ".join(env.unwrapped.scene.sensors)  # type: ignore[attr-defined]
        raise EnvironmentFailure(f"ManiSkillEnv.cameras: expected some of {sensors_there}, got {lacking[0]!r}.")
    return wrappers.CPUGymWrapper(env)


def _picture(drawn: Any) -> UInt8:
    """(H, W, 3) uint8 of what may be a tensor with a batch of one."""
    array = np.asarray(drawn.cpu() if hasattr(drawn, "cpu") else drawn)
    picture: UInt8 = (array[0] if array.ndim == 4 else array)[..., :3].astype(np.uint8)
    return picture
