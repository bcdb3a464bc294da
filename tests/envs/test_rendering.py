"""OpenGL: chosen once, checked where it cannot hurt, and its mode is part of what is recorded."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from menura.envs import rendering
from menura.errors import EnvironmentFailure


@pytest.fixture
def linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("MUJOCO_GL", rendering._CHECKED):
        monkeypatch.setenv(name, "")  # so that it is put back, whatever is chosen here
        monkeypatch.delenv(name)
    return monkeypatch


def test_the_first_backend_that_draws_is_taken_and_tried_once(linux):
    tried = []
    linux.setattr(rendering, "backend_works", lambda backend: tried.append(backend) or backend == "osmesa")
    assert rendering.choose_backend() == "osmesa"
    assert os.environ["MUJOCO_GL"] == "osmesa"
    assert rendering.choose_backend() == "osmesa"
    assert tried == ["egl", "osmesa"]


def test_where_nothing_draws_the_command_is_told(linux):
    linux.setattr(rendering, "backend_works", lambda backend: False)
    assert rendering.choose_backend() == "disabled"
    with pytest.raises(EnvironmentFailure, match="Run `apt-get install -y libegl1 libgl1-mesa-dri`"):
        rendering.require_rendering()


def test_a_users_choice_stands_or_is_refused(linux):
    linux.setenv("MUJOCO_GL", "osmesa")
    linux.setattr(rendering, "backend_works", lambda backend: False)
    with pytest.raises(EnvironmentFailure, match="MUJOCO_GL: expected a backend that draws, got 'osmesa'"):
        rendering.choose_backend()
    linux.setattr(rendering, "backend_works", lambda backend: True)
    assert rendering.choose_backend() == "osmesa"


def test_a_backend_nobody_knows_is_refused_with_those_there_are(linux):
    linux.setenv("MUJOCO_GL", "bogus")
    with pytest.raises(EnvironmentFailure) as caught:
        rendering.choose_backend()
    assert str(caught.value) == (
        "MUJOCO_GL: expected one of egl, osmesa, glfw, disabled, got 'bogus'. Unset it: one that draws is then chosen."
    )


@pytest.mark.parametrize("word", ["glfw", "off", "0", "disabled"])
def test_a_word_of_mujocos_own_stands(linux, word):
    linux.setenv("MUJOCO_GL", word)
    assert rendering.choose_backend() == word


@pytest.mark.sim
@pytest.mark.usefixtures("aloha")
def test_without_opengl_an_environment_runs_and_only_drawing_fails():
    script = """
from menura.envs.aloha import AlohaEnv
from menura.errors import EnvironmentFailure

env = AlohaEnv()
observation, _ = env.reset(seed=0)
env.step(observation["state"][:14])
try:
    env.render()
except EnvironmentFailure as error:
    print(error)
"""
    environment = {**os.environ, "MUJOCO_GL": "disabled"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("rendering: expected a working OpenGL backend"), done.stderr


@pytest.mark.sim
@pytest.mark.usefixtures("metaworld", "drawing")
def test_the_modes_differ_and_are_told_apart():
    from menura.envs.metaworld import MetaWorldEnv

    fast, full = (MetaWorldEnv(cameras={"view": [48, 48]}, render=mode) for mode in ("fast", "full"))
    images = [env.reset(seed=0)[0]["images"]["view"].astype(int) for env in (fast, full)]
    assert np.abs(images[0] - images[1]).max() > 20
    assert fast.features.cameras["view"].render == "fast"
    assert full.protocol()["features"]["cameras"]["view"]["render"] == "full"
    assert fast.features.differences(full.features) == ["render mode of camera 'view': fast here, full there"]
    with pytest.raises(EnvironmentFailure, match="render: expected 'fast' or 'full', got 'quick'"):
        MetaWorldEnv(render="quick")
