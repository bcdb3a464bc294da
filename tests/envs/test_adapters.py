"""Adapters of simulators that do not install here, against stand-ins with their documented interfaces (`standins/`).

They say what the adapters do with such an interface; that the real packages have it, only running them can tell.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from menura import components
from menura.envs import make_env
from menura.envs.base import SimEnv
from menura.envs.libero_tasks import STEP_LIMITS, SUITES
from menura.errors import EnvironmentFailure
from menura.features import Features

STANDINS = Path(__file__).with_name("standins")
ROBOTWIN = STANDINS / "robotwin"
PACKAGES = ("libero", "simpler_env", "mani_skill", "robocasa", "calvin_agent", "calvin_env", "hydra", "envs")
NAMES = ("Libero", "ManiSkill", "SimplerEnv", "RoboTwin", "Calvin", "RoboCasa")


@pytest.fixture
def standins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The stand-ins can be imported, LIBERO is configured, CALVIN has a dataset (what is given)."""
    ids = set(gymnasium.registry)
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    (tmp_path / "config.yaml").write_text("assets: /a\n")
    scene = tmp_path / "validation" / ".hydra"
    scene.mkdir(parents=True)
    (scene / "merged_config.yaml").write_text("env: {}\n")
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [
        name for name in sys.modules if name.partition(".")[0] in (*PACKAGES, "generate_episode_instructions")
    ]:
        del sys.modules[name]
    for id in set(gymnasium.registry) - ids:
        del gymnasium.registry[id]


def made(name: str, **args: Any) -> SimEnv:
    return make_env({"class": name, "args": args})


def assert_sound(env: SimEnv) -> None:
    """What holds of any environment; leaves it one step into the episode of seed 4."""
    zero = np.clip(np.zeros(env.features.action_dim), env.action_space.low, env.action_space.high)  # type: ignore[attr-defined]
    seen = []
    for _ in range(2):
        observation, _ = env.reset(seed=3)
        assert env.observation_space.contains(observation)
        seen.append([observation, env.step(zero)[0]])
        env.reset(seed=4)
        env.step(zero)
    np.testing.assert_equal(seen[0], seen[1])
    assert env.render().dtype == np.uint8
    assert env.render().ndim == 3
    protocol = env.protocol()
    assert protocol["caution"] == "its adapter has not yet run on the real package"
    assert protocol["versions"]["gymnasium"] == gymnasium.__version__
    assert Features.from_dict(protocol["features"]) == env.features
    assert len(env.noisy_actions) == env.features.action_dim


@pytest.mark.parametrize("name", NAMES)
def test_none_is_called_supported(name: str) -> None:
    assert not components.load("env", name, Path.cwd()).supported  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "args", "package"),
    [
        ("Libero", {}, "libero"),
        ("ManiSkill", {}, "mani_skill"),
        ("SimplerEnv", {}, "simpler_env"),
        ("RoboTwin", {"root": "nowhere"}, "RoboTwin"),
        ("Calvin", {"dataset": "nowhere"}, "calvin_agent"),
        ("RoboCasa", {}, "robocasa"),
    ],
)
def test_what_to_install_is_told(name: str, args: dict[str, Any], package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"the package {package} is installed")
    with pytest.raises(
        EnvironmentFailure, match=rf"{package}(.|\n)*(pip install|_install\.sh)(.|\n)*`python: "
    ) as raised:
        made(name, **args)
    assert "python:" in str(raised.value)


# --- LIBERO ----------------------------------------------------------------------------------------------------------


def test_libero(standins: Path) -> None:
    cameras = {"agentview": (20, 30), "eye_in_hand": (16, 16)}
    env = made("Libero", cameras=cameras)
    assert_sound(env)
    assert env.task == "pick up the milk and place it in the basket"
    assert env.max_episode_steps == 280
    assert env.protocol()["suite"] == "libero_object"
    assert env.protocol()["initial_states"].startswith("3 of LIBERO's")
    assert env.protocol()["settling_steps"] == 10
    observation, _ = env.reset(seed=5)
    # Initial state 5 mod 3, then ten steps of waiting; a quarter turn about z; both fingers.
    expected = [2.1 + 10, 0.2, 0.3, 0, 0, np.pi / 2, 0.04, -0.04]
    np.testing.assert_allclose(observation["state"], expected, rtol=1e-6)
    upright = observation["images"]
    assert upright["agentview"][-1, 0].tolist() == [7, 7, 7]  # the lower left corner
    assert upright["eye_in_hand"][-1, 0].tolist() == [9, 9, 9]
    assert env.advance(np.zeros(7, np.float32))[3]["success"] is False  # of its own twelve steps the eleventh
    assert env.advance(np.zeros(7, np.float32))[3]["success"] is True
    env.restore(np.array([0.5, 0.0]))
    assert env.state()[0] == 0.5
    env.close()


