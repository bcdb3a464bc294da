"""Wrappers: any class over a reader, in the order of the YAML."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from menura.config import load_task
from menura.data import Episode, open_dataset, windows
from menura.data.wrappers.base import Wrapper, WrapperReader, wrap
from menura.data.wrappers.rename import Rename
from menura.data.wrappers.resample import Resample
from menura.errors import ConfigError, DataError, FeatureMismatch
from menura.features import CameraFeature, Features, Rotation, VectorFeature
from menura.processing.rotations import angle


class Doubled:
    """A user's: no base class, nothing but the two methods."""

    def __init__(self, reader, factor=2.0):
        self.reader, self.factor = reader, factor

    def __len__(self):
        return len(self.reader)

    def episode(self, index):
        episode = self.reader.episode(index)
        return replace(episode, action=episode.action * self.factor)


class Shifted(Wrapper):
    """A user's with the base: only what changes."""

    def __init__(self, reader, by=1.0):
        super().__init__(reader)
        self.by = by

    def episode(self, index):
        episode = super().episode(index)
        return replace(episode, state=episode.state + self.by)


def test_a_class_without_a_base_is_completed(make_reader):
    reader = make_reader([4, 6], cameras={"top": (4, 4)})
    wrapped = wrap(reader, Doubled, {"factor": 3.0})
    assert isinstance(wrapped, WrapperReader)
    assert wrapped.features == reader.features
    assert wrapped.name == reader.name
    assert wrapped.lengths().tolist() == [4, 6]
    np.testing.assert_allclose(wrapped.episode(1).action, 3 * reader.episode(1).action)
    assert wrapped.fingerprint() != reader.fingerprint()
    assert wrapped.fingerprint() != wrap(reader, Doubled, {"factor": 4.0}).fingerprint()
    assert wrapped.fingerprint() == wrap(reader, Doubled, {"factor": 3.0}).fingerprint()
    assert wrapped.fingerprint() != wrap(make_reader([4, 6], seed=1), Doubled, {"factor": 3.0}).fingerprint()


def test_what_changed_its_width_loses_its_names(make_reader):
    class Shorter(Doubled):
        def episode(self, index):
            episode = self.reader.episode(index)
            return replace(episode, state=episode.state[:, :1])

    reader = make_reader([4])
    features = wrap(reader, Shorter, {}).features
    assert features.state_dim == 1
    assert features.action == reader.features.action


def test_the_base_hands_on_and_fingerprints_its_arguments(make_reader):
    reader = make_reader([4, 6])
    shifted = Shifted(reader, 2.0)
    assert len(shifted) == 2
    assert shifted.lengths().tolist() == [4, 6]
    np.testing.assert_allclose(shifted.episode(0).state, reader.episode(0).state + 2)
    assert shifted.fingerprint() == Shifted(reader, 2.0).fingerprint() != Shifted(reader, by=3.0).fingerprint()
    assert pickle.loads(pickle.dumps(shifted)).fingerprint() == shifted.fingerprint()
    assert wrap(reader, Shifted, {"by": 2.0}) is not None


def test_wrappers_are_applied_in_order_and_found_in_the_project(make_reader, tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "lines.py").write_text(
        "import numpy as np\nfrom menura.data import Episode\n\n"
        "class Lines:\n"
        "    def __len__(self):\n        return 2\n"
        "    def episode(self, index):\n"
        "        return Episode(np.ones((5, 2)), np.ones((5, 2)), fps=10)\n"
    )
    (tmp_path / "wrapper").mkdir()
    (tmp_path / "wrapper" / "steps.py").write_text(
        "from dataclasses import replace\n\n"
        "class Add:\n"
        "    def __init__(self, reader, number):\n        self.reader, self.number = reader, number\n"
        "    def __len__(self):\n        return len(self.reader)\n"
        "    def episode(self, index):\n"
        "        episode = self.reader.episode(index)\n"
        "        return replace(episode, action=episode.action + self.number)\n\n"
        "class Times(Add):\n"
        "    def episode(self, index):\n"
        "        episode = self.reader.episode(index)\n"
        "        return replace(episode, action=episode.action * self.number)\n"
    )
    add, times = {"class": "Add", "args": {"number": 1}}, {"class": "Times", "args": {"number": 3}}
    first = open_dataset({"class": "Lines", "wrappers": [add, times]}, project=tmp_path)
    second = open_dataset({"class": "Lines", "wrappers": [times, add], "name": "mine"}, project=tmp_path)
    assert first.episode(0).action[0, 0] == 6
    assert second.episode(0).action[0, 0] == 4
    assert (first.name, second.name) == ("Lines", "mine")
    assert first.fingerprint() != second.fingerprint()
    with pytest.raises(ConfigError, match=r"wrappers\.args\.nmber: no such argument of Add; did you mean number"):
        open_dataset({"class": "Lines", "wrappers": [{"class": "Add", "args": {"nmber": 1}}]}, project=tmp_path)

    task = tmp_path / "configs" / "task" / "t.yaml"
    task.parent.mkdir(parents=True)
    task.write_text(
        "policy: {class: MLPPolicy}\n"
        "datasets:\n"
        "  - class: Lines\n"
        "    wrappers:\n"
        "      - class: Add\n"
        "        args: {numbr: 3}\n"
        "      - {class: Resample, args: {fps: ten}}\n"
        "      - {class: Renam}\n"
        "      - {class: Times, args: {reader: 2, number: 1}}\n"
    )
    with pytest.raises(ConfigError) as error:
        load_task(task)
    text = str(error.value)
    assert (
        "datasets.0.wrappers.0.args.numbr: no such argument of Add; did you mean number? (configs/task/t.yaml:6)"
        in text
    )
    assert "datasets.0.wrappers.1.args.fps: expected a number, got 'ten' (configs/task/t.yaml:7)" in text
    assert "did you mean Rename?" in text
    assert "datasets.0.wrappers.3.args.reader: no such argument of Times" in text


