"""`menura control`: a policy drives a robot, episode after episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from menura.clock import Clock, WallClock
from menura.config import ComponentConfig, load_controller, load_robot, load_teleop, split_section
from menura.control.controllers.base import Controller
from menura.control.controllers.make import make_controller
from menura.control.dashboard import Dashboard, summary
from menura.control.loop import ControlLoop, SafetySettings
from menura.control.operator import Operator
from menura.control.planning import ChunkPolicy, NoPolicy
from menura.control.recording import ControlRecorder
from menura.control.status import ControlledEpisode, Status
from menura.control.watchdog import WatchdogSettings
from menura.data import LeRobotWriter
from menura.errors import ConfigError, ContractError, MenuraError
from menura.files import write_json
from menura.priority import real_time
from menura.robots import Robot, make_robot
from menura.serving.client import is_address
from menura.teleop import Teleoperator, make_teleop
from menura.teleop.keyboard import Keyboard

if TYPE_CHECKING:
    from menura.meta_policy import MetaPolicy
    from menura.served_policy import ServedPolicy

#: By name, by its YAML's path, or inline.
Named = str | Path | Mapping[str, Any]

REPORT_FILE = "control.json"
SECTIONS = ("robot", "controller", "teleop")
#: How often a server that says nothing is asked before the loop's patience ends.
_TRIES = 3


@dataclass(frozen=True)
class ControlReport:
    """How the episodes went.

    Attributes:
        episodes: in their order.
        problem: what ended the run before its time: a fault or an emergency stop, in words.
        interrupted: whether Ctrl-C ended the run.
        recording: the dataset that was written, where one was.
    """

    episodes: tuple[ControlledEpisode, ...]
    problem: str | None = None
    interrupted: bool = False
    recording: Path | None = None

    @property
    def successes(self) -> int:
        return sum(episode.success is True for episode in self.episodes)

    @property
    def exit_code(self) -> int:
        """0: as asked for; 1: a fault or an emergency stop; 130: Ctrl-C."""
        return 1 if self.problem is not None else 130 if self.interrupted else 0

    def to_dict(self) -> dict[str, Any]:
        return {"problem": self.problem, "episodes": [episode.to_dict() for episode in self.episodes]}


def control(
    model: str | Path | MetaPolicy | ServedPolicy | None,
    robot: Named | Robot,
    *,
    task: str = "",
    controller: Named | Controller | None = None,
    control_hz: float | None = None,
    chunk_hz: float | None = None,
    sensing_hz: float | None = None,
    episodes: int = 1,
    max_seconds: float = 60.0,
    record: str | Path | None = None,
    teleop: Named | Teleoperator | None = None,
    dry_run: bool = False,
    output_dir: str | Path | None = None,
    seed: int | None = None,
    dataset: str | None = None,
    safety: SafetySettings | None = None,
    watchdog: WatchdogSettings | None = None,
    observers: Sequence[Callable[[Status], None]] = (),
    overrides: Sequence[str] = (),
    project: Path | None = None,
    trust_remote_code: bool = False,
    clock: Clock | None = None,
    console: Console | None = None,
) -> ControlReport:
    """Drive a robot by a policy, or by a teleoperator alone.

    Args:
        model: a run or a checkpoint, a server's address (`ws://…`), or a policy. None: the teleoperator drives, and
            while it is not engaged the robot holds; so demonstrations are recorded.
        robot, controller, teleop: by name (`configs/robot/…`), by path, inline, or the thing itself. The controller is
            `real_time_chunking` by default, `newest` for a policy that answers one action.
        task: the instruction in words; a simulated robot's own, when empty.
        control_hz: commands per second; the robot's fps by default.
        chunk_hz, sensing_hz, safety, watchdog, observers: as of `ControlLoop`.
        episodes: how many; each at most `max_seconds` from its first command on. On a real robot the next one waits for
            Enter, where there is a keyboard.
        record: a directory: a LeRobotDataset is written there, or gone on with.
        dry_run: everything but sending commands.
        output_dir: where `control.json` is written, after every episode.
        seed: of the first episode of a simulated robot, and of a policy that samples; then one more each.
        dataset: whose statistics hold, of a policy trained on several.
        overrides: `["--robot.args.x", "v", "--controller.args.y", "w"]`.
        project: where a user's own classes are looked for.
        trust_remote_code: allow code stored in the checkpoint to run when it is not in the project.
        clock, console: real time and standard error, when None.

    Raises:
        ConfigError, ComponentError, RobotError, FeatureMismatch, ContractError: what was given cannot be driven.
            Nothing has moved.
        DataError: the directory cannot be recorded into.
    """
    _refuse_others(overrides)
    if model is None and teleop is None:
        raise ContractError("control: expected a policy or a teleoperator, got neither. Give -m RUN, or --teleop NAME.")
    if model is None and (controller is not None or dataset is not None):
        raise ContractError("control: expected no controller and no dataset without a policy, got one. Leave it out.")
    if dry_run and record is not None:
        raise ContractError("control: expected a dry run or a recording, got both: nothing is sent. Leave out one.")
    made = _robot_of(robot, overrides, project)
    helper = _teleop_of(teleop, overrides, project)
    chosen = _controller_config(controller, overrides, project)  # all of these before torch is imported
    watchdog = watchdog or WatchdogSettings()
    with ExitStack() as stack:
        policy: ChunkPolicy
        if model is None:
            policy = NoPolicy(made.features)
        elif is_address(model):
            policy = _served(str(model), stack, watchdog, dataset)
        else:
            policy = _policy_of(model, stack, dataset=dataset, project=project, trust_remote_code=trust_remote_code)
        loop = ControlLoop(
            made,
            policy,
            _controller_of(chosen, policy, project),
            control_hz=made.features.fps if control_hz is None else control_hz,
            chunk_hz=chunk_hz,
            sensing_hz=sensing_hz,
            task=task or getattr(made, "task", ""),
            safety=safety,
            watchdog=watchdog,
            clock=WallClock() if clock is None else clock,
            teleop=helper,
            dry_run=dry_run,
        )
        stack.callback(loop.close)
        if record is not None:
            features = replace(loop.features, language=bool(loop.task))
            loop.recorder = ControlRecorder(stack.enter_context(LeRobotWriter(record, features, resume=True)))
        run = _Run(loop, episodes, max_seconds, seed, output_dir, observers, console or Console(stderr=True))
        report = run.run()
        return replace(report, recording=None if record is None else Path(record))


class _Run:
    """The episodes, with somebody at the terminal."""

    def __init__(
        self,
        loop: ControlLoop,
        episodes: int,
        max_seconds: float,
        seed: int | None,
        output_dir: str | Path | None,
        observers: Sequence[Callable[[Status], None]],
        console: Console,
    ) -> None:
        self._loop = loop
        self._wanted, self._max_seconds, self._seed = episodes, max_seconds, seed
        self._directory = None if output_dir is None else Path(output_dir)
        self._console = console
        self._operator = Operator(loop, capitals=isinstance(loop.teleop, Keyboard))
        by = loop.teleop if isinstance(loop.policy, NoPolicy) else loop.controller
        title = f"{loop.robot.name}, {type(by).__name__}"
        self._dashboard = Dashboard(title, console=console, keys=self._operator.help if self._operator.has_keys else "")
        loop.observers = (self._operator, self._dashboard, *observers)
        self._episodes: list[ControlledEpisode] = []
        self._problem: str | None = None

    def run(self) -> ControlReport:
        loop = self._loop
        for note in loop.safety.notes:
            self._say(f"safety: {note}")
        with ExitStack() as stack:
            stack.callback(loop.robot.disconnect)
            loop.robot.connect()
            if loop.teleop is not None:
                stack.callback(loop.teleop.disconnect)
                loop.teleop.connect()
            stack.enter_context(self._operator.attending())
            while len(self._episodes) < self._wanted and self._goes_on():
                self._episode()
        if self._episodes:
            self._console.print(summary(self._episodes))
        return self._report()

    def _goes_on(self) -> bool:
        """Whether another episode begins: the first at once, the next when the robot is where it should be."""
        if self._operator.quits or self._problem is not None:
            return False
        if not self._episodes or not self._operator.has_keys or self._loop.robot.success() is not None:
            return True
        self._say("Enter begins the next episode, q ends.")
        return self._operator.waits_for_next(self._loop.clock)

    def _episode(self) -> None:
        number = len(self._episodes)
        try:
            with self._dashboard, real_time():
                episode = self._loop.run_episode(self._max_seconds, None if self._seed is None else self._seed + number)
        except (MenuraError, OSError) as error:  # it could not begin: the robot is gone, or the disk is full
            self._problem = str(error)
            self._say(f"Episode {number} cannot begin: {self._problem}")
            return
        self._episodes.append(episode)
        self._say(f"Episode {number}: {episode.ended}: {episode.reason}")
        if episode.ended in ("fault", "emergency stop"):
            self._problem = f"{episode.ended}: {episode.reason}"
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_json(self._directory / REPORT_FILE, self._report().to_dict())

    def _report(self) -> ControlReport:
        return ControlReport(tuple(self._episodes), self._problem, self._operator.interrupted)

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _refuse_others(overrides: Sequence[str]) -> None:
    rest = list(overrides)
    for section in SECTIONS:
        _, rest = split_section(rest, section)
    if rest:
        raise ConfigError(f"{rest[0]}: expected an override of {', '.join(SECTIONS)}, got another one. Remove it.")


def _of(section: str, overrides: Sequence[str]) -> list[str]:
    return split_section(overrides, section)[0]


def _robot_of(robot: Named | Robot, overrides: Sequence[str], project: Path | None) -> Robot:
    if not isinstance(robot, (str, Path, Mapping)):
        return robot
    return make_robot(load_robot(robot, _of("robot", overrides), project), project)


def _teleop_of(
    teleop: Named | Teleoperator | None, overrides: Sequence[str], project: Path | None
) -> Teleoperator | None:
    if teleop is None or not isinstance(teleop, (str, Path, Mapping)):
        return teleop
    return make_teleop(load_teleop(teleop, _of("teleop", overrides), project), project)


def _controller_config(
    controller: Named | Controller | None, overrides: Sequence[str], project: Path | None
) -> ComponentConfig | Controller | None:
    if controller is None and (words := _of("controller", overrides)):
        raise ConfigError(f"{words[0]}: expected the controller that is meant, got none. Give --controller NAME.")
    if controller is None or not isinstance(controller, (str, Path, Mapping)):
        return controller
    return load_controller(controller, _of("controller", overrides), project)


def _controller_of(
    chosen: ComponentConfig | Controller | None, policy: ChunkPolicy, project: Path | None
) -> Controller:
    if chosen is None:
        chosen = load_controller("newest" if policy.chunk_size is None else "real_time_chunking", project=project)
    if not isinstance(chosen, ComponentConfig):
        return chosen
    return make_controller(chosen, policy.n_action_steps, project)


def _served(url: str, stack: ExitStack, watchdog: WatchdogSettings, dataset: str | None) -> ServedPolicy:
    """What answers there. Torch is not imported, nor need it be installed."""
    from menura.served_policy import ServedPolicy

    if dataset is not None:
        raise ContractError(f"{url}: expected no dataset, which its server chose, got {dataset}. Leave --dataset out.")
    policy = ServedPolicy(url, timeout_s=watchdog.patience_s / _TRIES)
    stack.callback(policy.close)
    return policy


def _policy_of(
    model: str | Path | MetaPolicy | ServedPolicy, stack: ExitStack, **options: Any
) -> MetaPolicy | ServedPolicy:
    """The policy, with as many threads as it is worth; torch is not imported for one that is there."""
    policy = model
    if isinstance(policy, (str, Path)):
        from menura.meta_policy import MetaPolicy

        policy = MetaPolicy.from_pretrained(str(model), **options)
    inner = getattr(policy, "policy", None)
    if inner is not None:
        from menura.policies.threads import suitable_threads

        stack.enter_context(suitable_threads(inner))
    return policy