def test_libero_draws_only_what_is_looked_at(standins: Path) -> None:
    env = made("Libero", cameras={"agentview": [8, 8]}, orientation="rotated", object_state=True)
    sim = sys.modules["libero.libero.envs"]._Sim
    env.reset(seed=0)
    before = sim.drawn
    env.advance(np.zeros(7, np.float32))
    env.state()
    assert sim.drawn == before
    assert env.image("agentview")[-1, -1].tolist() == [7, 7, 7]  # by 180°
    assert env.features.state is not None
    assert env.features.state.object_names == tuple(f"object_{i}" for i in range(5))
    assert env.state()[-5:].tolist() == [0, 1, 2, 3, 4]


def test_libero_suites() -> None:
    assert {suite: len(names) for suite, names in SUITES.items()} == {
        "libero_spatial": 10,
        "libero_object": 10,
        "libero_goal": 10,
        "libero_10": 10,
        "libero_90": 90,
    }
    assert len({name for names in SUITES.values() for name in names}) == 130
    assert STEP_LIMITS.keys() == SUITES.keys()


def test_libero_never_waits_for_an_answer(standins: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "none"))
    with pytest.raises(EnvironmentFailure, match=r"got no .*none/config\.yaml\. Run once, in a terminal"):
        made("Libero")


def test_libero_says_what_it_lacks(standins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFailure, match="did you mean pick_up_the_milk_and_place_it_in_the_basket"):
        made("Libero", task="pick_up_the_milk_and_place_it_in_a_basket")
    envs = importlib.import_module("libero.libero.envs")
    monkeypatch.setattr(envs.OffScreenRenderEnv, "missing", "scenes/floor.xml")
    with pytest.raises(EnvironmentFailure, match=r"expected LIBERO's assets, got no file scenes/floor\.xml"):
        made("Libero")

    def refused(*_: Any) -> None:
        raise pickle.UnpicklingError("Weights only load failed")

    benchmark = importlib.import_module("libero.libero.benchmark")
    monkeypatch.setattr(benchmark.Suite, "get_task_init_states", refused)
    with pytest.raises(EnvironmentFailure, match="Install hf-libero instead"):
        made("Libero")


# --- the others ------------------------------------------------------------------------------------------------------


def test_maniskill(standins: Path) -> None:
    env = made("ManiSkill", cameras={"base_camera": [24, 32]}, object_state=True, instruction="pick up the cube")
    assert_sound(env)
    assert env.max_episode_steps == 50
    assert (env.features.fps, env.features.robot) == (20, "panda")
    assert env.features.state is not None
    assert env.features.state.object_names == tuple(
        [f"goal_pos_{i}" for i in range(3)] + [f"obj_pose_{i}" for i in range(7)]
    )
    sim = sys.modules["mani_skill.envs"].PickCube
    env.reset(seed=0)
    before = sim.drawn
    done = [env.advance(np.zeros(7, np.float32))[3]["success"] for _ in range(3)]
    assert done == [False, False, True]
    assert sim.drawn == before
    assert env.image("base_camera").shape == (24, 32, 3)
    joints = made("ManiSkill", control_mode="pd_joint_pos")
    assert (joints.features.action_dim, joints.features.control_space, joints.features.control_type) == (
        8,
        "joint",
        "abs",
    )
    assert joints.features.state_dim == 16
    with pytest.raises(EnvironmentFailure, match="expected some of base_camera, got 'wrist'"):
        made("ManiSkill", cameras={"wrist": [24, 24]})
    with pytest.raises(EnvironmentFailure, match="did you mean PickCube-v1"):
        made("ManiSkill", task="PickCubes-v1")


