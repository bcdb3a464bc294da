"""Any Gymnasium environment, by its id and its keys, or as a class of the user's."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from menura.envs import make_env, make_expert
from menura.envs.gym import GymEnv
from menura.errors import ComponentError, ConfigError, ContractError, EnvironmentFailure


def gym(**args):
    return make_env({"class": "Gym", "args": args})


def test_a_flat_observation_and_a_discrete_action():
    env = gym(id="CartPole-v1")
    assert env.features.state_dim == 4
    assert env.features.action_dim == 1
    assert (env.features.fps, env.max_episode_steps) == (50, 500)
    env.reset(seed=0)
    left = env.step(np.array([0.4]))[0]["state"]
    env.reset(seed=0)
    right = env.step(np.array([0.6]))[0]["state"]
    assert left[1] < 0 < right[1]
    env.advance(np.array([7.0]))  # the nearest choice


def test_a_continuous_action_is_handed_on_as_it_is():
    env = gym(id="Pendulum-v1")
    assert env.action_space.low.tolist() == [-2]
    first, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert np.array_equal(first["state"], again["state"])
    assert env.step(np.array([0.5]))[0]["state"].dtype == np.float32


def test_keys_are_read_by_dotted_path(dict_env_id):
    env = gym(
        id=dict_env_id,
        state_keys=["agent.qpos", "agent.hand", "cube"],
        object_keys=["cube"],
        image_keys={"front": "pixels", "side": "render"},
        task="do it",
        success_key="is_success",
    )
    names = ("agent.qpos_0", "agent.qpos_1", "agent.qpos_2", "agent.hand", "cube_0", "cube_1")
    assert env.features.state.names == names
    assert env.features.state.object_names == ("cube_0", "cube_1")
    observation, _ = env.reset(seed=0)
    assert observation["state"][3:].tolist() == [0.5, 1, 2]
    assert observation["images"]["front"].shape == (5, 7, 3)
    assert (observation["images"]["side"] == 9).all()
    assert observation["task"] == "do it"
    check_env(env, skip_render_check=True)


def test_success_and_the_environments_own_truncation(dict_env_id):
    env = gym(id=dict_env_id, state_keys=["cube"], success_key="is_success")
    env.reset(seed=0)
    steps = [env.advance(np.zeros(2)) for _ in range(6)]
    assert [info["success"] for *_, info in steps] == [False] * 3 + [True] * 3
    assert [truncated for _, _, truncated, _ in steps] == [False] * 5 + [True]
    assert env.success_rule == "info['is_success'] at any step"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {},
            "expected state_keys or image_keys, got neither. The observation has agent.qpos, agent.hand, cube, pixels.",
        ),
        (
            {"state_keys": ["agent.qpo"]},
            "expected an entry 'agent.qpo'; did you mean agent.qpos? It has agent.qpos, agent.hand, cube, pixels.",
        ),
        ({"image_keys": {"top": "cube"}}, r"\['cube'\]: expected an image \(H, W, 3\) uint8, got shape \(2,\) float32"),
        (
            {"state_keys": ["cube"], "object_keys": ["agent"]},
            r"object_keys: expected some of \['cube'\], got \['agent'\]",
        ),
    ],
)
def test_wrong_keys_are_told_what_there_is(dict_env_id, args, message):
    with pytest.raises(EnvironmentFailure, match=message.replace("?", r"\?")):
        gym(id=dict_env_id, **args)


def test_a_success_key_that_info_lacks(dict_env_id):
    env = gym(id=dict_env_id, state_keys=["cube"], success_key="success")
    env.reset(seed=0)
    with pytest.raises(EnvironmentFailure, match=r"expected an entry 'success'.* It has is_success"):
        env.advance(np.zeros(2))


def test_an_unknown_id():
    with pytest.raises(EnvironmentFailure, match=r"expected an id that gymnasium.make knows, got 'CartPol-v1'"):
        gym(id="CartPol-v1")


def test_an_environment_without_a_rate_is_told_the_two_places_for_it():
    class Timeless(gymnasium.Env):
        max_episode_steps = 7
        action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.zeros(3, np.float32), {}

    with pytest.raises(EnvironmentFailure) as caught:
        GymEnv(Timeless())
    assert str(caught.value) == (
        'Timeless: expected steps per second, got none. Set metadata["render_fps"] in the environment\'s class, '
        "or fps in the arguments of Gym."
    )


def test_a_users_own_class_needs_no_keys(tmp_path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "mine.py").write_text(
        """
