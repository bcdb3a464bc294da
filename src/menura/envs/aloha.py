"""ALOHA: two ViperX arms over a table, on the models and reward stages of gym-aloha.

The package's own environment draws three 480x640 cameras in every step and declares actions in [-1, 1], which joint
angles in radians are not. This one takes its models and tasks, and draws only what is asked for.

Source: Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", 2023; gym-aloha 0.1.5.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Float32, UInt8
from menura.envs.base import Outcome, SimEnv
from menura.envs.cameras import Camera, Pose, parse_cameras, poses
from menura.envs.mujoco_renderer import MujocoRenderer, halved
from menura.envs.rendering import choose_backend
from menura.errors import EnvironmentFailure, did_you_mean
from menura.features import Features, RenderMode, VectorFeature

FPS = 50
_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
ACTION_NAMES = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _JOINTS)
GRIPPERS = (6, 13)
_UNITS = (("rad",) * 6 + ("1",)) * 2
_VIEW = Pose(lookat=(0.0, 0.5, 0.16), distance=1.25, azimuth=90.0, elevation=-24.0)
_FIRST_OBJECT = 16  # the arms' 16 joints come first in qpos, then 7 numbers (x y z, w x y z) for each free object


@dataclass(frozen=True)
class AlohaTask:
    """A task of gym-aloha."""

    model: str
    task_class: str
    sampler: str
    objects: tuple[str, ...]
    sentence: str
    success_rule: str


TASKS = {
    "transfer_cube": AlohaTask(
        "bimanual_viperx_transfer_cube.xml",
        "TransferCubeTask",
        "sample_box_pose",
        ("cube",),
        "pick up the cube with the right arm and hand it over to the left arm",
        "reward 4 at any step: the left gripper touches the cube, and the cube is off the table",
    ),
    "insertion": AlohaTask(
        "bimanual_viperx_insertion.xml",
        "InsertionTask",
        "sample_insertion_pose",
        ("peg", "socket"),
        "pick up the peg with the right arm and the socket with the left arm, and insert the peg into the socket",
        "reward 4 at any step: the peg touches the pin inside the socket",
    ),
}


class AlohaEnv(SimEnv):
    """Two arms, 14 absolute joint targets at 50 Hz.

    State: 14 joint positions (rad; grippers 0 closed … 1 open), then x, y, z (m) of each object when `object_state`.
    Action: 14 targets of the same meaning. They are never rescaled nor clipped; the actuators have limits of their own,
    which `action_space` states. An episode ends at the step limit only, not at success.

    Args:
        task: `transfer_cube` or `insertion`.
        cameras: `{name: [height, width]}`, `view` or a camera of the model (`top`, `angle`, `left_pillar`,
            `right_pillar`, `front_close`, `left_wrist`, `right_wrist`), or a pose (see `menura.envs.cameras`).
        render: `fast` (no shadows, no multisampling) or `full`.
        object_state: whether the state holds the objects' positions.
        max_episode_steps: the step limit.
        video_size: [height, width] of `render()`.
    """

    packages: ClassVar[tuple[str, ...]] = ("gym-aloha", "dm_control", "mujoco", "gymnasium")

    def __init__(
        self,
        task: str = "transfer_cube",
        cameras: Mapping[str, Any] | None = None,
        render: RenderMode = "fast",
        object_state: bool = True,
        max_episode_steps: int = 300,
        video_size: tuple[int, int] = (240, 320),
    ) -> None:
        if task not in TASKS:
            raise EnvironmentFailure(
                f"AlohaEnv.task: expected one of {list(TASKS)}, got {task!r}{did_you_mean(task, TASKS) or '.'}"
            )
        spec = TASKS[task]
        self._physics, self._task, self._place_objects = _load(spec)
        self._diverged: type[Exception] = importlib.import_module("dm_control.rl.control").PhysicsError
        model = self._physics.model.ptr
        names = [model.camera(i).name for i in range(model.ncam)]
        self._cameras = parse_cameras(cameras or {}, {"view": _VIEW}, names)
        self._video = Camera("view", 2 * video_size[0], 2 * video_size[1], _VIEW)
        self.renderer = MujocoRenderer(model, (*self._cameras.values(), self._video), render)
        self._object_state = object_state
        self._objects = spec.objects
        self.task = spec.sentence
        self.success_rule = spec.success_rule
        self.max_episode_steps = max_episode_steps
        self.noisy_actions = ~np.isin(np.arange(14), GRIPPERS)
        self.features = self._describe(render)
        limits = model.actuator_ctrlrange[[0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]]
        low, high = (np.insert(bound, [6, 12], gripper) for bound, gripper in zip(limits.T, (0.0, 1.0), strict=True))
        self.declare_spaces(low, high)

    def _describe(self, render: RenderMode) -> Features:
        grippers = {ACTION_NAMES[place]: (0.0, 1.0) for place in GRIPPERS}
        objects = tuple(f"{name}_{axis}" for name in self._objects for axis in "xyz") if self._object_state else ()
        return Features(
            state=VectorFeature(
                ACTION_NAMES + objects, _UNITS + ("m",) * len(objects), object_names=objects, grippers=grippers
            ),
            action=VectorFeature(ACTION_NAMES, _UNITS, grippers=grippers),
            cameras={name: camera.feature(render) for name, camera in self._cameras.items()},
            fps=FPS,
            language=True,
            control_space="joint",
            control_type="abs",
            robot="aloha",
        )

    @property
    def model(self) -> Any:
        """The `mujoco.MjModel`, for an expert's kinematics."""
        return self._physics.model.ptr

    def object_positions(self) -> NDArray[np.float64]:
        """(objects, 3) x, y, z in metres, whether or not the state tells them."""
        free_joints = self._physics.data.qpos[_FIRST_OBJECT:].reshape(len(self._objects), 7)
        positions: NDArray[np.float64] = free_joints[:, :3].copy()
        return positions

    def start(self, seed: int) -> None:
        self._place_objects(seed)
        with self._physics.reset_context():
            self._task.initialize_episode(self._physics)

    def apply(self, action: Float32) -> Outcome:
        self._task.before_step(action.astype(np.float64), self._physics)
        try:
            self._physics.step(round(1 / FPS / self._physics.timestep()))
        except self._diverged:
            # Wild targets, such as a random policy's, can make the simulation diverge: that episode is lost.
            return Outcome(0.0, success=False, terminated=True, info={"diverged": True})
        reward = int(self._task.get_reward(self._physics))
        return Outcome(float(reward), success=reward == self._task.max_reward)

    def state(self) -> Float32:
        joints = self._task.get_qpos(self._physics)
        parts = [joints, self.object_positions().ravel()] if self._object_state else [joints]
        return np.concatenate(parts).astype(np.float32)

    def image(self, camera: str) -> UInt8:
        return self.renderer.draw(self._physics.data.ptr, self._cameras[camera])

    def render(self) -> UInt8:
        return halved(self.renderer.draw(self._physics.data.ptr, self._video))

    def protocol(self) -> dict[str, Any]:
        return {**super().protocol(), "camera_poses": poses(self._cameras)}

    def close(self) -> None:
        self.renderer.close()
        self._physics.free()


def _load(spec: AlohaTask) -> tuple[Any, Any, Callable[[int], None]]:
    """Physics, task, and the function that sets where the objects start for a seed."""
    choose_backend()
    logging.getLogger("absl").setLevel(logging.ERROR)  # dm_control warns of what `apply` makes an outcome
    try:
        constants = importlib.import_module("gym_aloha.constants")
        tasks = importlib.import_module("gym_aloha.tasks.sim")
        utils = importlib.import_module("gym_aloha.utils")
        mujoco = importlib.import_module("dm_control.mujoco")
    except ModuleNotFoundError as error:
        raise EnvironmentFailure(
            f"AlohaEnv: expected the package gym-aloha, got no module {error.name!r}. "
            "Run `pip install 'menura[aloha]'`."
        ) from error
    sample = getattr(utils, spec.sampler)

    def place_objects(seed: int) -> None:
        # gym-aloha's tasks read the objects' poses from this list.
        tasks.BOX_POSE[0] = np.concatenate(np.atleast_2d(sample(seed)))

    physics = mujoco.Physics.from_xml_path(str(constants.ASSETS_DIR / spec.model))
    return physics, getattr(tasks, spec.task_class)(), place_objects
