"""The control loop: sensing, inference and control at rates of their own; whatever is missing, the robot holds.

Control runs in the thread that calls it, on absolute deadlines, and never waits for anything but the robot that takes
its command. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from menura.clock import Clock, WallClock
from menura.control.controllers.base import Controller
from menura.control.episode import Episode
from menura.control.planning import ChunkPolicy, Planner
from menura.control.recording import ControlRecorder
from menura.control.safety import Safety
from menura.control.sensing import Sensing
from menura.control.status import ControlledEpisode, Ended, Status
from menura.control.watchdog import WatchdogSettings
from menura.errors import ContractError, FeatureMismatch
from menura.features import Features
from menura.robots.base import Robot, RobotError
from menura.teleop.base import Teleoperator


@dataclass(frozen=True)
class SafetySettings:
    """How a robot is kept safe, within its limits.

    Attributes:
        max_plan_age_s: a plan whose observation is older is not executed; None: the length of a chunk and a second.
        slow_start_s: over so many seconds from an episode's first command on, the steps allowed grow from none to all.
    """

    max_plan_age_s: float | None = None
    slow_start_s: float = 1.0


class ControlLoop:
    """Drives a robot by a policy, episode after episode.

    Each tick: what was sensed last is looked at, what the policy answered goes to the controller, its command (or that
    of an engaged teleoperator) goes through safety to the robot, and an inference is begun when the controller wants
    one. What is missing or too old makes the robot hold.

    Args:
        robot: connected before the first episode; read by one thread while another one commands it.
        policy: a `MetaPolicy` or a `ServedPolicy`.
        controller: turns chunks into commands.
        control_hz: commands per second.
        chunk_hz: actions per second of a chunk; the fps of the policy's features, when None.
        sensing_hz: readings per second; the robot's own fps, when None.
        task: the instruction in words.
        safety: how it is kept, within the robot's limits.
        watchdog: how long the loop waits for what it needs.
        clock: whose time everything is of, and which goes by itself, as threads wait for one another; the robot's and
            the teleoperator's clocks are set to it.
        teleop: takes over while it is engaged; connected before the first episode.
        dry_run: everything but `send_action`.
        observers: called at every tick, in the control thread: they must return at once.

    Attributes:
        recorder: records what is seen and sent, from the next episode on; None: nobody does.

    Raises:
        RobotError: the robot has no limits.
        FeatureMismatch: policy and robot disagree on what an observation or an action is, or nobody says how fast the
            policy's actions are meant.
        ContractError: rates that cannot be, a teleoperator that cannot drive the robot.
    """

    def __init__(
        self,
        robot: Robot,
        policy: ChunkPolicy,
        controller: Controller,
        *,
        control_hz: float,
        chunk_hz: float | None = None,
        sensing_hz: float | None = None,
        task: str = "",
        safety: SafetySettings | None = None,
        watchdog: WatchdogSettings | None = None,
        clock: Clock | None = None,
        teleop: Teleoperator | None = None,
        dry_run: bool = False,
        observers: Sequence[Callable[[Status], None]] = (),
    ) -> None:
        if robot.limits is None:
            raise RobotError(f"{robot.name}: expected limits, got none: it is not driven. Write `limits:` in its YAML.")
        refuse_differences(policy, robot)
        self.robot, self.policy, self.controller, self.teleop = robot, policy, controller, teleop
        self.recorder: ControlRecorder | None = None  # its features are `self.features`
        self.task = task
        self.dry_run = dry_run
        self.clock: Clock = WallClock() if clock is None else clock
        self.robot.clock = self.clock
        if teleop is not None:
            teleop.clock = self.clock
            teleop.begin(robot)
        self.control_period_s = _period("control_hz", control_hz)
        self.sensing_period_s = _period("sensing_hz", sensing_hz or robot.features.fps or control_hz)
        self.features = driven_features(policy, robot, chunk_hz)
        self.chunk_period_s = 1.0 / self.features.fps
        safety = safety or SafetySettings()
        longest_s = (policy.chunk_size or 1) * self.chunk_period_s + 1.0
        self.safety = Safety(
            self.features,
            robot.limits,
            self.control_period_s,
            max_plan_age_s=longest_s if safety.max_plan_age_s is None else safety.max_plan_age_s,
            slow_start_s=safety.slow_start_s,
        )
        self.watchdog = watchdog or WatchdogSettings()
        self.observers = tuple(observers)
        self.planner = Planner(policy, self.chunk_period_s, self.clock, robot.inference_delay_s)
        self.paused = False
        self.asked_to_end: tuple[Ended, str] | None = None
        controller.begin(self.features, self.control_period_s)  # refused before anything moves

    def run_episode(self, max_seconds: float, seed: int | None = None) -> ControlledEpisode:
        """One episode: until the task is solved, the time is over, somebody ends it, or a fault does.

        Args:
            max_seconds: from the first command on.
            seed: of a simulated robot and of a policy that samples.

        Raises:
            RobotError: the robot cannot begin.
            DataError: the recording cannot begin.
        """
        self.paused = False
        self.robot.reset(seed)
        self.planner.begin(seed)
        if self.teleop is not None:
            self.teleop.sent(None)
        if self.recorder is not None:
            self.recorder.begin(task=self.task, seed=seed)
        span_s = -min(self.policy.observation_offsets) * self.chunk_period_s
        try:
            with Sensing(self.robot, self.clock, self.sensing_period_s, span_s) as sensing:
                episode = Episode(self, sensing, max_seconds)
                try:
                    while not episode.over:
                        episode.tick()
                finally:
                    episode.hold_at_last()
        except BaseException:
            if self.recorder is not None:
                self.recorder.discard()
            raise
        finally:
            self.asked_to_end = None  # only now: who stops it before it begins means this one
        return episode.result()

    def stop(self, reason: str, ended: Ended = "quit") -> None:
        """End the episode at the next tick: the robot is told to hold. May be called by any thread, or by a signal.

        What was asked for first counts, but for an emergency stop.
        """
        if self.asked_to_end is None or ended == "emergency stop":
            self.asked_to_end = (ended, reason)

    def close(self) -> None:
        """Let the policy's thread go."""
        self.planner.close()


def driven_features(policy: ChunkPolicy, robot: Robot, chunk_hz: float | None) -> Features:
    """What is driven: the robot's features, with the fps of the policy's chunks, and what only the policy knows."""
    own, theirs = robot.features, policy.features
    fps = theirs.fps if chunk_hz is None else chunk_hz
    if not fps > 0:
        raise FeatureMismatch(
            "policy: expected the fps of its actions in its features, got none: nobody knows how fast they are meant. "
            "Say it: --chunk_hz N."
        )
    return replace(
        own,
        fps=fps,
        control_space=own.control_space or theirs.control_space,
        control_type=own.control_type or theirs.control_type,
    )


def refuse_differences(policy: ChunkPolicy, robot: Robot) -> None:
    """Raises FeatureMismatch that names every difference between a policy's features and a robot's.

    Their fps may differ: the policy's is that of its chunks, whatever the rates of sensing and control are.
    """
    policy.features.require_same(
        replace(robot.features, fps=0.0),
        where=robot.name,
        expected="what the policy was made with",
        step="Change the robot's args, or train anew.",
    )
    robot.features.require_cameras(policy.required_cameras, where=robot.name, step="Add them to the robot's args.")


def _period(name: str, hz: float) -> float:
    if not hz > 0:
        raise ContractError(f"{name}: expected hertz above 0, got {hz}.")
    return 1.0 / hz
