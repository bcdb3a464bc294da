"""What holds for every format: it trains a policy by a task's YAML alone, is converted without a loss, and its episodes
and cameras are chosen and named in the same words.

To add a format: a function that writes a small dataset below a directory and returns what stands in `datasets:`, and
a line in `FORMATS`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import menura
from menura.data import Episode, Finding, Hdf5Writer, LeRobotWriter, Reader, check_dataset, convert, open_dataset
from menura.features import CameraFeature, Features, VectorFeature

Spec = dict[str, Any]


def aloha(directory: Path, request: pytest.FixtureRequest) -> Spec:
    request.getfixturevalue("make_aloha")(directory / "aloha", images="padded", bgr=True)
    return {"path": str(directory / "aloha"), "args": {"colour": "bgr"}, "keys": {"images": {"front": "cam_high"}}}


def robomimic(directory: Path, request: pytest.FixtureRequest) -> Spec:
    request.getfixturevalue("make_robomimic")(directory / "lift.hdf5")
    return {"path": str(directory / "lift.hdf5"), "args": {"mask": "train"}}


def robosuite(directory: Path, request: pytest.FixtureRequest) -> Spec:
    """A recording without observations or a rate."""
    request.getfixturevalue("make_robomimic")(directory / "demo.hdf5", cameras=())
    keys = {"state": "states", "action": "actions"}
    return {"path": str(directory / "demo.hdf5"), "args": {"fps": 20}, "keys": keys}


def libero(directory: Path, request: pytest.FixtureRequest) -> Spec:
    for task in ("open the drawer", "close the drawer"):
        request.getfixturevalue("make_libero")(directory / "libero" / f"{task}.hdf5", instruction=task)
    return {"path": str(directory / "libero")}


def minari(directory: Path, request: pytest.FixtureRequest) -> Spec:
    request.getfixturevalue("make_minari")(directory / "minari")
    return {"path": str(directory / "minari"), "args": {"fps": 25}}


def menura_hdf5(directory: Path, request: pytest.FixtureRequest) -> Spec:
    features = Features(
        state=VectorFeature(("x", "y")),
        action=VectorFeature(("dx", "dy")),
        cameras={"top": CameraFeature(16, 24)},
        fps=10,
        language=True,
    )
    rng = np.random.default_rng(0)
    with Hdf5Writer(directory / "own", features) as writer:
        for _ in range(3):
            frames = rng.integers(256, size=(6, 16, 24, 3), dtype=np.uint8)
            state, action = rng.normal(size=(2, 6, 2))
            writer.add_episode(Episode(state, action, images={"top": frames}, task="reach", fps=10))
    return {"path": str(directory / "own")}


def rlds(directory: Path, request: pytest.FixtureRequest) -> Spec:
    """As tensorflow-datasets wrote it, with an action in parts."""
    action = ["action/world_vector", "action/rotation_delta", "action/open_gripper"]
    path = Path(__file__).parents[1] / "fixtures/rlds/tiny_arm"
    return {"path": str(path), "args": {"fps": 5}, "keys": {"action": action}}


def lerobot_v3(directory: Path, request: pytest.FixtureRequest) -> Spec:
    """As LeRobot 0.6.1 wrote it, some episodes of it, with a camera renamed."""
    path = Path(__file__).parents[1] / "fixtures/lerobot/lerobot_v3_many_files"
    return {"path": str(path), "args": {"episodes": [5, 2]}, "keys": {"images": {"front": "top"}}}


def lerobot_v2(directory: Path, request: pytest.FixtureRequest) -> Spec:
    """As LeRobot 0.3.3 wrote it, with a scalar as part of the state."""
    path = Path(__file__).parents[1] / "fixtures/lerobot/lerobot_v21"
    return {"path": str(path), "keys": {"state": ["observation.state", "next.reward"]}}


def lerobot_written(directory: Path, request: pytest.FixtureRequest) -> Spec:
    """As we write it."""
    features = Features(state=VectorFeature(("x",)), action=VectorFeature(("dx", "dy")), fps=10)
    rng = np.random.default_rng(0)
    with LeRobotWriter(directory / "written", features) as writer:
        for _ in range(3):
            writer.add_episode(Episode(rng.normal(size=(6, 1)), rng.normal(size=(6, 2)), fps=10))
    return {"path": str(directory / "written")}


def zarr(directory: Path, request: pytest.FixtureRequest) -> Spec:
    """A replay buffer without a rate, with frames in 0 … 1."""
    package = pytest.importorskip("zarr", reason="pip install 'menura[zarr]'")
    rng = np.random.default_rng(0)
    arrays = {
        "data/img": rng.uniform(size=(12, 16, 16, 3)).astype(np.float32),
        "data/state": rng.normal(size=(12, 3)).astype(np.float32),
        "data/action": rng.normal(size=(12, 2)).astype(np.float32),
        "meta/episode_ends": np.array([5, 12]),
    }
    for name, array in arrays.items():
        package.save_array(str(directory / "buffer.zarr" / name), array)
    return {"path": str(directory / "buffer.zarr"), "args": {"fps": 12}}


def users_class(directory: Path, request: pytest.FixtureRequest) -> Spec:
    (directory / "dataset").mkdir()
    (directory / "dataset/walks.py").write_text(WALKS)
    return {"class": "Walks", "args": {"episodes": 3}}


WALKS = """
import numpy as np
from menura.data import Episode

class Walks:
    def __init__(self, episodes):
        self.episodes = episodes

    def __len__(self):
        return self.episodes

    def episode(self, index):
        steps = np.random.default_rng(index).normal(size=(6, 2))
        return Episode(steps.cumsum(axis=0), steps, fps=10)
