"""What a dataset means, said by its user where its files do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.data.wrappers.base import Wrapper
from menura.errors import FeatureMismatch, did_you_mean
from menura.features import ControlSpace, ControlType, Rotation, VectorFeature

_PARTS = ("units", "object_names", "rotations", "grippers")


class DeclareFeatures(Wrapper):
    """A dataset that is said to mean more than its files say. The numbers stay as they are.

    What is given replaces what the source says. Of `state` and `action` these can be given: `units` (one a dimension),
    `object_names`, `rotations` (a list of `{names: […], representation: …}`, of `menura.features.ROTATIONS`) and
    `grippers` (name -> [value when closed, value when open]).

    Args:
        reader: what is wrapped.
        control_space: `joint` or `ee`.
        control_type: `abs` or `delta`.
        state, action: as above.
        robot: what was driven, in one word.
        fps: the true rate, where the files say another; the timestamps are `frame / fps` then.

    Raises:
        FeatureMismatch: something that cannot be given, or that does not fit the dimensions there are.
    """

    def __init__(
        self,
        reader: Reader,
        control_space: ControlSpace | None = None,
        control_type: ControlType | None = None,
        state: Mapping[str, Any] | None = None,
        action: Mapping[str, Any] | None = None,
        robot: str | None = None,
        fps: float | None = None,
    ) -> None:
        super().__init__(reader)
        if fps is not None and not 0 < fps < float("inf"):
            raise FeatureMismatch(f"DeclareFeatures.fps: expected steps per second > 0, got {fps}.")
        self._fps = fps
        features = reader.features
        _require_known("control_space", control_space, get_args(ControlSpace))
        _require_known("control_type", control_type, get_args(ControlType))
        if state and features.state is None:
            raise FeatureMismatch(f"DeclareFeatures.state: expected none, for {reader.name!r} has no state, got one.")
        self.features = replace(
            features,
            state=features.state and _declared("state", features.state, state or {}),
            action=_declared("action", features.action, action or {}),
            control_space=control_space or features.control_space,
            control_type=control_type or features.control_type,
            robot=robot or features.robot,
            fps=float(fps or features.fps),
        )

    def episode(self, index: int) -> Episode:
        episode = self.reader.episode(index)
        return episode if self._fps is None else replace(episode, fps=self._fps, timestamps=None)


def _declared(what: str, feature: VectorFeature, said: Mapping[str, Any]) -> VectorFeature:
    for part in said:
        _require_known(what, part, _PARTS)
    values: dict[str, Any] = {}
    try:
        if "units" in said:
            values["units"] = tuple(str(unit) for unit in said["units"])
        if "object_names" in said:
            values["object_names"] = tuple(said["object_names"])
        if "rotations" in said:
            values["rotations"] = tuple(
                Rotation(tuple(rotation["names"]), rotation["representation"]) for rotation in said["rotations"]
            )
        if "grippers" in said:
            values["grippers"] = {
                name: (float(closed), float(open_)) for name, (closed, open_) in said["grippers"].items()
            }
    except (TypeError, ValueError, KeyError, AttributeError) as problem:
        raise FeatureMismatch(
            f"DeclareFeatures.{what}: expected {', '.join(_PARTS)} in the form its documentation says, got "
            f"{dict(said)} ({problem})."
        ) from None
    return replace(feature, **values)


def _require_known(what: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        near = did_you_mean(str(value), known) or "."
        raise FeatureMismatch(f"DeclareFeatures.{what}: expected one of {list(known)}, got {value!r}{near}")
