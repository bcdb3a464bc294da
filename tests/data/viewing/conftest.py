"""A dataset whose pictures say which episode, frame and camera they are, and a server that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest

from menura.data.episode import Episode
from menura.data.frames import LazyFrames
from menura.data.readers.base import Reader
from menura.data.viewing import Viewer, ViewServer
from menura.errors import DataError
from menura.features import CameraFeature, Features, VectorFeature

LENGTHS = [40, 25, 60, *[20] * 27]
CAMERAS = {"left": (24, 32), "right": (16, 20)}
HOSTILE = "<img src=x onerror=alert(1)>"
NAN_AT = (2, 37)


def colour(episode: int, frame: int, camera: str) -> tuple[int, int, int]:
    return 4 * frame, 8 * episode, 60 + 120 * list(CAMERAS).index(camera)


class Painted(LazyFrames):
    """One colour a frame, made when asked for."""

    def __init__(self, episode: int, camera: str) -> None:
        super().__init__(LENGTHS[episode], *CAMERAS[camera])
        self.episode, self.camera = episode, camera

    def read(self, numbers: np.ndarray) -> np.ndarray:
        if (self.episode, self.camera) == (5, "right"):
            raise DataError("right.mp4: damaged.")
        out = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for row, number in enumerate(numbers.tolist()):
            out[row] = colour(self.episode, number, self.camera)
        return out


class Pictures(Reader):
    """30 episodes; one state is no number. `read` has the episodes that were asked for, in order."""

    def __init__(self) -> None:
        self.name = "pictures"
        self.features = Features(
            state=VectorFeature(("arm", "grip", "cube"), ("rad", "1", "m"), grippers={"grip": (0.0, 1.0)}),
            action=VectorFeature(("arm", "grip"), ("rad", "1")),
            cameras={name: CameraFeature(*size) for name, size in CAMERAS.items()},
            fps=30,
            language=True,
        )
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(LENGTHS)

    def lengths(self) -> np.ndarray:
        return np.array(LENGTHS, np.int64)

    def tasks(self) -> list[str]:
        return [HOSTILE if index == 1 else f"put block {index % 3} away" for index in range(len(self))]

    def metadata(self, index: int) -> dict[str, Any]:
        return {"success": index % 4 != 3, "extra": {"operator": "Ada"}}

    def fingerprint(self) -> str:
        return "pictures"

    def episode(self, index: int) -> Episode:
        self.read.append(index)
        length, rng = LENGTHS[index], np.random.default_rng(index)
        walk = rng.normal(size=(length, 3)).cumsum(axis=0).astype(np.float32)
        walk[:, 0] = np.arange(length)
        action = walk[:, :2] + 0.5
        if index == NAN_AT[0]:
            walk[NAN_AT[1], 2] = np.nan
        images = {camera: Painted(index, camera) for camera in CAMERAS}
        facts = {"success": index % 4 != 3, "seed": 7, "extra": {"operator": "Ada"}}
        return Episode(walk, action, images, task=self.tasks()[index], fps=30, **facts)


@contextmanager
def serving(viewer: Viewer) -> Iterator[ViewServer]:
    with ViewServer(viewer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            viewer.close()


@pytest.fixture(scope="session")
def show() -> Callable[[Viewer], Any]:
    return serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    with serving(Viewer(Pictures, cache_dir=str(tmp_path_factory.mktemp("cache")))) as running:
        yield running


@pytest.fixture(scope="session")
def ask() -> Callable[..., tuple[int, Any]]:
    """(status, what came back: bytes, or what the JSON says)."""

    def ask(server: ViewServer, path: str) -> tuple[int, Any]:
        try:
            with urlopen(server.url + path) as answer:
                status, kind, body = answer.status, answer.headers["Content-Type"], answer.read()
        except HTTPError as error:
            status, kind, body = error.code, error.headers["Content-Type"], error.read()
        return status, json.loads(body) if kind == "application/json" else body

    return ask


@pytest.fixture(scope="session")
def painted() -> Any:
    """What the dataset is made of, for tests to compare with."""

    class Known:
        lengths, cameras, hostile, nan_at = LENGTHS, CAMERAS, HOSTILE, NAN_AT
        reader, colour = Pictures, staticmethod(colour)
        page = Path(__file__).parents[3] / "src" / "menura" / "data" / "viewing" / "page"

    return Known
