"""Faults of data and statistics that imitation-learning frameworks have had, and ours must not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import menura
from menura.checkpoint import load_checkpoint
from menura.data import Episode, LeRobotReader, LeRobotWriter, windows
from menura.errors import ConfigError
from menura.features import CameraFeature, Features, VectorFeature
from menura.processing.normalizer import Normalizer
from menura.processing.rotations import angle, compose, convert
from menura.processing.spaces import Spaces

SHORT = ["--training.max_steps=2"]
SCALED = """
from pathlib import Path

import numpy as np
from menura.data import Episode


class Scaled:
    def __len__(self):
        return 3

    def episode(self, index):
        rng = np.random.default_rng(index)
        scale = float(Path("scale").read_text())
        return Episode(rng.normal(size=(20, 4)), scale * rng.normal(size=(20, 2)), fps=10)
"""
FEATURES = Features(
    state=VectorFeature.of_width(3, "s"),
    action=VectorFeature.of_width(2, "a"),
    cameras={"top": CameraFeature(16, 24)},
    fps=10.0,
    language=True,
)


def episode(length: int, seed: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    images = {"top": rng.integers(256, size=(length, 16, 24, 3), dtype=np.uint8)}
    return Episode(rng.normal(size=(length, 3)), rng.normal(size=(length, 2)), images, "push", fps=10.0)


def test_data_changed_under_the_same_name_gets_new_statistics(project: Path) -> None:
    """Silent wrong results 1: a thousandfold of the actions, and the statistics of before."""
    (project / "dataset" / "scaled.py").write_text(SCALED)
    for run, scale in (("before", 1), ("after", 1000)):
        (project / "scale").write_text(str(scale))
        menura.train("reach", output_dir=run, overrides=[*SHORT, "--datasets=[{class: Scaled}]"])
    before, after = (load_checkpoint(run, project=project).processor.action_normalizer for run in ("before", "after"))
    ones = torch.ones(1, 2)
    torch.testing.assert_close(after.normalize(1000 * ones), before.normalize(ones), rtol=1e-3, atol=1e-3)


def test_a_checkpoint_uses_its_own_statistics_though_the_cache_has_others(project: Path) -> None:
    """Silent wrong results 2: the cache's statistics in the place of the checkpoint's."""
    menura.train("reach", output_dir="out", overrides=SHORT)
    obs = {"state": np.full((1, 4), 0.3, np.float32)}
    before = menura.MetaPolicy.from_pretrained("out").predict(obs)
    for file in (project.parent / "cache").rglob("*"):
        if file.is_file():
            file.write_bytes(b"not what it was")
    np.testing.assert_array_equal(menura.MetaPolicy.from_pretrained("out").predict(obs), before)


def test_a_frame_is_the_same_however_often_it_is_read(tmp_path: Path) -> None:
    """Silent wrong results 9: a reader that scales the array it keeps gives 0.05, 0.0025, 0.000125."""
    with LeRobotWriter(tmp_path / "demos", FEATURES) as writer:
        writer.add_episode(episode(5))
    reader = LeRobotReader(tmp_path / "demos")
    first = reader.episode(0)
    kept = first.action.copy(), np.array(first.images["top"][:])
    for _ in range(3):
        read = reader.episode(0)
        np.testing.assert_array_equal(read.action, kept[0])
        np.testing.assert_array_equal(read.images["top"][:], kept[1])
        if read.action.flags.writeable:
            read.action[:] *= 0.05  # what a user does with it reaches nobody else


class Cached:
    """A user's dataset that keeps what it read."""

    name = "cached"

    def __init__(self) -> None:
        self._kept = episode(5)

    def __len__(self) -> int:
        return 1

    def episode(self, index: int) -> Episode:
        return self._kept


