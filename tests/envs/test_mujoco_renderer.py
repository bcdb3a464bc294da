"""The drawing of MuJoCo's models: one OpenGL context for all that look the same, and none of it seen in a picture."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from menura.envs import mujoco_renderer
from menura.envs.cameras import parse_cameras
from menura.envs.mujoco_renderer import MujocoRenderer
from menura.envs.rendering import choose_backend

pytestmark = [pytest.mark.sim, pytest.mark.usefixtures("metaworld", "drawing")]  # mujoco comes with metaworld

WORLD = """
<mujoco>
  <statistic extent="2"/>
  <visual><global offwidth="64" offheight="64"/></visual>
  <asset>
    <texture name="checks" type="2d" builtin="checker" rgb1="{colour}" rgb2="0 0 0" width="32" height="32"/>
    <material name="checks" texture="checks"/>
    <mesh name="block" vertex="0 0 0  {size} 0 0  0 {size} 0  0 0 {size}"/>
  </asset>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="eye" pos="0 -1.5 1.5" xyaxes="1 0 0 0 0.7 0.7"/>
    <geom type="plane" size="2 2 0.1" material="checks"/>
    <body pos="{x} 0 0.1"><freejoint/><geom type="mesh" mesh="block"/></body>
  </worldbody>
</mujoco>
"""


class Drawn:
    """A model, its state, and what draws it."""

    def __init__(self, mode="fast", *, pixels=32, colour="1 1 1", size="0.3", x=0.0):
        choose_backend()
        import mujoco

        self.model = mujoco.MjModel.from_xml_string(WORLD.format(colour=colour, size=size, x=x))
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self.cameras = parse_cameras({"eye": [pixels, pixels]}, {}, ["eye"])
        self.renderer = MujocoRenderer(self.model, self.cameras.values(), mode)

    def image(self):
        return self.renderer.draw(self.data, self.cameras["eye"])


@pytest.fixture(autouse=True)
def none_open():
    """Contexts are of tests that keep none."""
    before = len(mujoco_renderer._canvases)
    yield
    assert len(mujoco_renderer._canvases) == before


def contexts(*drawn):
    for one in drawn:
        one.image()
    return len({id(one.renderer._canvas) for one in drawn})


def test_models_that_look_the_same_share_a_context_wherever_their_things_are():
    assert contexts(Drawn(x=0.0), Drawn(x=0.4)) == 1


@pytest.mark.parametrize("other", [{"mode": "full"}, {"pixels": 48}, {"colour": "1 0 0"}, {"size": "0.5"}])
def test_models_that_look_different_do_not(other):
    assert contexts(Drawn(), Drawn(**other)) == 2


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_picture_is_the_same_from_a_shared_context_as_from_one_of_its_own(mode):
    places = [-0.4, 0.0, 0.4]
    alone = []
    for x in places:
        drawn = Drawn(mode, x=x)
        alone.append(drawn.image())
        drawn.renderer.close()
    assert len({picture.tobytes() for picture in alone}) == 3
    several = [Drawn(mode, x=x) for x in places]
    for _ in range(2):
        for drawn, picture in zip(several, alone, strict=True):
            np.testing.assert_array_equal(drawn.image(), picture)


def test_one_that_is_perturbed_or_closed_leaves_the_others_as_they_were():
    first, second = Drawn(), Drawn()
    before = second.image()
    first.renderer.perturb(0, camera_shift=0.3, light=0.9)
    assert np.abs(first.image().astype(int) - before).max() > 20
    np.testing.assert_array_equal(second.image(), before)
    first.renderer.close()
    np.testing.assert_array_equal(second.image(), before)
    np.testing.assert_array_equal(Drawn().image(), before)


def test_a_context_is_freed_with_the_last_that_draws_in_it():
    first, second = Drawn(), Drawn()
    contexts(first, second)
    free = first.renderer._canvas.free
    first.renderer.close()
    assert free.alive
    del second
    assert not free.alive


def test_each_thread_has_contexts_of_its_own():
    here = Drawn()
    picture, seen = here.image(), []

    def draw():
        there = Drawn()
        seen.append((there.image(), there.renderer._canvas is here.renderer._canvas))

    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()
    ((image, shared),) = seen
    assert not shared
    np.testing.assert_array_equal(image, picture)


def test_an_environment_that_nobody_closes_ends_without_a_word():
    """Also where something else was to be finalized before OpenGL came: those were once freed too late."""
    script = """
import weakref
thing = type("Thing", (), {})()
weakref.finalize(thing, print, end="")
from menura.envs.metaworld import MetaWorldEnv
env = MetaWorldEnv(cameras={"view": [16, 16]})
env.reset(seed=0)
"""
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
