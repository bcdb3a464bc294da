"""The common layout of datasets that differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from menura.config.schema import LayoutConfig
from menura.errors import FeatureMismatch
from menura.features import CameraFeature, Features, Rotation, VectorFeature
from menura.processing.layout import Placement, common_features

QUATERNION = ("qw", "qx", "qy", "qz")


def features(*names: str, **changes: object) -> Features:
    vector = VectorFeature(names)
    return replace(Features(vector, vector, {"top": CameraFeature(4, 4)}, fps=10), **changes)  # type: ignore[arg-type]


def layout(**names: list[str]) -> LayoutConfig:
    return LayoutConfig(**{"state": ["x", "y"], "action": ["x", "y"], **names})


def test_each_dimension_is_as_its_owners_have_it() -> None:
    one = VectorFeature(("x", *QUATERNION), ("m", "", "", "", ""), ("x",), (Rotation(QUATERNION, "quat_wxyz"),))
    two = VectorFeature(("grip", "x"), ("m", "m"), grippers={"grip": (0.0, 0.04)})
    names = [*QUATERNION, "x", "grip"]
    common = common_features(
        layout(state=names, action=names, cameras=["top", "side"]),
        {
            "one": Features(one, one, {"top": CameraFeature(4, 4, "fast")}, 10, control_space="ee", robot="a"),
            "two": Features(two, two, {"side": CameraFeature(4, 4), "top": CameraFeature(8, 8)}, 10, True, robot="b"),
        },
    )
    assert common.action.names == tuple(names)
    assert common.action.rotations == one.rotations
    assert common.action.grippers == {"grip": (0.0, 0.04)}
    assert common.action.object_names == ("x",)
    assert common.cameras == {"top": CameraFeature(4, 4), "side": CameraFeature(4, 4)}
    assert (common.fps, common.language, common.control_space, common.robot) == (10, True, "ee", None)


def test_without_a_word_all_must_agree() -> None:
    same = common_features(LayoutConfig(), {"one": features("x", "y"), "two": features("x", "y")})
    assert same == features("x", "y")
    with pytest.raises(FeatureMismatch, match=r"layout.state: expected it, for the datasets differ: \['x', 'y'\] of"):
        common_features(LayoutConfig(), {"one": features("x", "y"), "two": features("y", "x")})
    without = replace(features("x", "y"), state=None)
    with pytest.raises(FeatureMismatch, match=r"layout\.state"):
        common_features(LayoutConfig(), {"one": features("x", "y"), "two": without})
    with pytest.raises(FeatureMismatch, match=r"layout\.cameras"):
        common_features(layout(), {"one": features("x", "y"), "two": features("x", "y", cameras={})})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (features("x", "y", fps=20.0), r"expected one fps, got 10 of 'one' and 20.0 of 'two'. .* wrapper Resample"),
        (features("x", "y", control_type="delta"), r"expected one control type, got abs of 'one' and delta of 'two'"),
        (features("x", "y", control_space="ee"), "expected one control space"),
        (
            features("x", "y", action=VectorFeature(("x", "y"), units=("m", "m"))),
            r"expected one unit of 'x', got mm of 'one' and m of 'two'",
        ),
        (
            features("x", "y", action=VectorFeature(("x", "y"), grippers={"y": (1.0, 0.0)})),
            r"expected one gripper 'y' \(closed, open\)",
        ),
        (features("x", "y", "z"), r"layout.action: expected every dimension of 'two', got none named 'z'"),
    ],
)
def test_one_name_has_one_meaning(other: Features, message: str) -> None:
    one = features(
        "x",
        "y",
        action=VectorFeature(("x", "y"), units=("mm", "m"), grippers={"y": (0.0, 1.0)}),
        control_type="abs",
        control_space="joint",
    )
    with pytest.raises(FeatureMismatch, match=message):
        common_features(layout(cameras=["top"]), {"one": one, "two": other})


def test_a_part_of_a_rotation_is_no_plain_number() -> None:
    turning = VectorFeature(QUATERNION, rotations=(Rotation(QUATERNION, "quat_wxyz"),))
    one, two = features(*QUATERNION, action=turning), features(*QUATERNION)
    with pytest.raises(FeatureMismatch, match=r"one meaning of 'qw', got a part of the rotation .* and a plain number"):
        common_features(layout(state=list(QUATERNION), action=list(QUATERNION)), {"one": one, "two": two})


@given(own=st.permutations("abcd"), wanted=st.permutations("abcdef"), rows=st.integers(1, 4))
def test_what_is_laid_out_comes_back(own: list[str], wanted: list[str], rows: int) -> None:
    placement = Placement.of(features(*own), features(*wanted), ("top", "side"))
    values = np.random.default_rng(0).normal(size=(rows, 3, len(own)))
    laid_out = placement.vector("action", values)
    assert laid_out.shape == (rows, 3, 6)
    np.testing.assert_array_equal(laid_out[..., placement.own_action], values)
    assert not laid_out[..., ~placement.masks["action_mask"]].any()
    assert placement.masks["state_mask"].tolist() == [name in own for name in wanted]
    assert placement.masks["image_mask"].tolist() == [True, False]
    frames = np.ones((rows, 1, 2, 2, 3), np.uint8)
    images = placement.images(frames, (rows, 2, 2, 2, 3))
    assert images[:, 0].all()
    assert not images[:, 1].any()
    encoded = placement.image_features(np.ones((rows, 5), np.float32), (rows, 10))
    assert encoded[0].tolist() == [1.0] * 5 + [0.0] * 5
