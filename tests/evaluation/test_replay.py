"""A dataset's own actions, replayed: what is lost, where states leave, and what is named when a fault is planted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.data.readers.lerobot import LeRobotReader
from menura.envs.rendering import choose_backend
from menura.errors import ConfigError, DataError, FeatureMismatch
from menura.evaluation.collect import collect
from menura.evaluation.diagnosis import Demonstration, Diagnosis, diagnose
from menura.evaluation.replay import BEFORE, FILE_NAME, INITIAL_STATE, PAGE, replay
from menura.evaluation.replaying import Play, Setup, Start, execute
from menura.evaluation.state_error import Comparison
from menura.evaluation.worker import describe
from menura.processing.rotations import compose, convert, difference

Rows = np.ndarray[Any, Any]
Spoil = Callable[[Rows, Rows], tuple[Rows, Rows]]
QUARTER = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])


def columns(places: list[int], factor: float, offset: float = 0.0) -> Spoil:
    def spoil(states: Rows, actions: Rows) -> tuple[Rows, Rows]:
        actions = actions.copy()
        actions[:, places] = factor * actions[:, places] + offset
        return states, actions

    return spoil


def late(frames: int) -> Spoil:
    return lambda s, a: (s, a[np.clip(np.arange(len(a)) - frames, 0, len(a) - 1)])


def every(stride: int) -> Spoil:
    return lambda s, a: (s[::stride], a[::stride])


def doubled(states: Rows, actions: Rows) -> tuple[Rows, Rows]:
    return np.repeat(states, 2, axis=0), np.repeat(actions, 2, axis=0)


def turned(states: Rows, actions: Rows) -> tuple[Rows, Rows]:
    return states, np.concatenate([actions[:, :3] @ QUARTER.T, actions[:, 3:]], axis=1)


def deltas(states: Rows, actions: Rows) -> tuple[Rows, Rows]:
    turn = difference(actions[:, 3:7], states[:, 3:7], "quat_wxyz")
    return states, np.concatenate([actions[:, :3] - states[:, :3], turn, actions[:, 7:]], axis=1)


def targets(states: Rows, actions: Rows) -> tuple[Rows, Rows]:
    """Of an arm that is moved by deltas."""
    turn = compose(actions[:, 3:7], states[:, 3:7], "quat_wxyz")
    return states, np.concatenate([states[:, :3] + actions[:, :3], turn, actions[:, 7:]], axis=1)


def xyzw(states: Rows, actions: Rows) -> tuple[Rows, Rows]:
    return states, np.concatenate([actions[:, :3], np.roll(actions[:, 3:7], -1, axis=1), actions[:, 7:]], axis=1)


def euler(states: Rows, actions: Rows) -> tuple[Rows, Rows]:
    angles = convert(actions[:, 3:6], "axis_angle", "euler_xyz")
    return states, np.concatenate([actions[:, :3], angles, actions[:, 6:]], axis=1)


PLANTED: Mapping[str, tuple[str, dict[str, Any], Spoil]] = {
    "a quarter turn": ("frame", {}, turned),
    "y mirrored": ("frame", {}, columns([1], -1)),
    "gripper inverted": ("gripper_sign", {}, columns([-1], -1, 1)),
    "gripper from -1 to 1": ("gripper_range", {}, columns([-1], 2, -1)),
    "deltas": ("delta_as_absolute", {}, deltas),
    "targets": ("absolute_as_delta", {"control": "delta"}, targets),
    "xyzw": ("rotation_order", {}, xyzw),
    "euler": ("rotation_order", {"rotation": "axis_angle"}, euler),
    "one late": ("off_by_one", {}, late(1)),
    "two early": ("off_by_one", {}, late(-2)),
    "half the rate": ("fps", {"control": "delta"}, every(2)),
    "twice the rate": ("fps", {"control": "delta"}, doubled),
    "centimetres": ("scaling", {}, columns([0, 1, 2], 100)),
    "degrees": ("scaling", {"rotation": "axis_angle"}, columns([3, 4, 5], 180 / np.pi)),
}


class HerePlayer:
    """Plays in this process: as `Player` does in others."""

    def __init__(self, env: Any) -> None:
        self.env, self.setup = env, Setup({"class": "Arm"}, None)

    def play(self, plays: Any, told: Any = None) -> list[Any]:
        return [execute(self.env, play, self.setup) for play in plays]


def diagnosed(env: Any, reader: Reader) -> tuple[Diagnosis | None, float]:
    """The diagnosis, and the state error as recorded."""
    demos = [
        Demonstration(i, Start(e.seed), e.state, e.action)
        for i, e in enumerate(map(reader.episode, range(len(reader))))
    ]
    player: Any = HerePlayer(env)
    traces = player.play([Play(demo.start, demo.actions) for demo in demos])
    comparison = Comparison(reader.features.state, env.features.state, [demo.states for demo in demos])
    error = comparison.error(demos[0].states, traces[0].states).score
    environment = describe(env, {"class": "Arm"})
    return diagnose(player, environment, reader.features, demos[:2], traces[:2], comparison), error


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named(arm: Any, name: str) -> None:
    fault, args, spoil = PLANTED[name]
    env = arm.ArmEnv(**args)
    diagnosis, error = diagnosed(env, arm.Recorded(env, spoil, episodes=2))
    assert error > 0.02
    assert diagnosis is not None
    assert diagnosis.fault == fault, str(diagnosis)
    assert diagnosis.confidence > 0.6
    assert f"Probably {fault}" in str(diagnosis)


@pytest.mark.parametrize("args", [{}, {"control": "delta"}, {"rotation": "axis_angle"}])
def test_clean_data_are_repeated_exactly(arm: Any, args: dict[str, Any]) -> None:
    env = arm.ArmEnv(**args)
    reader = arm.Recorded(env)
    assert all(reader.episode(index).success for index in range(4))
    comparison = Comparison(env.features.state, env.features.state, [reader.episode(0).state])
    trace = execute(env, Play(Start(0), reader.episode(0).action), Setup({"class": "Arm"}, None))
    error = comparison.error(reader.episode(0).state, trace.states)
    assert (error.score, error.begins, error.leaving) == (0.0, None, ())


def test_nothing_is_claimed_where_nothing_explains_it(arm: Any) -> None:
    env = arm.ArmEnv()
    random = np.random.default_rng(0)

    def nonsense(states: Rows, actions: Rows) -> tuple[Rows, Rows]:
        return states, actions[random.permutation(len(actions))]

    diagnosis, _ = diagnosed(env, arm.Recorded(env, nonsense, episodes=2))
    assert diagnosis is not None
    assert diagnosis.fault is None
    assert diagnosis.confidence == 0
    assert "changes that were tried explains it" in str(diagnosis)


def test_noise_is_taken_for_no_fault(arm: Any) -> None:
    env = arm.ArmEnv()
    random = np.random.default_rng(0)
    noisy = arm.Recorded(env, lambda s, a: (s, a + random.normal(0, 0.02, a.shape)), episodes=2)
    diagnosis, error = diagnosed(env, noisy)
    assert error > 0.02
    assert diagnosis is not None
    assert diagnosis.fault is None


def test_a_replay_says_it_all_in_one_paragraph(arm: Any, arm_env: Any, tmp_path: Path) -> None:
    reader = arm.Recorded(arm.ArmEnv(), columns([-1], -1, 1), episodes=2)
    found = replay(reader, arm_env(), num_workers=1, output_dir=tmp_path, videos=0, progress=False)
    assert found.lost == found.departed == (0, 1)
    text = str(found)
    assert text.startswith("0 of 2 solved episodes are solved again by their own actions; not 0, 1. In 2 of 2 the ")
    assert "leave the recorded ones, from frame 1 on (the median), first gripper" in text
    assert "Probably gripper_sign (99% sure): the gripper's command is inverted" in text
    assert "with the change 2 of 2 episodes are solved, 0 without" in text
    written = json.loads((tmp_path / FILE_NAME).read_text())
    assert written["diagnosis"]["fault"] == "gripper_sign"
    assert written["state_error"]["0"]["leaving"][0] == "gripper"
    page = (tmp_path / PAGE).read_text()
    assert page.count("<svg") == 6
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "results.json").exists()


def test_clean_data_are_left_alone(arm: Any, arm_env: Any) -> None:
    found = replay(arm.Recorded(arm.ArmEnv()), arm_env(), num_workers=2, progress=False)
    assert str(found) == "4 of 4 solved episodes are solved again by their own actions"
    assert found.diagnosis is None


class Facts(Reader):
    """A dataset whose episodes have other facts."""

    def __init__(self, reader: Any, **facts: Any) -> None:
        self.name, self.features = reader.name, reader.features
        self._reader, self._facts = reader, facts

    def __len__(self) -> int:
        return len(self._reader)

    def episode(self, index: int) -> Episode:
        return replace(self._reader.episode(index), **self._facts)


def test_how_an_episode_begins(arm: Any, arm_env: Any) -> None:
    reader = arm.Recorded(arm.ArmEnv(), episodes=1)
    with pytest.raises(DataError, match="expected the environment's seed of each episode, or the simulator's state"):
        replay(Facts(reader, seed=None), arm_env(), progress=False)
    with pytest.raises(Exception, match="expected an environment that can be set to a recorded state"):
        replay(Facts(reader, seed=None, extra={INITIAL_STATE: [0.0, 1.0]}), arm_env(), num_workers=1, progress=False)
    episode = reader.episode(0)
    rest = {"state": episode.state[5:], "action": episode.action[5:], "timestamps": None}
    later = Facts(reader, **rest, extra={BEFORE: episode.action[:5].tolist()})
    assert replay(later, arm_env(), num_workers=1, progress=False).departed == ()


def test_a_step_limit_is_told(arm: Any, arm_env: Any) -> None:
    reader = arm.Recorded(arm.ArmEnv(), episodes=1)
    found = replay(reader, arm_env(max_episode_steps=20), num_workers=1, look_for_faults=False, progress=False)
    assert (found.lost, found.cut) == ((0,), (0,))
    assert "1 ended before their actions did (the step limit is 20)" in str(found)


def test_what_the_dataset_says_itself_is_refused(arm: Any, arm_env: Any) -> None:
    reader = arm.Recorded(arm.ArmEnv(), episodes=1)
    with pytest.raises(FeatureMismatch, match="control type: abs here, delta there"):
        replay(reader, arm_env(control="delta"), num_workers=1, progress=False)
    with pytest.raises(ConfigError, match="expected an environment, got none"):
        replay(reader, progress=False)


def test_actions_go_through_the_spaces_of_a_task(arm: Any, arm_env: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    task = tmp_path / "configs" / "task" / "arm.yaml"
    task.parent.mkdir(parents=True)
    env = arm_env()
    task.write_text(
        f"policy: {{class: MLPPolicy, args: {{chunk_size: 8, n_action_steps: 4}}}}\n"
        f"env: {{class: '{env['class']}'}}\nprocessor: {{action_type: relative, action_rotation: 6d}}\n"
    )
    found = replay(arm.Recorded(arm.ArmEnv()), task=task, num_workers=1, progress=False)
    assert found.lost == ()
    assert 0 < max(error.score for error in found.errors.values()) < 1e-3  # float32 there and back


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("gripper_sign", columns([3], -1)),
        ("frame", lambda s, a: (s, np.c_[a[:, :3] @ QUARTER.T, a[:, 3:]])),
        ("absolute_as_delta", lambda s, a: (s, np.c_[s[:, :3] + 0.01 * a[:, :3], a[:, 3:]])),
        ("off_by_one", late(1)),
        ("fps", every(2)),
        ("scaling", columns([0, 1, 2], 0.01)),
        (None, columns([], 1)),
    ],
)
def test_faults_planted_in_metaworld(fault: str | None, spoil: Spoil, metaworld_recorded: Path) -> None:
    assert _named(metaworld_recorded, spoil, METAWORLD) == fault


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("delta_as_absolute", lambda s, a: (s, a - np.where(np.isin(range(14), (6, 13)), 0, s[:, :14]))),
        ("gripper_sign", columns([6, 13], -1, 1)),
        ("gripper_range", columns([6, 13], 2, -1)),
        ("scaling", columns([*range(6), *range(7, 13)], 180 / np.pi)),
        ("fps", every(2)),
        (None, columns([], 1)),
    ],
)
def test_faults_planted_in_aloha(fault: str | None, spoil: Spoil, aloha_recorded: Path) -> None:
    assert _named(aloha_recorded, spoil, ALOHA) == fault


METAWORLD = {"class": "MetaWorld", "args": {"task": "pick-place", "object_state": True}}
ALOHA = {"class": "Aloha", "args": {"task": "transfer_cube"}}


@pytest.fixture(scope="module")
def metaworld_recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    choose_backend()  # before mujoco comes with the package
    pytest.importorskip("metaworld")
    return _recorded(tmp_path_factory.mktemp("data") / "metaworld", METAWORLD, "MetaWorldExpert")


@pytest.fixture(scope="module")
def aloha_recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    choose_backend()
    pytest.importorskip("gym_aloha")
    return _recorded(tmp_path_factory.mktemp("data") / "aloha", ALOHA, "AlohaTransferExpert")


def _recorded(directory: Path, env: dict[str, Any], expert: str) -> Path:
    made = collect(
        env, expert={"class": expert}, output_dir=directory, episodes=2, extra_steps=60, num_workers=1, progress=False
    )
    return made.directory


class Spoilt(Reader):
    """A recorded dataset with a fault."""

    def __init__(self, reader: Reader, spoil: Spoil) -> None:
        self.name, self.features = "spoilt", replace(reader.features, cameras={})
        self._reader, self._spoil = reader, spoil

    def __len__(self) -> int:
        return len(self._reader)

    def episode(self, index: int) -> Episode:
        whole = self._reader.episode(index)
        state, action = self._spoil(whole.state.astype(np.float64), whole.action.astype(np.float64))
        return replace(whole, state=state, action=action, images={}, timestamps=None)


def _named(directory: Path, spoil: Spoil, env: dict[str, Any]) -> str | None:
    found = replay(Spoilt(LeRobotReader(directory), spoil), env, num_workers=1, progress=False)
    return None if found.diagnosis is None else found.diagnosis.fault