def test_rename(make_reader):
    reader = make_reader([4], cameras={"top": (4, 4)})
    renamed = Rename(reader, state={"s_0": "x"}, action={"a_1": "y"}, cameras={"top": "front"})
    assert renamed.features.state.names == ("x", "s_1", "s_2")
    assert renamed.features.action.names == ("a_0", "y")
    assert list(renamed.features.cameras) == list(renamed.episode(0).images) == ["front"]
    assert renamed.fingerprint() != reader.fingerprint()
    with pytest.raises(DataError, match=r"Rename.state: expected names of .*, got 's0'; did you mean s_0"):
        Rename(reader, state={"s0": "x"})
    with pytest.raises(DataError, match="'s_1' twice"):
        Rename(reader, state={"s_0": "s_1"})


class Turning:
    """A body that turns about z at a constant rate and moves along x, with a gripper that closes half way."""

    fps = 10.0

    def __init__(self, representation="quat_wxyz", length=21):
        self.length = length
        names = ("w", "i", "j", "k")
        feature = VectorFeature(
            ("x", *names, "grip"), rotations=(Rotation(names, representation),), grippers={"grip": (0.0, 1.0)}
        )
        self.features = Features(feature, feature, {"top": CameraFeature(2, 2)}, fps=self.fps)

    def __len__(self):
        return 1

    def episode(self, index):
        step = np.arange(self.length)
        half = 0.1 * step / 2
        table = np.stack([step, np.cos(half), 0 * half, 0 * half, np.sin(half), step >= 10], axis=1)
        frames = np.broadcast_to(step[:, None, None, None], (self.length, 2, 2, 3)).astype(np.uint8)
        return Episode(table, table, {"top": frames}, fps=self.fps)


@pytest.mark.parametrize("fps", [5.0, 10.0, 20.0, 7.0, 30.0])
def test_resample(fps):
    reader = open_dataset(Turning())
    resampled = Resample(reader, fps)
    episode = resampled.episode(0)
    assert resampled.features.fps == episode.fps == fps
    assert len(episode) == resampled.lengths()[0] == int(20 * fps / 10 + 1e-6) + 1
    seconds = np.arange(len(episode)) / fps
    np.testing.assert_allclose(episode.state[:, 0], 10 * seconds, atol=1e-5)
    exact = np.stack([np.cos(seconds / 2), 0 * seconds, 0 * seconds, np.sin(seconds / 2)], axis=1)
    assert angle(episode.action[:, 1:5], exact, "quat_wxyz").max() < 1e-5
    assert set(episode.state[:, 5]) == {0.0, 1.0}
    assert episode.images["top"][:][:, 0, 0, 0].tolist() == np.floor(10 * seconds + 0.5 + 1e-9).astype(int).tolist()
    assert episode.images["top"][3].shape == (2, 2, 3)


def test_resampled_lengths_are_those_of_the_store(make_reader, tmp_path):
    resampled = Resample(make_reader([7, 1, 30], fps=30), 10)
    items = windows(resampled, cache_dir=tmp_path, progress=False, num_workers=0)
    assert items.lengths.tolist() == [3, 1, 10]


def test_differences_are_not_interpolated(make_reader):
    reader = make_reader([4])
    reader.features = replace(reader.features, control_type="delta")
    with pytest.raises(DataError, match="expected absolute actions"):
        Resample(reader, 5)
    with pytest.raises(DataError, match="fps"):
        Resample(make_reader([4]), 0)


def test_an_episode_that_contradicts_the_first_is_found(make_reader):
    class Wobbly(Doubled):
        def episode(self, index):
            episode = self.reader.episode(index)
            return replace(episode, state=episode.state[:, : 1 + index])

    with pytest.raises(FeatureMismatch, match="state width"):
        wrap(make_reader([4, 4]), Wobbly, {}).lengths()