def test_maniskill_says_that_it_lacks_a_vulkan_device(standins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = importlib.import_module("mani_skill.envs").PickCube

    def without_device(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("failed to find a rendering device")

    monkeypatch.setattr(sim, "__init__", without_device)
    with pytest.raises(EnvironmentFailure, match=r"expected a Vulkan device, .* got: failed to find .* lavapipe 24\.3"):
        made("ManiSkill")


def test_simpler(standins: Path) -> None:
    env = made("SimplerEnv", max_episode_steps=4)
    assert_sound(env)
    assert env.features.fps == 5
    assert env.features.action.grippers == {"gripper": (-1.0, 1.0)}
    assert env.task == "stack the green block on the yellow block"
    observation, _ = env.reset(seed=25)
    assert observation["state"][0] == 1  # arrangement 25 mod 24
    steps = [env.advance(np.zeros(7, np.float32))[3] for _ in range(4)]
    assert [step["success"] for step in steps] == [False, False, False, True]  # at the end
    assert [step["measures"]["solved"] for step in steps] == [0, 1, 0, 1]
    anytime = made("SimplerEnv", task="google_robot_close_top_drawer", at_end=False)
    assert (anytime.max_episode_steps, anytime.features.fps) == (113, 3)
    assert anytime.features.action.grippers == {"gripper": (1.0, -1.0)}
    anytime.reset(seed=25)
    assert anytime.state()[0] == 25
    anytime.advance(np.zeros(7, np.float32))
    assert anytime.advance(np.zeros(7, np.float32))[3]["success"]
    with pytest.raises(EnvironmentFailure, match=r"SimplerEnv.task"):
        made("SimplerEnv", task="google_robot_place_in_closed_drawer")


def test_robocasa(standins: Path) -> None:
    env = made("RoboCasa", task="OpenDrawer", cameras=["robot0_eye_in_hand"], image_size=32)
    assert_sound(env)
    assert env.max_episode_steps == 750
    assert env.task == "open the left drawer"
    assert env.features.state_dim == 16
    assert env.action_space.low.tolist() == [-1] * 6 + [0] + [-1] * 4 + [0]  # type: ignore[attr-defined]
    env.reset(seed=0)
    assert env.image("robot0_eye_in_hand").max() == 2
    action = np.arange(12, dtype=np.float32) / 12
    assert env.advance(action)[3]["success"] is False
    action[6] = 1
    assert env.advance(action)[3]["success"] is True
    sent = env._sim.unwrapped.last  # type: ignore[attr-defined]
    np.testing.assert_array_equal(sent["action.base_motion"], action[7:11])
    with pytest.raises(EnvironmentFailure, match="did you mean OpenDrawer"):
        made("RoboCasa", task="OpenDrawers")


def test_calvin(standins: Path) -> None:
    env = made("Calvin", dataset=str(standins), cameras=["rgb_gripper"])
    assert_sound(env)
    camera = sys.modules["calvin_env.envs.play_table_env"].Camera
    before = camera.drawn
    env.reset(seed=1000)  # chain 0 of two
    drawn = camera.drawn - before
    assert drawn == 1
    told, outcomes = [env.task], []
    terminated = False
    while not terminated:
        reward, terminated, _, info = env.advance(np.full(7, 0.5, np.float32))
        outcomes.append((info["success"], info["measures"]["instructions_done"], reward))
        if env.task != told[-1]:
            told.append(env.task)
    assert camera.drawn == before + drawn
    assert len(outcomes) == 15
    assert outcomes[-1] == (True, 5, 1)
    assert [done for _, done, _ in outcomes][:7] == [0, 0, 1, 1, 1, 2, 2]
    assert told[0] == "pull the handle to open the drawer"
    assert len(told) == 5
    env.reset(seed=1)  # its second instruction is never done
    steps = 0
    terminated = False
    while not terminated:
        _, terminated, _, info = env.advance(np.zeros(7, np.float32))
        steps += 1
    assert (steps, info["success"], info["measures"]["instructions_done"]) == (363, False, 1)
    with pytest.raises(EnvironmentFailure, match=r"got no nowhere/validation/\.hydra/merged_config\.yaml"):
        made("Calvin", dataset="nowhere")


def test_robotwin(standins: Path) -> None:
    here = Path.cwd()
    env = made("RoboTwin", root=str(ROBOTWIN), cameras=["head_camera"])
    assert_sound(env)
    task = sys.modules["envs.beat_block_hammer"].beat_block_hammer
    assert env.max_episode_steps == 400
    assert env.features.fps == pytest.approx(250 / 15)
    env.reset(seed=4)
    assert env.task in ("Strike!", "Hit!")
    task.scenes.clear()
    env.reset(seed=21)  # falls; then no path; then a plan that fails: the next scene is another
    stride = 10_000_019
    assert task.scenes[0] == 21
    assert task.scenes[-1] % 10 not in (1, 2, 3)
    assert {(scene - 21) % stride for scene in task.scenes} == {0}
    drawn = task.drawn
    action = np.full(14, 0.2, np.float32)
    done = [env.advance(action)[3]["success"] for _ in range(3)]
    assert done == [False, False, True]
    assert task.drawn == drawn
    np.testing.assert_allclose(env.state(), action)
    assert Path.cwd() == here
    plain = made("RoboTwin", root=str(ROBOTWIN), solvable_only=False)
    plain.reset(seed=3)
    assert plain.task == "beat block hammer"
    with pytest.raises(EnvironmentFailure, match="did you mean handover_block"):
        made("RoboTwin", root=str(ROBOTWIN), task="handover_blocks")


def test_in_another_python(standins: Path) -> None:
    """An instruction that changes within an episode comes over the pipe."""
    path = str(STANDINS)
    boot = standins / "env"
    boot.mkdir()
    (boot / "there.py").write_text(
        f"import sys\nsys.path.insert(0, {path!r})\nfrom menura.envs.calvin import CalvinEnv\n\n\n"
        "class There(CalvinEnv):\n    pass\n"
    )
    env = make_env({"class": "There", "args": {"dataset": str(standins)}, "python": sys.executable}, standins)
    env.reset(seed=0)
    assert env.task == "pull the handle to open the drawer"
    for _ in range(3):
        env.advance(np.zeros(7, np.float32))
    assert env.task == "press the button to turn on the led light"
    env.close()
