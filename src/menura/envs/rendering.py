"""Which OpenGL backend MuJoCo draws with, chosen before it is imported and checked where it cannot hurt."""

from __future__ import annotations

import os
import subprocess
import sys

from menura.errors import EnvironmentFailure

_BACKENDS = ("egl", "osmesa")
_NONE = "disabled"

# Run in a process of its own: a broken driver may abort instead of raising.
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(mujoco.MjData(model))
renderer.render()
renderer.close()
"""


def choose_backend() -> str:
    """Sets `MUJOCO_GL` to the first backend that draws, once, for this process and its children; returns it.

    Call it before mujoco or dm_control is imported. A value the user has set stands. Where none works it is `disabled`:
    environments without cameras run on, and `require_rendering` explains the others' failure.
    """
    if not sys.platform.startswith("linux"):
        return os.environ.get("MUJOCO_GL", "")
    if "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = next((backend for backend in _BACKENDS if backend_works(backend)), _NONE)
    return os.environ["MUJOCO_GL"]


def backend_works(backend: str) -> bool:
    """Whether MuJoCo can draw with `backend`; costs about 0.3 s."""
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env={**os.environ, "MUJOCO_GL": backend},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return probe.returncode == 0


def require_rendering() -> None:
    """Raises EnvironmentFailure, with the command to run, when nothing can be drawn."""
    if choose_backend() == _NONE:
        raise EnvironmentFailure(
            "rendering: expected a working OpenGL backend (EGL or OSMesa), got none. "
            "Run `apt-get install -y libegl1 libgl1-mesa-dri`, or use an environment without cameras and videos."
        )
