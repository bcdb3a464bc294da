"""How well the control loop keeps time: a simulated robot in real time, and a policy that computes for 30 ms.

Prints one JSON line: jitter (how late ticks began) and missed ticks, and `ratio`, the p99 of the jitter over 2 ms.

    python benchmarks/control.py --seconds 60
    python benchmarks/control.py --robot dummy --policy python    # a policy that keeps the interpreter busy
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from menura.config import load_robot
from menura.control.controllers.real_time_chunking import RealTimeChunking
from menura.control.loop import ControlLoop
from menura.control.recording import ControlRecorder
from menura.control.status import ControlledEpisode
from menura.data import LeRobotWriter
from menura.priority import real_time
from menura.robots import Robot, make_robot

ALLOWED_MS = 2.0
SIMULATION = "aloha_transfer_sim"
LONG = ["--robot.args.env.args.max_episode_steps", "1000000"]  # a simulation rests when its episode is over


class Computing:
    """Answers where the robot is, after computing for so long: with torch, in Python, or not at all (asleep)."""

    n_action_steps = chunk_size = 50
    observation_offsets = (0,)
    name = "computing"

    def __init__(self, robot: Robot, kind: str, seconds: float, fps: float) -> None:
        self.features = replace(robot.features, fps=fps)
        self.required_cameras = tuple(self.features.cameras)
        self._kind, self._seconds = kind, seconds
        self._matrix = torch.rand(256, 256)

    def predict(self, obs: Mapping[str, Any], **given: Any) -> np.ndarray[Any, Any]:
        ends = time.perf_counter() + self._seconds
        if self._kind == "asleep":
            time.sleep(self._seconds)
        while time.perf_counter() < ends:
            if self._kind == "torch":
                with torch.inference_mode():
                    torch.relu(self._matrix @ self._matrix)
            else:
                sum(range(1000))
        held = np.resize(obs["state"][0], self.features.action_dim) if obs["state"].size else 0.0
        return np.broadcast_to(held, (1, self.chunk_size, self.features.action_dim)).astype(np.float32)

    def generator(self, seed: int | None) -> None:
        return None

    def reset(self) -> None:
        return None


def measure(options: argparse.Namespace) -> tuple[ControlledEpisode, str]:
    robot = make_robot(load_robot(options.robot, LONG if options.robot == SIMULATION else ()))
    policy = Computing(robot, options.policy, options.policy_ms / 1e3, options.fps or robot.features.fps)
    with ExitStack() as stack:
        controller = RealTimeChunking(execution_horizon=1)  # it asks again as soon as it has an answer
        loop = ControlLoop(robot, policy, controller, control_hz=options.control_hz)  # type: ignore[arg-type]
        stack.callback(loop.close)
        if options.record:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "recorded"
            loop.recorder = ControlRecorder(stack.enter_context(LeRobotWriter(directory, loop.features)))
        robot.connect()
        stack.callback(robot.disconnect)
        if not options.plain:
            stack.enter_context(real_time())
        scheduler = {os.SCHED_FIFO: "FIFO"}.get(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, "ordinary")
        return loop.run_episode(options.seconds, seed=0), scheduler if sys.platform == "linux" else "ordinary"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robot", default=SIMULATION)
    parser.add_argument("--policy", choices=("torch", "python", "asleep"), default="torch")
    parser.add_argument("--policy_ms", type=float, default=30.0)
    parser.add_argument("--control_hz", type=float, default=50.0)
    parser.add_argument("--fps", type=float, help="of the policy; the robot's by default")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--record", action="store_true", help="record meanwhile")
    parser.add_argument(
        "--plain", action="store_true", help="without what `menura control` asks of Python and the system"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    episode, scheduler = measure(options)
    timing = episode.timing
    found = {
        "ratio": timing.jitter_ms.p99 / ALLOWED_MS,
        "missed": timing.missed,
        "overruns": timing.overruns,
        "ticks": timing.ticks,
        "jitter_ms": asdict(timing.jitter_ms),
        "work_ms": asdict(timing.work_ms),
        "inference_ms": asdict(timing.inference_ms),
        "observation_age_ms": asdict(timing.observation_age_ms),
        "holds": timing.holds,
        "ended": episode.ended,
        "scheduler": scheduler,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
