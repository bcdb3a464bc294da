"""What `meta/info.json` of a LeRobotDataset says of its features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from menura.features import Features


def enriched(features: Features, own: Features) -> Features:
    """`features` with the units, objects, control and render modes of `own`, where the two speak of the same."""
    state = own.state if features.state and own.state and own.state.names == features.state.names else features.state
    same_action = own.action.names == features.action.names
    return replace(
        features,
        state=state,
        action=own.action if same_action else features.action,
        control_space=own.control_space if same_action else None,
        control_type=own.control_type if same_action else None,
        cameras={
            name: replace(camera, render=own.cameras[name].render if name in own.cameras else None)
            for name, camera in features.cameras.items()
        },
    )


def width_of(spec: Mapping[str, Any]) -> int:
    """The numbers a feature has in one frame."""
    return math.prod(int(size) for size in spec["shape"])


def flat_names(names: Any) -> list[str]:
    """Names as datasets have them: a list, lists in a mapping (`{"motors": […]}`), or a mapping name -> index."""
    if isinstance(names, Mapping):
        nested = [value for value in names.values() if isinstance(value, list)]
        return [str(name) for value in nested for name in value] if nested else [str(name) for name in names]
    return [str(name) for name in names] if isinstance(names, list) else []