def test_reading_leaves_the_users_arrays_alone(tmp_path: Path) -> None:
    """Silent wrong results 9: what a dataset keeps is not scaled, normalized or resized in place."""
    dataset = Cached()
    before = dataset.episode(0).action.copy(), dataset.episode(0).images["top"].copy()
    data = windows(dataset, action_offsets=(0, 1), image_size=(8, 8), cache_dir=tmp_path)
    for _ in range(3):
        batch = data.__getitems__([0, 1])
        batch["actions"] *= 0.05
        batch["image"][:] = 0
    np.testing.assert_array_equal(dataset.episode(0).action, before[0])
    np.testing.assert_array_equal(dataset.episode(0).images["top"], before[1])
    np.testing.assert_array_equal(data.__getitems__([0])["actions"][0, 0], before[0][0])


def test_a_size_is_height_and_width_in_every_room(project: Path) -> None:
    """Silent wrong results 10: (480, 640) given to what takes (w, h) trains on portraits and acts on landscapes."""
    source = project / "policy" / "seeing_policies.py"
    source.write_text(source.read_text().replace("image_size**2", "image_size[0] * config.image_size[1]"))
    menura.train("seen", output_dir="out", overrides=["--policy.args.image_size=[6, 10]"])
    processor = load_checkpoint("out", project=project).processor
    frames = {name: np.zeros((1, 2, 16, 20, 3), np.uint8) for name in ("left", "right")}
    assert processor.prepare({"images": frames})["image"].shape == (1, 2, 2, 6, 10, 3)
    for size in ((6, 10), (10, 6)):
        stored = windows(Cached(), image_size=size, cache_dir=project / "cache").__getitems__([0])["image"]
        assert stored.shape == (1, 1, *size, 3)


def test_a_policy_that_names_no_camera_gets_all_there_are(project: Path) -> None:
    """Headline flows 4: a quick start that trains with `camera_names=[]`, and nobody notices."""
    source = project / "policy" / "seeing_policies.py"
    source.write_text(
        source.read_text()
        .replace('camera_names=("left", "right")', "camera_names=None")
        .replace("list(camera_names)", "camera_names")
    )
    menura.train("seen", output_dir="out")
    assert load_checkpoint("out", project=project).processor.camera_names == ("left", "right")


def test_parts_of_a_mixture_that_cannot_be_collated_are_refused_before_training(project: Path) -> None:
    """Headline flows 11: a mixture of widths or chunk sizes that fails at the first batch, or of classes nobody has."""
    with pytest.raises(ConfigError, match=r"datasets\.1\.class: .*'Kitchen'"):
        menura.train("reach", output_dir="out", overrides=["--datasets=[{class: ReachData}, {class: Kitchen}]"])
    with pytest.raises(menura.MenuraError, match=re.escape("SeenData")):
        menura.train("reach", output_dir="out", overrides=["--datasets=[{class: ReachData}, {class: SeenData}]"])
    assert not list(Path("out").glob("checkpoint-*"))


def test_the_end_of_an_episode_is_not_padded_with_zeros(tmp_path: Path) -> None:
    """Silent wrong results 20: zeros behind the last action, which an absolute controller would execute."""
    data = windows(Cached(), action_offsets=range(4), cache_dir=tmp_path)
    last = data.__getitems__([4])
    np.testing.assert_array_equal(last["actions"][0], np.repeat(episode(5).action[4:], 4, axis=0))
    assert last["is_pad"][0].tolist() == [False, True, True, True]


def test_statistics_are_of_the_differences_that_are_trained(tmp_path: Path) -> None:
    """Silent wrong results 20: samples q - q[0], statistics of one-step differences: a "unit" deviation of 30."""
    names = ("shoulder", "elbow")
    features = Features(VectorFeature(names), VectorFeature(names), fps=10, control_type="abs")
    steps = np.random.default_rng(0).normal(size=(200, 2)).cumsum(0).astype(np.float32)
    spaces = Spaces(features, action_type="relative")

    class Walk:
        def __init__(self) -> None:
            self.features = features

        def __len__(self) -> int:
            return 1

        def episode(self, index: int) -> Episode:
            return Episode(steps, steps, fps=10)

    items = windows(Walk(), (0,), range(50), spaces=spaces, cache_dir=tmp_path, progress=False)
    batch = items.__getitems__(range(len(items)))
    normalizer = Normalizer("zscore", items.statistics()["action"], feature="action")
    normalized = normalizer.normalize(torch.from_numpy(batch["actions"]))[~torch.from_numpy(batch["is_pad"])]
    assert normalized.mean(0).abs().max() < 1e-4
    assert (normalized.std(0) - 1).abs().max() < 1e-2