import gymnasium
import os
import subprocess
import sys

import gymnasium
import numpy as np

class MyEnv(gymnasium.Env):
    metadata = {"render_fps": 5}
    max_episode_steps = 7

    def __init__(self, size=3):
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.size = size

    def see(self):
        image = np.zeros((self.size, self.size, 3), np.uint8)
        return {"state": np.zeros(4, np.float32), "images": {"top": image}, "task": "wave"}

    def reset(self, *, seed=None, options=None):
        return self.see(), {}

    def step(self, action):
        return self.see(), 0.0, False, False, {"success": True}
"""
    )
    (tmp_path / "expert").mkdir()
    (tmp_path / "expert" / "still.py").write_text(
        "import numpy as np\n\nclass Still:\n    def reset(self, env):\n        self.width = env.unwrapped.size\n\n"
        "    def act(self, observation):\n        return np.zeros(2, np.float32)\n"
    )
    env = make_env({"class": "MyEnv", "args": {"size": 6}}, tmp_path)
    assert isinstance(env, GymEnv)
    assert (env.features.state_dim, env.features.fps, env.max_episode_steps, env.task) == (4, 5, 7, "wave")
    assert env.features.cameras["top"].height == 6
    observation, _ = env.reset(seed=0)
    assert observation["images"]["top"].shape == (6, 6, 3)
    assert env.advance(np.zeros(2))[3]["success"] is True
    assert env.protocol()["environment"] == "MyEnv"
    expert = make_expert({"class": "Still"}, tmp_path)
    expert.reset(env)
    assert expert.width == 6


def test_what_is_no_environment_or_expert_is_refused(tmp_path):
    for kind in ("env", "expert"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "nothing.py").write_text("class Nothing:\n    pass\n")
    with pytest.raises(ContractError, match=r"Nothing: expected a gymnasium.Env"):
        make_env({"class": "Nothing"}, tmp_path)
    with pytest.raises(
        ContractError, match=r"Nothing: expected the methods reset\(env\) and act\(observation\), got no reset"
    ):
        make_expert({"class": "Nothing"}, tmp_path)


def test_a_wrong_config_is_refused():
    with pytest.raises(ConfigError, match="env: expected class and args, got name"):
        make_env({"name": "Gym"})
    with pytest.raises(ComponentError, match=r"did you mean .?Aloha"):
        make_env({"class": "Alloha"})
    with pytest.raises(ConfigError, match=r"env.args.state_key: no such argument of GymEnv; did you mean state_keys\?"):
        gym(id="CartPole-v1", state_key=["a"])
    with pytest.raises(ConfigError, match=r"env.args.id: expected a value, which GymEnv requires, got none."):
        gym()


def test_a_longer_limit_than_the_registered_one_holds():
    env = gym(id="Pendulum-v1", max_episode_steps=250)
    env.reset(seed=0)
    truncated = [env.advance(np.zeros(1))[2] for _ in range(250)]
    assert truncated == [False] * 249 + [True]


def test_the_protocol_tells_how_it_was_made(dict_env_id):
    protocol = gym(id=dict_env_id, image_keys={"front": "pixels"}).protocol()
    assert protocol["environment"] == dict_env_id
    assert protocol["images"] == {"front": "pixels"}
    assert "gymnasium" in protocol["versions"]


DRAWS = """
from menura.envs import make_env
args = {"id": "gym_aloha:gym_aloha/AlohaTransferCube-v0", "make_args": {"obs_type": "pixels_agent_pos"}}
args |= {"state_keys": ["agent_pos"], "image_keys": {"top": "pixels.top"}, "fps": 50, "max_episode_steps": 300}
env = make_env({"class": "Gym", "args": args})
assert env.image("top").any()
"""


def test_a_mujoco_environment_draws_where_nobody_chose_a_backend(aloha, drawing):
    environment = {name: value for name, value in os.environ.items() if "_GL" not in name}
    subprocess.run([sys.executable, "-c", DRAWS], env=environment, check=True)


def test_a_class_without_render_says_so():
    class Undrawn(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))
        metadata = {"render_fps": 5}  # noqa: RUF012
        max_episode_steps = 3

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {"success": False}

    env = GymEnv(Undrawn())
    env.reset(seed=0)
    with pytest.raises(EnvironmentFailure, match=r"render\(\): expected a picture for the video, got a class without"):
        env.render()


def test_success_by_the_reward(dict_env_id):
    env = gym(id=dict_env_id, state_keys=["cube"], success_reward=1.0)
    env.reset(seed=0)
    assert env.advance(np.zeros(2))[3]["success"]
    assert env.success_rule == "reward of at least 1.0 at any step"
    strict = gym(id=dict_env_id, state_keys=["cube"], success_reward=1.5)
    strict.reset(seed=0)
    assert not strict.advance(np.zeros(2))[3]["success"]
    with pytest.raises(EnvironmentFailure, match="expected success_key or success_reward, got both"):
        gym(id=dict_env_id, state_keys=["cube"], success_key="is_success", success_reward=1.0)


def test_measures_are_numbers_of_info(dict_env_id):
    env = gym(id=dict_env_id, state_keys=["cube"], measure_keys={"solved": "is_success"})
    env.reset(seed=0)
    assert [env.advance(np.zeros(2))[3]["measures"]["solved"] for _ in range(5)] == [0, 0, 0, 1, 1]
    wrong = gym(id=dict_env_id, state_keys=["cube"], measure_keys={"solved": "succes"})
    wrong.reset(seed=0)
    with pytest.raises(EnvironmentFailure, match="expected an entry 'succes'"):
        wrong.advance(np.zeros(2))


def test_measures_that_an_environment_tells_itself_are_kept():
    class Measured(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))
        metadata = {"render_fps": 5}  # noqa: RUF012
        max_episode_steps = 3
        told = {"coverage": 0.5}  # noqa: RUF012

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {"success": False}

        def step(self, action):
            return np.zeros(2, np.float32), 0.0, False, False, {"success": False, "measures": self.told, "far": 2}

    inner = Measured()
    env = GymEnv(inner, measure_keys={"far": "far"})
    env.reset(seed=0)
    assert env.advance(np.zeros(1))[3]["measures"] == {"coverage": 0.5, "far": 2.0}
    inner.told = [0.5]  # as other packages may
    assert env.advance(np.zeros(1))[3]["measures"] == {"far": 2.0}
    inner.told = {"coverage": "half"}
    with pytest.raises(EnvironmentFailure, match=r"Measured info\['measures.coverage'\]: expected numbers, got"):
        env.advance(np.zeros(1))
    with pytest.raises(ContractError, match=r"Measured action: expected shape \(1,\)"):
        env.advance(np.zeros(2))


@pytest.mark.sim
@pytest.mark.parametrize(
    ("package", "id", "width"),
    [("gymnasium_robotics", "FetchReach-v4", 13), ("panda_gym", "PandaReach-v3", 9)],
)
def test_goals_of_real_packages_are_read_by_their_keys(package, id, width):
    pytest.importorskip(package)
    env = gym(
        id=f"{package}:{id}",
        state_keys=["observation", "desired_goal"],
        object_keys=["desired_goal"],
        success_key="is_success",
        fps=25,
        task="reach the goal",
    )
    assert env.features.state_dim == width
    assert env.features.state.object_names == tuple(f"desired_goal_{i}" for i in range(3))
    first, _ = env.reset(seed=5)
    env.advance(np.ones(env.features.action_dim))
    env.reset(seed=6)
    again, _ = env.reset(seed=5)
    assert np.array_equal(first["state"], again["state"])
    truncated = [env.advance(np.zeros(env.features.action_dim))[2] for _ in range(env.max_episode_steps)]
    assert truncated == [False] * 49 + [True]
    assert package.replace("_", "-") in {name.replace("_", "-") for name in env.protocol()["versions"]}
    env.close()


@pytest.mark.sim
def test_pusht_by_its_id_measures_coverage():
    pytest.importorskip("gym_pusht")
    env = gym(
        id="gym_pusht:gym_pusht/PushT-v0",
        image_keys={"view": "render"},
        success_key="is_success",
        measure_keys={"coverage": "coverage"},
        make_args={"visualization_height": 32, "visualization_width": 48},
    )
    observation, _ = env.reset(seed=0)
    assert observation["images"]["view"].shape == (32, 48, 3)
    assert 0 <= env.advance(np.array([256, 256]))[3]["measures"]["coverage"] < 0.95
