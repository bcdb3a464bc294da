"""Actions and rotations converted, and features declared, where a dataset is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation as Turn

from menura.data import Episode, open_dataset, windows
from menura.data.readers.base import Reader
from menura.data.tools import editing
from menura.data.wrappers.convert_actions import ConvertActions
from menura.data.wrappers.convert_rotations import ConvertRotations
from menura.data.wrappers.declare_features import DeclareFeatures
from menura.errors import FeatureMismatch
from menura.features import ROTATIONS, Features, Rotation, VectorFeature
from menura.processing.rotations import angle, convert

JOINTS = VectorFeature(("shoulder", "elbow", "gripper"), grippers={"gripper": (0.0, 1.0)})
TURN = ("qw", "qx", "qy", "qz")


class Arm:
    """Two episodes of an arm: joints, or a pose with a quaternion in the state and `representation` in the action."""

    def __init__(self, representation: str | None = None, control_type: str | None = "abs") -> None:
        state, action = JOINTS, JOINTS
        if representation is not None:
            names = tuple(f"turn_{place}" for place in range(ROTATIONS[representation]))
            state = VectorFeature(("x", *TURN), rotations=(Rotation(TURN, "quat_wxyz"),))
            action = VectorFeature((*names, "x"), rotations=(Rotation(names, representation),))
        self.representation = representation
        self.features = Features(state, action, fps=10, control_type=control_type)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return 2

    def episode(self, index: int) -> Episode:
        random, length = np.random.default_rng(index), 12
        x = random.normal(size=(2, length, 3)).astype(np.float32)
        if self.representation is None:
            return Episode(x[0], x[1], fps=10)
        turns = [Turn.random(length, random_state=index + part).as_quat() for part in range(2)]
        state = np.concatenate([x[0, :, :1], convert(turns[0], "quat_xyzw", "quat_wxyz")], axis=1)
        action = np.concatenate([convert(turns[1], "quat_xyzw", self.representation), x[1, :, :1]], axis=1)
        return Episode(state.astype(np.float32), action.astype(np.float32), fps=10)


def arm(representation: str | None = None, control_type: str | None = "abs") -> Reader:
    return open_dataset(Arm(representation, control_type))


@pytest.mark.parametrize("against", ["state", "previous"])
def test_joints_become_deltas_and_come_back(against: Any) -> None:
    reader = arm()
    delta = ConvertActions(reader, to="delta", against=against)
    assert delta.features == replace(reader.features, control_type="delta")
    back = ConvertActions(delta, to="abs", against=against)
    assert back.features == reader.features
    for index in range(2):
        episode, changed = reader.episode(index), delta.episode(index)
        before = episode.state.copy()
        if against == "previous":
            before[1:] = episode.action[:-1]
        expected = episode.action - before * [1, 1, 0]  # the gripper stays absolute
        assert changed.action == pytest.approx(expected, abs=1e-6)
        assert changed.action.dtype == np.float32
        assert np.array_equal(changed.state, episode.state)
        assert back.episode(index).action == pytest.approx(episode.action, abs=1e-5)


@given(st.sampled_from(sorted(set(ROTATIONS) - {"angle"})), st.sampled_from(["state", "previous"]))
def test_poses_become_deltas_and_come_back(representation: str, against: Any) -> None:
    reader = arm(representation)
    names = {"action_reference": {"turn_0": "qw"}}
    delta = ConvertActions(reader, to="delta", against=against, **names)  # type: ignore[arg-type]
    back = ConvertActions(delta, to="abs", against=against, **names)  # type: ignore[arg-type]
    action, again = reader.episode(1).action, back.episode(1).action
    assert again[:, -1] == pytest.approx(action[:, -1], abs=1e-5)
    allowed = 5e-3 if representation.startswith("euler") else 1e-4  # gimbal lock costs half the digits
    assert angle(again[:, :-1], action[:, :-1], representation).max() < allowed


@pytest.mark.parametrize(
    ("control_type", "to", "message"),
    [
        ("delta", "delta", "expected actions of 'Arm' that are abs, got delta"),
        ("abs", "abs", "that are delta, got abs"),
        (None, "delta", "got features that do not say. Say what they are with the wrapper DeclareFeatures"),
        ("abs", "deltas", "ConvertActions.to: expected one of .*did you mean delta"),
    ],
)
def test_actions_that_are_no_such_thing_are_refused(control_type: str | None, to: Any, message: str) -> None:
    with pytest.raises(FeatureMismatch, match=message):
        ConvertActions(arm(control_type=control_type), to=to, against="state")


def test_an_action_without_its_state_is_refused() -> None:
    with pytest.raises(FeatureMismatch, match=r"expected one rotation of the state for .*'turn_0', 'turn_1', 'turn_2'"):
        ConvertActions(arm("axis_angle"), to="delta", against="state")
    with pytest.raises(FeatureMismatch, match="against: expected one of"):
        ConvertActions(arm(), to="delta", against="next")  # type: ignore[arg-type]


def test_rotations_are_converted_with_names_and_widths() -> None:
    reader = arm("axis_angle")
    both = ConvertRotations(reader, to="6d")
    assert both.features.action.names == (*(f"turn_6d_{place}" for place in range(6)), "x")
    assert both.features.state_dim == 7
    episode, changed = reader.episode(0), both.episode(0)
    assert changed.action.shape == (12, 7)
    assert changed.state[:, 1:] == pytest.approx(convert(episode.state[:, 1:], "quat_wxyz", "6d"))
    back = ConvertRotations(ConvertRotations(reader, to="6d", feature="action"), to="axis_angle", feature="action")
    assert back.features.action.rotations[0].representation == "axis_angle"
    assert back.episode(0).action == pytest.approx(episode.action, abs=1e-5)
    assert np.array_equal(back.episode(0).state, episode.state)
    assert both.fingerprint() != back.fingerprint() != reader.fingerprint()


def test_rotations_that_are_not_there_are_refused() -> None:
    with pytest.raises(FeatureMismatch, match="expected a feature that says which dimensions are a rotation"):
        ConvertRotations(arm(), to="6d")
    with pytest.raises(FeatureMismatch, match=r"feature: expected one of .*did you mean action"):
        ConvertRotations(arm("6d"), to="6d", feature="actions")  # type: ignore[arg-type]


def test_what_files_do_not_say_is_declared(tmp_path: Any) -> None:
    wrapper = {
        "class": "DeclareFeatures",
        "args": {
            "control_space": "ee",
            "control_type": "abs",
            "action": {
                "units": ["", "", "", "", "m"],
                "rotations": [{"names": ["a", "b", "c", "d"], "representation": "quat_xyzw"}],
                "grippers": {"grip": [1, 0]},
            },
        },
    }
    plain = Features(JOINTS, VectorFeature(("a", "b", "c", "d", "grip")))
    reader = arm()
    reader.features = plain
    declared = DeclareFeatures(reader, **wrapper["args"])  # type: ignore[arg-type]
    assert declared.features == Features(
        JOINTS,
        VectorFeature(
            ("a", "b", "c", "d", "grip"),
            units=("", "", "", "", "m"),
            rotations=(Rotation(("a", "b", "c", "d"), "quat_xyzw"),),
            grippers={"grip": (1.0, 0.0)},
        ),
        control_space="ee",
        control_type="abs",
    )


def test_a_lerobot_dataset_is_declared(tmp_path: Any) -> None:
    """Its files cannot say what rotates, grips or is absolute; and its rate may be said wrong."""
    path = Path(__file__).parents[2] / "fixtures/lerobot/lerobot_v3_many_files"
    said = {
        "fps": 15,
        "control_space": "ee",
        "control_type": "abs",
        "state": {"rotations": [{"names": ["s1", "s2", "s3"], "representation": "axis_angle"}]},
        "action": {"grippers": {"a4": [0, 1]}},
    }
    plain = open_dataset(path)
    declared = open_dataset({"path": str(path), "wrappers": [{"class": "DeclareFeatures", "args": said}]})
    assert (declared.features.fps, declared.features.control_type) == (15.0, "abs")
    assert declared.features.action.grippers == {"a4": (0.0, 1.0)}
    assert declared.features.state is not None
    assert declared.features.state.rotations == (Rotation(("s1", "s2", "s3"), "axis_angle"),)
    episode = declared.episode(1)
    np.testing.assert_array_equal(episode.state, plain.episode(1).state)
    np.testing.assert_allclose(episode.timestamps, np.arange(len(episode)) / 15)
    assert declared.fingerprint() != plain.fingerprint()
    made = open_dataset(editing.convert(declared, tmp_path / "made", lossless=True, progress=False))
    assert made.features == declared.features  # what is written says it by itself


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"fps": 0}, "fps: expected steps per second > 0, got 0"),
        ({"control_type": "absolute"}, "control_type: expected one of .*'absolute'"),
        ({"action": {"rotation": []}}, "action: expected one of .*did you mean rotations"),
        ({"action": {"rotations": [{"names": ["shoulder"]}]}}, "action: expected units, .* in the form"),
        ({"state": {"grippers": {"gripper": 1}}}, "state: expected units, .* in the form"),
        ({"state": {"grippers": {"hand": [0, 1]}}}, "grippers: expected some of .*hand"),
        ({"action": {"units": ["rad"]}}, "units: expected 3"),
    ],
)
def test_what_cannot_be_declared_is_refused(said: Any, message: str) -> None:
    with pytest.raises(FeatureMismatch, match=message):
        DeclareFeatures(arm(), **said)


def test_wrappers_by_name_in_a_spec(tmp_path: Any) -> None:
    """What a YAML says: declared, converted, and gathered."""
    source = tmp_path / "dataset" / "swing.py"
    source.parent.mkdir()
    source.write_text(
        "import numpy as np\nfrom menura.data import Episode\n\n\nclass Swing:\n"
        "    def __len__(self):\n        return 1\n\n"
        "    def episode(self, index):\n"
        "        x = np.arange(10, dtype=np.float32)[:, None]\n        return Episode(x, x + 2, fps=10)\n"
    )
    spec = {
        "class": "Swing",
        "wrappers": [
            {"class": "DeclareFeatures", "args": {"control_type": "abs"}},
            {
                "class": "ConvertActions",
                "args": {"to": "delta", "against": "state", "action_reference": {"action_0": "state_0"}},
            },
        ],
    }
    reader = open_dataset(spec, project=tmp_path)
    assert reader.features.control_type == "delta"
    assert (windows(reader, cache_dir=tmp_path, progress=False)[3]["actions"] == 2).all()
