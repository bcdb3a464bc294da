"""A small arm, and policies that say what they are told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.checkpoint import save_checkpoint
from menura.config.schema import ProcessorConfig
from menura.control.controllers.delay_compensated import DelayCompensated
from menura.control.loop import ControlLoop, SafetySettings
from menura.control.recording import ControlRecorder
from menura.control.watchdog import WatchdogSettings
from menura.data import LeRobotWriter
from menura.data.statistics import compute_statistics
from menura.features import Features
from menura.policies.contract import build_policy
from menura.policies.mlp.modeling_mlp import MLPPolicy
from menura.processing.processor import Processor
from menura.robots import Robot
from menura.robots.dummy import DummyRobot
from menura.robots.sim import SimRobot

CHUNK_HZ = 50.0
CHUNK_SIZE = 20
LIMITS = {"low": -1.0, "high": 1.0}


class Arm(DummyRobot):
    """Two joints and a gripper, sensed 200 times a second; keeps what it was sent. Faults are switched on and off."""

    def __init__(self, **settings: Any) -> None:
        given = {"fps": 200.0, "lag_s": 0.0, "limits": LIMITS, "cameras": {"front": [16, 16]}}
        super().__init__({"names": ["a", "b", "grip"], "grippers": {"grip": [0.0, 1.0]}}, **{**given, **settings})
        self.commands: list[np.ndarray] = []
        self.broken: str | None = None  # what reading and sending raise
        self.solved: bool | None = None

    def get_observation(self) -> Any:
        self._require_sound()
        return super().get_observation()

    def send_action(self, action: Any) -> Any:
        self._require_sound()
        sent = super().send_action(action)
        self.commands.append(sent)
        return sent

    def success(self) -> bool | None:
        return self.solved

    def _require_sound(self) -> None:
        if self.broken is not None:
            raise OSError(self.broken)


#: Three numbers that go where they are told, seen by a camera.
ENVIRONMENT = """\
import numpy as np

from menura.envs.base import Outcome, SimEnv
from menura.features import CameraFeature, Features, VectorFeature


class Reach(SimEnv):
    def __init__(self):
        joints = VectorFeature(("a", "b", "grip"), grippers={"grip": (0.0, 1.0)})
        self.features = Features(joints, joints, {"front": CameraFeature(16, 16)}, fps=50.0, control_type="abs")
        self.task, self.success_rule, self.max_episode_steps = "reach", "never", 1_000_000
        self.noisy_actions = np.array([True, True, False])
        self.declare_spaces([-1.0] * 3, [1.0] * 3)

    def start(self, seed):
        self.at = np.zeros(3, np.float32)

    def apply(self, action):
        self.at = action
        return Outcome(0.0, False)

    def state(self):
        return self.at.copy()

    def image(self, camera):
        return np.zeros((16, 16, 3), np.uint8)
"""


class Simulated(SimRobot):
    """A simulation in real time that keeps what it was sent, and whose camera can be stopped."""

    def __init__(self, environment: Path, **settings: Any) -> None:
        super().__init__({"class": f"{environment}:Reach"}, **settings)
        self.commands: list[np.ndarray] = []
        self.camera_stopped = False
        self._picture: Any = None

    def get_observation(self) -> Any:
        seen = super().get_observation()
        if self._picture is None or not self.camera_stopped:
            self._picture = seen["images"]["front"], seen["times"]["front"]
        seen["images"]["front"], seen["times"]["front"] = self._picture
        return seen

    def send_action(self, action: Any) -> Any:
        sent = super().send_action(action)
        self.commands.append(sent)
        return sent


class Scripted:
    """A policy whose every action is `target`, or what `answer` makes of an observation."""

    chunk_size: int | None = CHUNK_SIZE
    n_action_steps = CHUNK_SIZE
    name = "scripted"

    def __init__(self, robot: Robot, *, target: float = 0.5, took_s: float = 0.005, **settings: Any) -> None:
        self.features = settings.pop("features", robot.features)
        self.features = type(self.features)(**{**self.features.__dict__, "fps": settings.pop("fps", CHUNK_HZ)})
        self.required_cameras = tuple(self.features.cameras)
        self.observation_offsets = settings.pop("offsets", (0,))
        self.target, self.took_s = target, took_s
        self.asked: list[Mapping[str, Any]] = []
        self.pads: list[Any] = []
        self.problem: BaseException | None = None
        assert not settings

    def predict(self, obs: Mapping[str, Any], *, observation_is_pad: Any = None, **given: Any) -> np.ndarray:
        self.asked.append(obs)
        self.pads.append(observation_is_pad)
        time.sleep(self.took_s)
        if self.problem is not None:
            raise self.problem
        return self.answer(obs)

    def answer(self, obs: Mapping[str, Any]) -> np.ndarray:
        return np.full((1, CHUNK_SIZE, self.features.action_dim), self.target, np.float32)

    def generator(self, seed: int | None) -> None:
        return None

    def reset(self) -> None:
        return None


@pytest.fixture
def save_run() -> Callable[..., Path]:
    """`save_run(directory, features, rows, chunk_size)`: an untrained policy's checkpoint, whose statistics of state
    and action are those of the rows (n, D)."""

    def save(directory: Path, features: Features, rows: np.ndarray, chunk_size: int) -> Path:
        statistics = {"toy": {"state": compute_statistics(rows), "action": compute_statistics(rows)}}
        size = {"chunk_size": chunk_size, "n_action_steps": chunk_size, "hidden_size": 8}
        policy = build_policy(MLPPolicy, size, features)
        save_checkpoint(
            directory,
            policy=policy,
            processor=Processor.build(ProcessorConfig(), features, statistics, policy.config, uses=("state",)),
            features=features,
            task=None,
            datasets={"toy": "0"},
            seed=0,
            golden={"state": rows[:2].astype(np.float32), "images": {}, "task": ["", ""]},
        )
        return directory

    return save


@pytest.fixture
def make_arm() -> Callable[..., Arm]:
    return Arm


@pytest.fixture
def simulated(tmp_path: Path) -> Simulated:
    (tmp_path / "reach.py").write_text(ENVIRONMENT)
    return Simulated(tmp_path / "reach.py")


@pytest.fixture
def make_policy() -> Callable[..., Scripted]:
    return Scripted


@pytest.fixture
def make_loop() -> Iterator[Callable[..., ControlLoop]]:
    """A loop of 100 Hz around a connected robot, without a slow start."""
    with ExitStack() as stack:

        def make(robot: Robot, policy: Any, **settings: Any) -> ControlLoop:
            watchdog = settings.pop("watchdog", {})
            given: dict[str, Any] = {
                "control_hz": 100.0,
                "safety": SafetySettings(slow_start_s=0.0),
                "watchdog": WatchdogSettings(
                    **{
                        "max_observation_age_s": 30.0,
                        "max_inference_s": 30.0,
                        "patience_s": 60.0,
                        "robot_patience_s": 60.0,
                        **watchdog,
                    }
                ),
            }
            loop = ControlLoop(robot, policy, settings.pop("controller", DelayCompensated()), **{**given, **settings})
            stack.callback(loop.close)
            robot.connect()
            stack.callback(robot.disconnect)
            return loop

        yield make


@pytest.fixture
def make_recorder(tmp_path: Path) -> Iterator[Callable[..., ControlRecorder]]:
    """A recorder of what the policy drives, into `tmp_path / "recorded"`."""
    with ExitStack() as stack:

        def make(features: Any) -> ControlRecorder:
            return ControlRecorder(stack.enter_context(LeRobotWriter(tmp_path / "recorded", features, resume=True)))

        yield make