"""

FORMATS: list[Callable[[Path, pytest.FixtureRequest], Spec]] = [
    aloha,
    robomimic,
    robosuite,
    libero,
    minari,
    menura_hdf5,
    rlds,
    lerobot_v3,
    lerobot_v2,
    lerobot_written,
    zarr,
    users_class,
]


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_a_format_trains_by_a_yaml(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.setenv("MENURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    task = {
        "datasets": [make(tmp_path, request)],
        "policy": {
            "class": "MLPPolicy",
            "args": {"chunk_size": 2, "n_action_steps": 1, "hidden_size": 16, "num_layers": 1},
        },
        "training": {"max_steps": 20, "per_device_train_batch_size": 4, "dataloader_num_workers": 0, "use_cpu": True},
    }
    path = tmp_path / "configs/task/format.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(task))
    result = menura.train("format", output_dir=tmp_path / "out")
    assert result.metrics["steps"] == 20
    assert (tmp_path / "out/model.safetensors").exists()


def content(reader: Reader, pictures: bool = True) -> list[tuple[Any, ...]]:
    """All that is read of each episode, bit by bit."""
    found = []
    for index in range(len(reader)):
        each = reader.episode(index)
        frames = {name: np.asarray(images[:]).tobytes() for name, images in each.images.items() if pictures}
        tables = (each.state.shape, each.state.tobytes(), each.action.tobytes())
        found.append((*tables, each.task, each.fps, each.success, each.seed, dict(each.extra), frames))
    return found


@pytest.mark.parametrize("to", ["lerobot", "menura"])
@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_a_format_is_converted_without_a_loss(
    tmp_path: Path, request: pytest.FixtureRequest, make: Any, to: str
) -> None:
    source = open_dataset(make(tmp_path, request), project=tmp_path)
    made = open_dataset(convert(source, tmp_path / "made", to=to, lossless=True, progress=False))
    assert content(made) == content(source)
    assert made.features == source.features
    assert made.lengths().tolist() == source.lengths().tolist()
    assert made.tasks() == source.tasks()


@pytest.mark.parametrize("to", ["lerobot", "menura"])
@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_a_format_is_converted_with_coded_cameras(
    tmp_path: Path, request: pytest.FixtureRequest, make: Any, to: str
) -> None:
    """As video or JPEG: tables stay equal; pictures are as many, as large, and each nearest to its own."""
    source = open_dataset(make(tmp_path, request), project=tmp_path)
    if not source.features.cameras:
        pytest.skip("no cameras")
    made = open_dataset(convert(source, tmp_path / "made", to=to, lossless=False, progress=False))
    assert content(made, pictures=False) == content(source, pictures=False)
    assert made.features == source.features
    for index in range(len(source)):
        for name, frames in source.episode(index).images.items():
            expected = np.asarray(frames[:], np.float32)
            got = np.asarray(made.episode(index).images[name][:], np.float32)
            assert got.shape == expected.shape
            errors = np.abs(got[:, None] - expected[None]).mean(axis=(2, 3, 4))  # (T, T) of each to each
            assert (errors.diagonal() <= errors.min(axis=1) + 0.5).all()


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_what_is_found_in_data_does_not_depend_on_its_format(
    tmp_path: Path, request: pytest.FixtureRequest, make: Any
) -> None:
    """These are random numbers, in which much looks wrong; but nothing that only a format could get wrong."""

    def key(finding: Finding) -> tuple[Any, ...]:
        return finding.kind, finding.severity, finding.subject, finding.places, finding.dimensions

    source = open_dataset(make(tmp_path, request), project=tmp_path)
    convert(source, tmp_path / "made", lossless=True, progress=False)
    found, again = (check_dataset(each, cache_dir=tmp_path) for each in (source, tmp_path / "made"))
    assert found.errors == []
    assert list(map(key, found.findings)) == list(map(key, again.findings))
    for finding in found.findings:
        assert 0 < finding.confidence <= 1
        assert finding.remedy


@pytest.mark.parametrize("make", FORMATS[:-1], ids=lambda make: make.__name__)
def test_episodes_and_cameras_are_chosen_in_the_same_words(
    tmp_path: Path, request: pytest.FixtureRequest, make: Any
) -> None:
    """`episodes` of `args`, in the order given; `keys.images` by a camera's own name, under another; `name`."""
    spec = make(tmp_path, request)
    whole = open_dataset(spec)
    last = len(whole) - 1
    numbers = np.asarray(spec.get("args", {}).get("episodes", range(len(whole))))[[last, 0]].tolist()
    cameras = [spec.get("keys", {}).get("images", {}).get(name, name) for name in whole.features.cameras]
    keys = {**spec.get("keys", {}), "images": {"eye": cameras[-1]} if cameras else {}}
    chosen = {**spec, "args": {**spec.get("args", {}), "episodes": numbers}, "keys": keys, "name": "some"}
    some = open_dataset(chosen)
    assert some.name == "some"
    assert content(some, pictures=False) == [content(whole, pictures=False)[index] for index in (last, 0)]
    assert some.lengths().tolist() == whole.lengths()[[last, 0]].tolist()
    assert some.tasks() == [whole.tasks()[index] for index in (last, 0)]
    assert list(some.features.cameras) == (["eye"] if cameras else [])
    if cameras:
        expected = whole.episode(last).images[list(whole.features.cameras)[-1]]
        np.testing.assert_array_equal(some.episode(0).images["eye"][:], expected[:])
    assert some.fingerprint() != whole.fingerprint()
    assert open_dataset(chosen).fingerprint() == some.fingerprint()
    assert content(pickle.loads(pickle.dumps(some))) == content(some)