def test_converting_rotations_changes_no_input_and_turns_the_short_way() -> None:
    """Silent wrong results 27: `quat2axisangle` that writes into its input and answers angles beyond pi for w < 0."""
    quaternion = np.array([-0.7, 0.1, 0.2, 0.3])
    before = quaternion.copy()
    turn = convert(quaternion, "quat_wxyz", "axis_angle")
    assert np.array_equal(quaternion, before)
    assert np.linalg.norm(turn) <= np.pi
    added = [np.pi / 2, np.pi / 2, 0]  # as vectors
    composed = compose([np.pi / 2, 0, 0], [0, np.pi / 2, 0], "axis_angle")
    assert angle(added, composed, "axis_angle") > 0.5


def test_an_episode_of_one_frame_is_recorded_and_read(tmp_path: Path) -> None:
    """Silent wrong results 24: a division by zero on an episode of one frame; no language, fps or names recorded."""
    with LeRobotWriter(tmp_path / "demos", FEATURES) as writer:
        writer.add_episode(episode(1))
        writer.add_episode(episode(7, seed=1))
    reader = LeRobotReader(tmp_path / "demos")
    assert reader.lengths().tolist() == [1, 7]
    assert reader.episode(0).task == "push"
    assert reader.features.fps == 10
    assert reader.features.action.names == FEATURES.action.names
    data = windows(reader, action_offsets=range(3), cache_dir=tmp_path)
    assert data.__getitems__([0])["is_pad"].tolist() == [[False, True, True]]
    assert np.isfinite(data.statistics()["action"].std).all()


def test_batches_are_not_runs_of_consecutive_frames(project: Path) -> None:
    """Silent wrong results 18, 19: a shuffle that is commented out, or a buffer too small for the data."""
    order = np.array(list(menura.data.EpochSampler(range(10_000), seed=0)))
    assert sorted(order) == list(range(10_000))
    neighbours = np.abs(np.diff(order))
    assert (neighbours == 1).mean() < 0.002
    assert 3000 < neighbours.mean() < 3700, "a third of the size, as of independent draws"


@pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
def test_a_lerobot_dataset_is_normalized_by_its_own_statistics(tmp_path: Path, kind: Any, project: Path) -> None:
    """Headline flows 9: statistics saved under one key and looked up under another."""
    rng = np.random.default_rng(0)
    with LeRobotWriter(
        project / "demos",
        Features(state=VectorFeature.of_width(4, "s"), action=VectorFeature.of_width(2, "a"), fps=10.0),
    ) as writer:
        for _ in range(3):
            writer.add_episode(Episode(rng.normal(5, 2, (20, 4)), rng.normal(-3, 0.1, (20, 2)), fps=10.0))
    menura.train(
        "reach",
        output_dir="out",
        overrides=[
            *SHORT,
            "--datasets=[demos]",
            f"--processor.state={kind}",
            f"--processor.action={kind}",
            "--env=null",
        ],
    )
    processor = load_checkpoint("out", project=project).processor
    data = LeRobotReader(project / "demos")
    action = np.concatenate([data.episode(i).action for i in range(3)])
    got = processor.action_normalizer.normalize(torch.from_numpy(action)).numpy()
    if kind == "zscore":
        np.testing.assert_allclose([got.mean(0), got.std(0)], [[0, 0], [1, 1]], atol=1e-3)
    elif kind == "minmax":
        np.testing.assert_allclose([got.min(0), got.max(0)], [[-1, -1], [1, 1]], atol=1e-4)
    else:
        np.testing.assert_allclose(np.quantile(got, [0.01, 0.99], axis=0), [[-1, -1], [1, 1]], atol=1e-2)
