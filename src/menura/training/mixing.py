"""What several datasets have in common: the same meaning, or a layout that says what each of them lacks."""

from __future__ import annotations

from collections.abc import Sequence

from menura.config import ResolvedTask
from menura.data import Reader, Windows
from menura.data.layout import LaidOutWindows
from menura.errors import ConfigError, ContractError, FeatureMismatch
from menura.features import Features
from menura.policies.contract import MASKS, Contract
from menura.policies.needs import Needs
from menura.processing.layout import Placement, common_features
from menura.processing.spaces import Spaces


def features_of(task: ResolvedTask, readers: Sequence[Reader]) -> Features:
    """What observations and actions of all the datasets mean: those of the task's layout, else what all agree on."""
    layout = task.config.layout
    if layout is None:
        return _same_features(readers)
    try:
        features = common_features(layout, {reader.name: reader.features for reader in readers})
    except FeatureMismatch as problem:
        raise ConfigError(f"{problem} ({task.locate('layout')})") from problem
    spaces = Spaces.of(task.config.processor, features)
    if spaces.encodes_actions or spaces.trained != features:
        raise ConfigError(
            "processor.action_type, action_rotation, state_rotation: expected none of them beside a layout, whose "
            "datasets may lack what they need. Convert the datasets by wrappers (ConvertActions, ConvertRotations) "
            f"({task.locate('layout')})"
        )
    return features


def lay_out(
    task: ResolvedTask,
    items: Windows,
    features: Features,
    needs: Needs,
    cameras: Sequence[str],
    feature_dim: int | None,
) -> Windows:
    """The windows of one dataset in the task's layout, if it has one."""
    if task.config.layout is None:
        return items
    size = needs.image_size
    if size is None and cameras:
        first = features.cameras[cameras[0]]
        size = (first.height, first.width)
    return LaidOutWindows.of(items, features, cameras, size if cameras else None, feature_dim)


def require_masks(
    task: ResolvedTask, contract: Contract, readers: Sequence[Reader], features: Features, cameras: Sequence[str]
) -> None:
    """A policy that does not ask which dimensions are there is not trained on made-up ones."""
    if task.config.layout is None or contract.var_keyword:
        return
    state = features.state.names if features.state else ()
    for reader in readers:
        masks = Placement.of(reader.features, features, cameras).masks
        for key, names in (("state_mask", state), ("action_mask", features.action.names), ("image_mask", cameras)):
            slot = MASKS[key]
            read = slot in contract.keys or (slot == "image" and contract.uses_images)
            if masks[key].all() or key in contract.keys or not read:
                continue
            lacking = next(name for name, there in zip(names, masks[key], strict=True) if not there)
            raise ContractError(
                f"{contract.policy}.forward: expected a parameter {key!r}, for {reader.name!r} lacks {lacking!r} of the"
                f" layout, got {', '.join(contract.keys)}. Name it (`{key}=None`) and leave out what is not there, or "
                f"remove {lacking!r} from the layout ({task.locate('layout')})."
            )


def _same_features(readers: Sequence[Reader]) -> Features:
    first = readers[0].features
    for reader in readers[1:]:
        if differences := first.differences(reader.features):
            raise FeatureMismatch(
                f"datasets: expected {reader.name!r} to mean what {readers[0].name!r} means, got "
                f"{'; '.join(differences)}. Say `layout:`, train on them one by one, or convert one."
            )
    return first
