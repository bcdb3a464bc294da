"""Each fault, planted in clean data, is found where it is, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from menura.data.checking import Finding, Place, Report, check_dataset
from menura.data.wrappers.trim import Trim
from menura.features import Features, Rotation, VectorFeature

Check = Callable[..., Report]
Only = Callable[[Report, str], Finding]
Clean = Callable[[], list[Any]]
episodes = st.integers(0, 7)
frames = st.integers(3, 70)
joints = st.integers(0, 3)
few = settings(max_examples=15)
fewest = settings(max_examples=6)  # every picture of every episode is looked at


def test_clean_data_has_no_finding(clean: Clean, check: Check) -> None:
    report = check(clean(), pictures="all")
    assert report.findings == ()
    assert (report.episodes, report.frames) == (8, sum(map(len, clean())))


@pytest.mark.parametrize("feature", ["state", "action"])
@given(episode=episodes, frame=frames, joint=joints, value=st.sampled_from([np.nan, np.inf, -np.inf]))
@few
def test_numbers_that_are_none(
    clean: Clean, check: Check, only: Only, feature: str, episode: int, frame: int, joint: int, value: float
) -> None:
    takes = clean()
    getattr(takes[episode], feature)[frame : frame + 3, joint] = value
    found = only(check(takes), "nan")
    assert found.severity == "error"
    assert found.places == (Place(episode, (frame, frame + 3)),)
    assert (found.feature, found.dimensions) == (feature, (found.dimensions[0],))
    assert str(episode) in found.remedy


def test_a_dimension_that_never_changes(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    for take in takes:
        take.state[:, 2] = 0.3
    found = only(check(takes), "constant")
    assert (found.severity, found.feature, found.dimensions, found.places) == ("note", "state", ("elbow",), ())


def test_a_state_that_never_changes(clean: Clean, check: Check) -> None:
    takes = clean()
    for take in takes:
        take.state[:] = 0.3
    found = next(finding for finding in check(takes).findings if finding.kind == "constant")
    assert found.severity == "warning"


@given(episode=episodes, joint=joints)
@few
def test_a_dimension_stuck_in_one_episode(clean: Clean, check: Check, episode: int, joint: int) -> None:
    takes = clean()
    takes[episode].state[:, joint] = takes[episode].state[0, joint]
    found = {finding.kind: finding for finding in check(takes).findings}
    assert found.keys() <= {"stuck", "frozen"}
    assert found["stuck"].places == (Place(episode),)


@given(episode=episodes, frame=st.integers(3, 40), length=st.integers(22, 35))
@few
def test_a_sensor_that_hangs(clean: Clean, check: Check, only: Only, episode: int, frame: int, length: int) -> None:
    """The whole state repeats while the action goes on; afterwards it is where it should be."""
    takes = clean()
    takes[episode].state[frame : frame + length] = takes[episode].state[frame]
    report = check(takes)
    found = next(finding for finding in report.findings if finding.kind == "frozen")
    assert report.kinds <= {"frozen", "jump"}  # when the sensor wakes up, the state jumps
    assert found.places == (Place(episode, (frame, frame + length)),)


@given(episode=episodes, frame=st.integers(3, 40), joint=joints)
@few
def test_one_joint_that_hangs(clean: Clean, check: Check, episode: int, frame: int, joint: int) -> None:
    takes = clean()
    take = takes[episode]
    while np.ptp(take.action[frame : frame + 30, joint]) < 0.5:  # its target must go on
        joint = (joint + 1) % 4
        frame += joint == 0
    take.state[frame : frame + 30, joint] = take.state[frame, joint]
    report = check(takes)
    found = next(finding for finding in report.findings if finding.kind == "frozen")
    assert report.kinds <= {"frozen", "jump"}
    assert found.places == (Place(episode, (frame, frame + 30)),)
    assert len(found.dimensions) == 1


@given(episode=episodes, frame=frames, joint=joints, size=st.floats(1.0, 1e4), sign=st.sampled_from([-1, 1]))
@few
def test_a_spike(
    clean: Clean, check: Check, only: Only, episode: int, frame: int, joint: int, size: float, sign: int
) -> None:
    takes = clean()
    takes[episode].state[frame, joint] += sign * size * 2
    found = only(check(takes), "jump")
    assert found.places == (Place(episode, (frame, frame + 1)),)
    assert (found.severity, found.feature) == ("warning", "state")


@given(episode=episodes, frame=frames, length=st.integers(1, 20))
@few
def test_a_jump_that_stays(clean: Clean, check: Check, only: Only, episode: int, frame: int, length: int) -> None:
    """A robot that was moved by hand, or frames that are missing."""
    takes = clean()
    takes[episode].action[frame:, 1] += 2.5
    takes[episode].state[frame:, 1] += 2.5
    report = check(takes)
    assert report.kinds == {"jump"}
    assert {finding.feature for finding in report.findings} == {"state", "action"}
    assert {finding.places for finding in report.findings} == {(Place(episode, (frame, frame + 1)),)}


@given(episode=episodes, limit=st.floats(0.2, 0.4))
@few
def test_saturated_actions(clean: Clean, check: Check, only: Only, episode: int, limit: float) -> None:
    takes = clean()
    for take in takes:
        take.action[:, 1] = np.clip(take.action[:, 1], -limit, limit)
    report = check(takes)
    assert report.kinds == {"saturated"}
    assert {finding.dimensions for finding in report.findings} == {("shoulder",)}
    for finding in report.findings:
        for place in finding.places:
            start, stop = place.frames or (0, 0)
            assert np.abs(np.abs(takes[place.episode].action[start:stop, 1]) - limit).max() < 1e-6


@given(original=episodes, noise=st.sampled_from([0.0, 2e-4]))
@few
def test_duplicates(clean: Clean, check: Check, only: Only, original: int, noise: float) -> None:
    takes = clean()
    rng = np.random.default_rng(0)
    change = rng.normal(0, noise, takes[original].state.shape) * [1, 1, 1, 1, 0.04]
    copy = replace(takes[original], state=takes[original].state + change.astype(np.float32))
    found = only(check([*takes, copy]), "duplicate")
    assert found.places == (Place(8),)
    assert f"{original} = 8" in found.message
    assert found.confidence == (1.0 if noise == 0 else 0.8)


@given(episode=episodes, length=st.integers(45, 80), tail=st.booleans())
@few
def test_idle_heads_and_tails(clean: Clean, check: Check, only: Only, episode: int, length: int, tail: bool) -> None:
    takes = clean()
    take = takes[episode]
    at = -1 if tail else 0
    rest = {name: np.repeat(getattr(take, name)[[at]], length, axis=0) + np.float32(0) for name in ("state", "action")}
    rest["state"] += np.random.default_rng(0).normal(0, 2e-4, rest["state"].shape).astype(np.float32) * [1, 1, 1, 1, 0]
    joined = {
        name: np.concatenate([getattr(take, name), rest[name]] if tail else [rest[name], getattr(take, name)])
        for name in rest
    }
    pictures = np.concatenate([take.images["top"][[at]].repeat(length, axis=0), take.images["top"]])
    takes[episode] = replace(take, **joined, images={"top": pictures})
    found = only(check(takes), "idle")
    (place,) = found.places
    assert place.episode == episode
    start, stop = place.frames or (0, 0)
    expected = (len(take) - 1, len(take) + length) if tail else (0, length)
    assert abs(start - expected[0]) <= 8  # where it begins to move is a matter of degree
    assert abs(stop - expected[1]) <= 8
    assert "trim" in found.remedy


def test_what_is_idle_is_what_trim_cuts(clean: Clean, check: Check, takes_reader: Any, tmp_path: Path) -> None:
    takes = clean()
    for take in takes[:4]:
        for name in ("state", "action"):
            table = getattr(take, name)
            setattr(take, name, np.concatenate([table[[0]].repeat(60, axis=0), table]))
        take.images = {"top": np.concatenate([take.images["top"][[0]].repeat(60, axis=0), take.images["top"]])}
    assert check(takes).kinds == {"idle"}
    assert check_dataset(Trim(takes_reader(takes), idle=True), pictures="none", cache_dir=tmp_path).findings == ()


def test_short_episodes(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    for episode in (2, 5):
        cut = slice(0, 8)
        take = takes[episode]
        takes[episode] = replace(
            take, state=take.state[cut], action=take.action[cut], images={"top": take.images["top"][cut]}
        )
    assert only(check(takes), "short").episodes == [2, 5]


# Times


def times(takes: list[Any], fps: float = 20.0) -> None:
    for take in takes:
        take.timestamps = np.arange(len(take)) / fps


def test_a_wrong_rate(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    times(takes, fps=15.0)
    found = only(check(takes), "wrong_fps")
    assert "15 frames per second" in found.message
    assert found.places == ()


def test_a_wrong_rate_in_some_episodes(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    times(takes)
    times(takes[3:5], fps=30.0)
    assert only(check(takes), "wrong_fps").episodes == [3, 4]


@given(episode=episodes, frame=frames)
@few
def test_a_gap(clean: Clean, check: Check, only: Only, episode: int, frame: int) -> None:
    takes = clean()
    times(takes)
    takes[episode].timestamps[frame:] += 0.3
    assert only(check(takes), "time_gap").places == (Place(episode, (frame, frame + 1)),)


@given(episode=episodes, frame=frames)
@few
def test_time_that_runs_backwards(clean: Clean, check: Check, only: Only, episode: int, frame: int) -> None:
    takes = clean()
    times(takes)
    takes[episode].timestamps[frame] -= 0.2
    found = only(check(takes), "time_backwards")
    assert (found.severity, found.episodes) == ("error", [episode])


def test_jitter(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    times(takes)
    takes[6].timestamps += np.random.default_rng(0).uniform(-0.4, 0.4, len(takes[6])) / 20
    assert only(check(takes), "time_jitter").episodes == [6]


# Language


def test_some_episodes_without_words(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    takes[1].task = takes[4].task = " "
    assert only(check(takes), "no_language").episodes == [1, 4]


def test_no_words_at_all(clean: Clean, check: Check, only: Only, features: Features) -> None:
    takes = clean()
    for take in takes:
        take.task = ""
    assert only(check(takes), "no_language").places == ()
    assert check(takes, replace(features, language=False)).findings == ()


# Control


def test_action_that_is_the_state(clean: Clean, check: Check) -> None:
    takes = clean()
    for take in takes:
        take.action = take.state.copy()
    found = next(finding for finding in check(takes).findings if finding.kind == "action_is_state")
    assert (found.severity, found.places) == ("warning", ())


def test_action_that_is_the_next_state(clean: Clean, check: Check) -> None:
    takes = clean()
    for take in takes:
        take.action[:-1] = take.state[1:]
    assert [(f.kind, f.severity) for f in check(takes).findings] == [("action_is_next_state", "note")]


def test_action_that_is_the_next_state_in_one_episode(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    takes[3].action[:-1] = takes[3].state[1:]
    takes[3].action[:, 4] = takes[2].action[0, 4]
    takes[3].action[:-1, 4] = takes[3].state[1:, 4]
    found = next(finding for finding in check(takes).findings if finding.kind == "action_is_next_state")
    assert (found.severity, found.episodes) == ("warning", [3])


def test_absolute_actions_declared_as_delta(clean: Clean, check: Check, only: Only, features: Features) -> None:
    found = only(check(clean(), replace(features, control_type="delta")), "control_type")
    assert "looks abs" in found.message


def test_delta_actions_declared_as_absolute(clean: Clean, check: Check, only: Only, features: Features) -> None:
    takes = clean()
    for take in takes:
        take.action[:-1, :4] = np.diff(take.state[:, :4], axis=0) * 20
        take.action[-1, :4] = 0
    assert "looks delta" in only(check(takes), "control_type").message
    assert check(takes, replace(features, control_type="delta")).findings == ()


def test_what_is_not_declared_is_guessed(clean: Clean, check: Check, features: Features) -> None:
    report = check(clean(), replace(features, control_type=None))
    assert report.findings == ()
    assert report.facts == {"control_type": "abs"}


# Angles and orientations


@pytest.mark.parametrize("unit", ["rad", "deg", None])
@given(episode=episodes, offset=st.floats(2.6, 3.3))
@few
def test_angles_that_wrap(
    clean: Clean, check: Check, features: Features, unit: str | None, episode: int, offset: float
) -> None:
    takes = clean()
    expected = []
    for number, take in enumerate(takes):
        for table in (take.state, take.action):
            table[:, 3] = (table[:, 3] + offset + np.pi) % (2 * np.pi) - np.pi
        steps = np.abs(np.diff(take.state[:, 3]))
        expected += [Place(number, (int(at) + 1, int(at) + 2)) for at in np.flatnonzero(steps > 5)]
        if unit == "deg":
            take.state[:, 3], take.action[:, 3] = np.degrees(take.state[:, 3]), np.degrees(take.action[:, 3])
    units = None if unit is None else ("rad", "rad", "rad", unit, "m")
    vector = VectorFeature(features.action.names, units, grippers=features.action.grippers)
    report = check(takes, replace(features, state=vector, action=vector, control_type=None))
    assert report.kinds == {"wrap"}
    found = next(finding for finding in report.findings if finding.feature == "state")
    assert found.dimensions == ("wrist",)
    assert found.places == tuple(expected)


def rotated(features: Features, representation: str, width: int) -> Features:
    names = tuple(f"r{number}" for number in range(width))
    state = VectorFeature((*features.action.names, *names), rotations=(Rotation(names, representation),))
    return replace(features, state=state)


def turning(length: int) -> np.ndarray:
    """(length, 4) unit quaternions wxyz of a steady turn about a tilted axis."""
    angle = np.linspace(0.2, 2.0, length)
    axis = np.array([0.6, 0.0, 0.8])
    return np.column_stack([np.cos(angle / 2), np.sin(angle / 2)[:, None] * axis])


@given(episode=episodes, frame=frames)
@few
def test_quaternions(clean: Clean, check: Check, only: Only, features: Features, episode: int, frame: int) -> None:
    said = rotated(features, "quat_wxyz", 4)
    takes = clean()
    for take in takes:
        take.state = np.column_stack([take.state, turning(len(take))]).astype(np.float32)
    assert check(takes, said).findings == ()
    takes[episode].state[frame:, 5:] *= -1
    assert only(check(takes, said), "rotation_flip").places == (Place(episode, (frame, frame + 1)),)
    takes[episode].state[frame:, 5:] *= -1.2
    found = only(check(takes, said), "rotation_norm")
    assert found.places == (Place(episode, (frame, len(takes[episode]))),)
    assert found.dimensions == ("r0", "r1", "r2", "r3")


def test_rotation_vectors_that_flip(clean: Clean, check: Check, only: Only, features: Features) -> None:
    takes = clean()
    for number, take in enumerate(takes):
        angle = np.linspace(2.6, 3.6, len(take))
        angle = np.where(angle > np.pi, angle - 2 * np.pi, angle) if number == 2 else np.minimum(angle, np.pi)
        take.state = np.column_stack([take.state, angle[:, None] * [0.0, 0.0, 1.0]]).astype(np.float32)
    report = check(takes, rotated(features, "axis_angle", 3))
    found = next(finding for finding in report.findings if finding.kind == "rotation_flip")
    assert found.episodes == [2]
    assert report.kinds <= {"rotation_flip", "constant"}


# Grippers


def with_grippers(features: Features, state: tuple[float, float], action: tuple[float, float]) -> Features:
    assert features.state is not None
    return replace(
        features,
        state=replace(features.state, grippers={"gripper": state}),
        action=replace(features.action, grippers={"gripper": action}),
    )


def test_an_inverted_gripper(clean: Clean, check: Check, only: Only, features: Features) -> None:
    found = only(check(clean(), with_grippers(features, (0.0, 0.08), (0.08, 0.0))), "gripper_inverted")
    assert found.dimensions == ("gripper",)


def test_a_gripper_declared_in_other_units(clean: Clean, check: Check, only: Only, features: Features) -> None:
    takes = clean()
    for take in takes:
        take.state[:, 4] *= 1000
    assert only(check(takes, with_grippers(features, (0.0, 0.08), (0.0, 0.08))), "gripper_range").feature == "state"


def test_a_gripper_that_is_told_to_move_and_does_not(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    for take in takes:
        take.state[:, 4] = 0.05
    found = only(check(takes), "gripper_still")
    assert (found.severity, found.feature) == ("warning", "state")


def test_a_gripper_that_is_not_needed(clean: Clean, check: Check) -> None:
    takes = clean()
    for take in takes:
        take.state[:, 4] = take.action[:, 4] = 0.05
    assert {(f.kind, f.severity) for f in check(takes).findings} == {("gripper_still", "note")}


# Shapes


def test_an_episode_of_another_width(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    takes[3].state = takes[3].state[:, :4]
    found = only(check(takes), "widths")
    assert (found.severity, found.episodes) == ("error", [3])


def test_an_episode_without_its_camera(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    takes[3].images = {}
    assert only(check(takes, pictures="all"), "widths").episodes == [3]


def test_another_length_than_counted(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    counted = [len(take) for take in takes]
    counted[2] += 1
    assert only(check(takes, counted=counted), "frames_rows").episodes == [2]


def test_a_picture_too_few(clean: Clean, check: Check, only: Only) -> None:
    takes = clean()
    takes[5].images["top"] = takes[5].images["top"][:-1]
    assert only(check(takes), "damaged").episodes == [5]


# Cameras


@given(episode=episodes, frame=st.integers(2, 30), length=st.integers(25, 40))
@fewest
def test_a_camera_that_hangs(clean: Clean, check: Check, only: Only, episode: int, frame: int, length: int) -> None:
    takes = clean()
    takes[episode].images["top"][frame : frame + length] = takes[episode].images["top"][frame]
    found = only(check(takes, pictures="all"), "frozen_camera")
    assert found.places == (Place(episode, (frame, frame + length)),)
    assert found.camera == "top"
    sampled = only(check(takes, pictures="sampled"), "frozen_camera")
    start, stop = sampled.places[0].frames or (0, 0)
    assert abs(start - frame) <= 5
    assert abs(stop - frame - length) <= 5


@given(episode=episodes, frame=st.integers(0, 40), length=st.integers(1, 40), colour=st.sampled_from([0, 255, 90]))
@fewest
def test_a_camera_that_sees_nothing(
    clean: Clean, check: Check, only: Only, episode: int, frame: int, length: int, colour: int
) -> None:
    takes = clean()
    takes[episode].images["top"][frame : frame + length] = colour
    found = only(check(takes, pictures="all"), "black_camera")
    assert found.places == (Place(episode, (frame, frame + length)),)


def test_a_camera_that_stays_while_the_robot_rests(clean: Clean, check: Check) -> None:
    """A picture may well stay where nothing moves."""
    takes = clean()
    takes[0].state[10:50] = takes[0].state[10]
    takes[0].action[10:50] = takes[0].action[10]
    takes[0].images["top"][10:50] = takes[0].images["top"][10]
    assert "frozen_camera" not in check(takes, pictures="all").kinds
