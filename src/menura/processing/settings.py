"""What a processor does, in words and numbers that fit in a JSON file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol

from menura.errors import CheckpointError, FeatureMismatch, did_you_mean
from menura.features import Features
from menura.processing.images import Resize
from menura.processing.normalizer import Kind
from menura.processing.spaces import ActionType, SpacesLike

FORMAT = 1
OBSERVATION_KEYS = ("state", "image", "task")


class ProcessorConfigLike(SpacesLike, Protocol):
    """The `processor:` section of a task."""

    @property
    def state(self) -> Kind: ...
    @property
    def action(self) -> Kind: ...
    @property
    def state_mask(self) -> Sequence[bool] | None: ...
    @property
    def action_mask(self) -> Sequence[bool] | None: ...
    @property
    def resize(self) -> Resize: ...


@dataclass(frozen=True)
class ProcessorSettings:
    """Everything between raw observations and physical actions but the statistics.

    Attributes:
        features: what raw observations and physical actions mean; of datasets that differ, the layout of what is
            trained.
        keys: which of `OBSERVATION_KEYS` the policy reads; the others need not be given.
        state, action: the kind of normalization; `affine` in converted checkpoints alone.
        state_mask, action_mask: True where a dimension (of what is trained) is normalized; all, when None.
        camera_names: the cameras, in the order of the K axis.
        image_size: (height, width) the policy sees; None without cameras.
        resize: `stretch` or `pad`.
        image_normalize: as `ImageNormalization.parse` reads it, or `{camera: such, …}` where each has its own.
        observation_steps: O, how many observations the policy is given.
        blind: the object's state and all pixels are hidden (zero after normalization).
        dataset_names: row k of the statistics belongs to dataset k.
        dataset_features: what raw observations and physical actions of each dataset mean, where they differ; else
            None.
        image_encoder: `{"class": …, "args": …}` of the task, or None.
        action_type, action_rotation, state_rotation, action_reference, absolute_names: what is trained, as
            `menura.processing.spaces.Spaces` says.
    """

    features: Features
    keys: tuple[str, ...]
    state: Kind
    action: Kind
    state_mask: tuple[bool, ...] | None
    action_mask: tuple[bool, ...] | None
    camera_names: tuple[str, ...]
    image_size: tuple[int, int] | None
    resize: Resize
    image_normalize: Any
    observation_steps: int
    blind: bool
    dataset_names: tuple[str, ...]
    image_encoder: Mapping[str, Any] | None = None
    dataset_features: tuple[Features, ...] | None = None
    action_type: ActionType = "recorded"
    action_rotation: str | None = None
    state_rotation: str | None = None
    action_reference: Mapping[str, str] = field(default_factory=dict)
    absolute_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        config: ProcessorConfigLike,
        features: Features,
        dataset_names: Sequence[str],
        policy_config: Any,
        *,
        blind: bool,
        uses: Collection[str],
        image_encoder: Mapping[str, Any] | None,
        dataset_features: Sequence[Features] | None = None,
    ) -> ProcessorSettings:
        """What a policy with `policy_config` needs; `uses` are the batch keys it reads."""
        require_current_observation(config.action_type, policy_config)
        used = {"image" if key == "image_features" else key for key in uses}
        keys = tuple(key for key in OBSERVATION_KEYS if key in used)
        cameras = _camera_names(policy_config, features) if "image" in keys else ()
        return cls(
            features=features,
            keys=keys,
            state=config.state,
            action=config.action,
            state_mask=None if config.state_mask is None else tuple(config.state_mask),
            action_mask=None if config.action_mask is None else tuple(config.action_mask),
            camera_names=cameras,
            image_size=_image_size(getattr(policy_config, "image_size", None), cameras, features),
            resize=config.resize,
            image_normalize=getattr(policy_config, "image_normalize", None) or "zero_one",
            observation_steps=_observation_steps(policy_config),
            blind=blind,
            dataset_names=tuple(dataset_names),
            image_encoder=image_encoder if cameras else None,
            dataset_features=None if dataset_features is None else tuple(dataset_features),
            action_type=config.action_type,
            action_rotation=config.action_rotation,
            state_rotation=config.state_rotation,
            action_reference=dict(config.action_reference),
            absolute_names=tuple(config.absolute_names),
        )

    def of_dataset(self, dataset_id: int) -> ProcessorSettings:
        """What holds for the raw observations of one dataset: its own features and cameras."""
        if self.dataset_features is None:
            return self
        own = self.dataset_features[dataset_id]
        cameras = tuple(camera for camera in self.camera_names if camera in own.cameras)
        keys = tuple(key for key in self.keys if key != "state" or self.features.state_dim)
        return replace(self, features=own, camera_names=cameras, keys=keys)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back equal."""
        own = self.dataset_features
        return {
            "format": FORMAT,
            **asdict(self),
            "features": self.features.to_dict(),
            "dataset_features": None if own is None else [features.to_dict() for features in own],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> ProcessorSettings:
        """Read `to_dict`; CheckpointError names `where` and what is missing, unknown or of another format."""
        if data.get("format") != FORMAT:
            raise CheckpointError(f"{where}: expected format {FORMAT}, got {data.get('format')!r}.")
        names = {own.name for own in fields(cls)}
        for name in sorted(set(data) - names - {"format"}):
            raise CheckpointError(f"{where}: expected known keys, got {name!r}{did_you_mean(name, names) or '.'}")
        for name in sorted(names - set(data)):
            raise CheckpointError(f"{where}: expected the key {name!r}, got nothing.")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        values["image_normalize"] = data["image_normalize"]
        values["features"] = Features.from_dict(data["features"])
        if (own := data["dataset_features"]) is not None:
            values["dataset_features"] = tuple(Features.from_dict(features) for features in own)
        del values["format"]
        return cls(**values)


def _camera_names(policy_config: Any, features: Features) -> tuple[str, ...]:
    """The cameras the policy's config names; every camera of the data when it does not say."""
    named = getattr(policy_config, "camera_names", None)
    if named is None:
        return tuple(features.cameras)
    for name in named:
        if name not in features.cameras:
            raise FeatureMismatch(
                f"camera_names: expected some of {list(features.cameras)}, "
                f"got {name!r}{did_you_mean(name, features.cameras) or '.'}"
            )
    return tuple(named)


def _image_size(value: Any, cameras: tuple[str, ...], features: Features) -> tuple[int, int] | None:
    if not cameras:
        return None
    if isinstance(value, int):
        return (value, value)
    if value is not None:
        if len(value) != 2:
            raise FeatureMismatch(f"image_size: expected (height, width), got {value!r}.")
        return (int(value[0]), int(value[1]))
    sizes = {(features.cameras[name].height, features.cameras[name].width) for name in cameras}
    if len(sizes) > 1:
        raise FeatureMismatch(
            f"image_size: expected one size for {list(cameras)}, got {sorted(sizes)}. "
            "Set image_size in the policy's args."
        )
    return sizes.pop()


def require_current_observation(action_type: ActionType, policy_config: Any) -> None:
    """Differences refer to the state of now; FeatureMismatch when the policy is not shown it."""
    offsets = getattr(policy_config, "observation_offsets", None)
    if action_type != "recorded" and offsets is not None and offsets[-1] != 0:
        raise FeatureMismatch(
            f"action_type {action_type}: expected 0, the observation that actions refer to, as the last of "
            f"observation_offsets, got {list(offsets)}."
        )


def _observation_steps(policy_config: Any) -> int:
    offsets = getattr(policy_config, "observation_offsets", None)
    if offsets is not None:
        return len(offsets)
    return int(getattr(policy_config, "n_obs_steps", None) or 1)
