"""Draws a MuJoCo model: one OpenGL context for all cameras, made with the first frame.

Environments of one thread whose models look the same share theirs: a context takes as long to make, and as much
memory, as the rest of an environment (MetaWorld: 0.23 s and 70 MB), and a processor that stays with one draws faster.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from menura.data.episode import UInt8
from menura.envs.cameras import Camera, Pose
from menura.envs.rendering import require_rendering
from menura.errors import EnvironmentFailure
from menura.features import RenderMode


class MujocoRenderer:
    """Draws cameras of one model.

    In mode `fast` there are no shadows, reflections nor multisampling: in software their cost, not that of the pixels,
    is what a frame takes (3 to 20 times cheaper without). The context fixes both when it is made, so the model's
    quality is set here; its meshes and textures must not change after the first frame.

    Args:
        hidden_groups: the groups of geoms that are not drawn, such as those that are there for collisions only.

    Attributes:
        drawn: how many frames were drawn so far.
    """

    def __init__(
        self, model: Any, cameras: Iterable[Camera], mode: RenderMode, hidden_groups: tuple[int, ...] = ()
    ) -> None:
        if mode not in ("fast", "full"):
            raise EnvironmentFailure(f"render: expected 'fast' or 'full', got {mode!r}.")
        self._model = model
        self._mode = mode
        self._hidden_groups = hidden_groups
        self._canvas: _Canvas | None = None
        self._shift = np.zeros(3, np.float32)
        self._brightness = 1.0
        self.drawn = 0
        # A context's frame buffer is never smaller than what the model asks for.
        sizes = [(camera.height, camera.width) for camera in cameras]
        model.vis.global_.offheight = max(height for height, _ in sizes)
        model.vis.global_.offwidth = max(width for _, width in sizes)
        if mode == "fast":
            model.vis.quality.shadowsize = 0
            model.vis.quality.offsamples = 0

    def draw(self, data: Any, camera: Camera) -> UInt8:
        """(height, width, 3) RGB uint8 of `camera` in the state `data`."""
        import mujoco

        if self._canvas is None:
            self._canvas = _canvas(self._model, self._mode)
        window, context, scene = self._canvas.window, self._canvas.context, self._canvas.scene
        window.make_current()
        rectangle = mujoco.MjrRect(0, 0, camera.width, camera.height)
        every = mujoco.mjtCatBit.mjCAT_ALL
        view = self._view(camera)
        options = mujoco.MjvOption()
        options.geomgroup[list(self._hidden_groups)] = 0
        mujoco.mjv_updateScene(self._model, data, options, mujoco.MjvPerturb(), view, every, scene)
        self._change(scene)
        mujoco.mjr_render(rectangle, scene, context)
        pixels = np.empty((camera.height, camera.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, rectangle, context)
        self.drawn += 1
        return np.ascontiguousarray(pixels[::-1])  # OpenGL's first row is the lowest

    def perturb(self, seed: int, *, camera_shift: float, light: float) -> None:
        """From now on every camera stands `camera_shift` (m) off, and lights are weaker or stronger.

        The direction, and by how much of the share `light` at most, are a function of `seed`.
        """
        random = np.random.default_rng(seed)
        direction = random.standard_normal(3)
        self._shift = (camera_shift * direction / np.linalg.norm(direction)).astype(np.float32)
        self._brightness = 1 + float(random.uniform(-light, light))

    def _change(self, scene: Any) -> None:
        """What `perturb` asked for, in the scene that is drawn next."""
        for view in scene.camera:  # the two eyes; a picture is taken from between them
            view.pos = view.pos + self._shift
        if self._brightness != 1:
            for light in scene.lights[: scene.nlight]:
                light.ambient, light.diffuse, light.specular = (
                    self._brightness * part for part in (light.ambient, light.diffuse, light.specular)
                )

    def close(self) -> None:
        self._canvas = None

    def _view(self, camera: Camera) -> Any:
        import mujoco

        view = mujoco.MjvCamera()
        if camera.pose is None:
            view.type = mujoco.mjtCamera.mjCAMERA_FIXED
            view.fixedcamid = self._model.camera(camera.name).id
        else:
            _place(view, camera.pose)
        return view


def halved(image: UInt8) -> UInt8:
    """(2H, 2W, 3) -> (H, W, 3), four pixels averaged into one: smooth edges without multisampling."""
    wide = image.astype(np.uint16)
    return ((wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]) // 4).astype(np.uint8)


class _Canvas:
    """An OpenGL context that holds the meshes and textures of a model, and the scene that is drawn next."""

    def __init__(self, model: Any, mode: RenderMode) -> None:
        require_rendering()
        import mujoco

        self.window = mujoco.GLContext(model.vis.global_.offwidth, model.vis.global_.offheight)
        self.window.make_current()
        try:
            self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except mujoco.FatalError as error:
            raise EnvironmentFailure(
                f"rendering: expected an OpenGL context, got {str(error)!r}. mujoco was imported before a backend was "
                "chosen: set MUJOCO_GL=egl, or import mujoco after the environment is made."
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context)
        self.scene = mujoco.MjvScene(model, maxgeom=10_000)
        if mode == "fast":
            self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self.free = weakref.finalize(self, _free, self.window, self.context)
        _free_all_at_exit()


_canvases: weakref.WeakValueDictionary[tuple[int, str], _Canvas] = weakref.WeakValueDictionary()


def _canvas(model: Any, mode: RenderMode) -> _Canvas:
    """One for each look and thread: a context is of the thread that draws."""
    key = (threading.get_ident(), _look(model, mode))
    canvas = _canvases.get(key)
    if canvas is None:
        canvas = _canvases[key] = _Canvas(model, mode)
    return canvas


def _look(model: Any, mode: RenderMode) -> str:
    """A hash of all that a context is made of. Where things are, and their colours, belong to a scene."""
    settings = (mode, model.vis.quality, model.vis.map, model.vis.global_, model.stat.extent)
    look = hashlib.blake2b(repr(settings).encode())
    for name in dir(model):
        if name.startswith(("mesh_", "tex_", "mat_", "hfield_", "skin_", "flex_")):
            array = np.ascontiguousarray(getattr(model, name))
            look.update(f"{name} {array.dtype} {array.shape}".encode())
            look.update(array.data)
    return look.hexdigest()


def _free(window: Any, context: Any) -> None:
    window.make_current()
    context.free()
    window.free()


@functools.cache
def _free_all_at_exit() -> None:
    """Once mujoco is imported, which takes OpenGL down at the exit itself: what is registered last comes first."""
    atexit.register(lambda: [canvas.free() for canvas in list(_canvases.values())])


def _place(view: Any, pose: Pose) -> None:
    import mujoco

    view.type = mujoco.mjtCamera.mjCAMERA_FREE
    view.lookat[:] = pose.lookat
    view.distance, view.azimuth, view.elevation = pose.distance, pose.azimuth, pose.elevation
