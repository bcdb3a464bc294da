"""What several datasets have in common: the same meaning, or a layout that says what each of them lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from menura.config import ResolvedTask
from menura.data import Reader, Windows
from menura.data.layout import LaidOutWindows
from menura.errors import ConfigError, ContractError, FeatureMismatch
from menura.features import Features
from menura.policies.contract import MASKS, Contract
from menura.policies.needs import Needs
from menura.processing.layout import Placement, common_features
from menura.processing.spaces import Spaces, spaces_of_each


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a task's datasets mean.

    Attributes:
        spaces: each dataset's own, in order.
        features: what raw observations and physical actions mean; with a layout, that of what is trained.
        trained: what the policy's state and actions mean.
    """

    spaces: tuple[Spaces, ...]
    features: Features
    trained: Features

    @classmethod
    def of(cls, task: ResolvedTask, readers: Sequence[Reader]) -> Meaning:
        """ConfigError, FeatureMismatch: the datasets do not allow what `layout:` and `processor:` say."""
        config = task.config
        if config.layout is None:
            features = _same_features(readers)
            with error_of(task, "processor.action_type", "processor: "):
                spaces = tuple(Spaces.of(config.processor, reader.features) for reader in readers)
            return cls(spaces, features, spaces[0].trained)
        with error_of(task, "processor.action_type", "processor: "):
            each = spaces_of_each(config.processor, {reader.name: reader.features for reader in readers})
        with error_of(task, "layout"):
            features = common_features(config.layout, {name: own.trained for name, own in each.items()})
        return cls(tuple(each.values()), features, features)


@contextmanager
def error_of(task: ResolvedTask, key: str, prefix: str = "") -> Iterator[None]:
    """What features do not allow is an error of the task, there."""
    try:
        yield
    except FeatureMismatch as problem:
        while (where := task.locate(key)) == "default" and "." in key:  # then another key of the section is meant
            key = key.rpartition(".")[0]
        raise ConfigError(f"{prefix}{problem} ({where})") from problem


def require_mask_widths(task: ResolvedTask, trained: Features) -> None:
    """ConfigError: `processor.state_mask` or `action_mask` has not one value a dimension of what is trained."""
    for feature, width in (("state", trained.state_dim), ("action", trained.action_dim)):
        key = f"processor.{feature}_mask"
        mask = getattr(task.config.processor, f"{feature}_mask")
        if mask is not None and len(mask) != width:
            raise ConfigError(
                f"{key}: expected {width} values, one a dimension of what is trained, got {len(mask)} "
                f"({task.locate(key)})"
            )


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
    task: ResolvedTask, contract: Contract, readers: Sequence[Reader], meaning: Meaning, cameras: Sequence[str]
) -> None:
    """A policy that does not ask which dimensions are there is not trained on made-up ones."""
    if task.config.layout is None or contract.var_keyword:
        return
    features = meaning.features
    state = features.state.names if features.state else ()
    for reader, spaces in zip(readers, meaning.spaces, strict=True):
        masks = Placement.of(spaces.trained, features, cameras).masks
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
