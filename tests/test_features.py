"""What two sides mean by their numbers, and whether they can mean the same."""

from __future__ import annotations

from menura.features import Features, VectorFeature


def of(state: VectorFeature, action: VectorFeature) -> Features:
    return Features(state=state, action=action)


def test_numbered_names_say_how_many_there_are_and_nothing_else() -> None:
    joints = VectorFeature(("shoulder", "elbow"))
    assert VectorFeature.of_width(2, "state").unnamed
    assert VectorFeature.of_width(1, "observation.state").unnamed
    assert not joints.unnamed
    assert not VectorFeature(("joint_1", "joint_2")).unnamed  # which begin at 1: somebody wrote them
    numbered, named = VectorFeature.of_width(2, "action"), of(joints, joints)
    assert named.differences(of(numbered, numbered)) == []
    assert of(numbered, VectorFeature.of_width(3, "action")).differences(named) == [
        "width of the action: 3 here, 2 there"
    ]
    assert named.differences(of(VectorFeature(("elbow", "shoulder")), joints)) == [
        "state names: ('shoulder', 'elbow') here, ('elbow', 'shoulder') there"
    ]
