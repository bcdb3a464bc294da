"""What LeRobot does around a policy -> a `Processor` of Menura, its features and statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from menura.conversion.foreign import processor_of
from menura.conversion.lerobot.config import ACTION, STATE, Feature, LeRobotConfig
from menura.conversion.lerobot.directory import LeRobotDirectory, Step
from menura.conversion.lerobot.normalization import Back, There, affine, back, checked, there
from menura.conversion.lerobot.statistics import READS, Table, of_step, of_weights
from menura.conversion.weights import Weights
from menura.errors import CheckpointError, StatisticsError, did_you_mean
from menura.features import CameraFeature, Features, VectorFeature
from menura.processing.images import NAMED
from menura.processing.normalizer import Affine
from menura.processing.processor import Processor

EPS = 1e-8  # LeRobot's, where the file says none
# Steps that only move tensors: batches and devices are Menura's own affair.
_MOVING = ("to_batch_processor", "device_processor")
_RELATIVE = ("relative_actions_processor", "absolute_actions_processor")


@dataclass(frozen=True)
class Normalization:
    """How LeRobot normalizes: what of, by which mode, with which numbers.

    Attributes:
        modes: FeatureType (STATE, ENV, VISUAL, ACTION) -> mode; one that is missing is IDENTITY.
        eps: LeRobot's epsilon.
        table: the statistics.
        only: the keys that are normalized; all, when None.
    """

    modes: Mapping[str, str]
    eps: float
    table: Table
    only: tuple[str, ...] | None = None

    def mode(self, key: str, feature: Feature) -> str:
        """Of one feature; CheckpointError for a mode LeRobot 0.6.1 does not have."""
        if self.only is not None and key not in self.only:
            return "IDENTITY"
        mode = self.modes.get(feature.kind, "IDENTITY")
        if mode not in READS:
            raise CheckpointError(
                f"{self.table.where}: expected a normalization of {', '.join(READS)}, got {mode!r} for {feature.kind}."
            )
        return mode

    def there(self, dataset: str, key: str, feature: Feature) -> There:
        """From physical to normalized values of one feature; of images, one number a colour."""
        width = feature.shape[0] if feature.kind == "VISUAL" else feature.size
        return there(*self._numbers(dataset, key, feature, width))

    def back(self, dataset: str, key: str, feature: Feature) -> Back:
        """From normalized to physical values of one feature."""
        return back(*self._numbers(dataset, key, feature, feature.size))

    def _numbers(
        self, dataset: str, key: str, feature: Feature, width: int
    ) -> tuple[str, Mapping[str, Any], float, int]:
        mode = self.mode(key, feature)
        statistics = self.table.of(dataset, key, mode)
        what = f"{self.table.where}: statistics of {key!r}"
        return mode, checked(statistics, mode, width, what), self.eps, width


@dataclass(frozen=True)
class Around:
    """What stands around a LeRobot policy.

    Attributes:
        inputs, outputs: how observations (and, in training, actions) are normalized, and actions brought back.
        raw_names: key as the policy has it -> key as observations come in, where LeRobot renames.
        datasets: the names in the order of the statistics' rows; one, where the policy was trained on one dataset.
    """

    config: LeRobotConfig
    inputs: Normalization
    outputs: Normalization
    raw_names: Mapping[str, str]
    datasets: tuple[str, ...]

    @classmethod
    def read(
        cls, directory: LeRobotDirectory, weights: Weights, policy_steps: Sequence[str], *, statistics: bool = True
    ) -> Around:
        """From the processors' steps, or from the weights (of which the statistics are then taken).

        Args:
            policy_steps: names of steps that the converted policy does itself (tokenizing, say).
            statistics: False: nothing is normalized, whatever the files say, as for a base model, which has none.
        """
        config = directory.config
        if directory.preprocessor is None or directory.postprocessor is None:
            table = of_weights(weights, (*config.inputs, *config.outputs))
            normalization = Normalization(_modes_of(config) if statistics else {}, EPS, table)
            return cls(config, normalization, normalization, {}, tuple(table.datasets))
        _check_steps((*directory.preprocessor, *directory.postprocessor), policy_steps, directory)
        inputs = _normalization(directory.preprocessor, "normalizer_processor", directory)
        outputs = _normalization(directory.postprocessor, "unnormalizer_processor", directory)
        names: dict[str, str] = {}
        for step in directory.preprocessor:
            if step.name == "rename_observations_processor":
                names |= {new: old for old, new in step.config.get("rename_map", {}).items()}
        if not statistics:
            inputs = outputs = replace(inputs, modes={})
        return cls(config, inputs, outputs, names, _datasets(inputs, outputs, config))

    @property
    def camera_names(self) -> tuple[str, ...]:
        """In the order in which the policy is given them."""
        names = tuple(_camera_name(self.raw_names.get(key, key)) for key in self.config.image_keys)
        if len(set(names)) < len(names):
            raise CheckpointError(f"{self.config.where}: expected cameras of different names, got {list(names)}.")
        return names

    def features(self, *, language: bool) -> Features:
        """What observations and actions mean, as far as LeRobot's files say: widths and sizes, few names."""
        config = self.config
        parts = [("state", config.state_dim, False), ("environment_state", config.env_state_dim, True)]
        vectors = [_vector(name, width, of_object) for name, width, of_object in parts if width]
        names = config.raw.get("action_feature_names") or ()
        action = VectorFeature.of_width(config.action_dim, "action")
        if len(set(names)) == config.action_dim:
            action = VectorFeature(tuple(str(name) for name in names))
        sizes = config.image_sizes.values()
        return Features(
            state=VectorFeature.joined(vectors) if vectors else None,
            action=action,
            cameras={name: CameraFeature(*size) for name, size in zip(self.camera_names, sizes, strict=True)},
            language=language,
        )

    def image_normalize(self) -> Any:
        """As a policy's config has it: one for all cameras, by name where it has one, or one for each camera."""
        config, each = self.config, {}
        for key, camera in zip(config.image_keys, self.camera_names, strict=True):
            of_datasets = [self.inputs.there(dataset, key, config.inputs[key]) for dataset in self.datasets]
            each[camera] = _colours(of_datasets[0])
            if any(_colours(other) != each[camera] for other in of_datasets):
                raise StatisticsError(
                    f"{self.inputs.table.where}: expected one normalization of {key!r}, got another one for each of "
                    f"{list(self.datasets)}, which Menura's images do not have."
                )
        if len({str(value) for value in each.values()}) > 1:
            return each
        return next(iter(each.values()), "zero_one")

    def processor(self, policy_config: PretrainedConfig, features: Features, uses: Iterable[str]) -> Processor:
        """The processor of the converted policy."""
        normalizers = {"action": [self._action(dataset) for dataset in self.datasets]}
        if features.state is not None:
            normalizers["state"] = [self._state(dataset) for dataset in self.datasets]
        return processor_of(policy_config, features, tuple(uses), normalizers, self.datasets)

    def _state(self, dataset: str) -> Affine:
        """The robot's state and then the environment's, one vector."""
        keys = [key for key in (STATE, self.config.env_key) if key in self.config.inputs]
        parts = [self.inputs.there(dataset, key, self.config.inputs[key]) for key in keys if key is not None]
        return affine(parts, [Back(1 / part.scale, part.centre - part.base / part.scale) for part in parts])

    def _action(self, dataset: str) -> Affine:
        feature = self.config.outputs[ACTION]
        return affine([self.inputs.there(dataset, ACTION, feature)], [self.outputs.back(dataset, ACTION, feature)])


def _modes_of(config: LeRobotConfig) -> dict[str, str]:
    """`normalization_mapping`, or the modes of LeRobot before 2025, which named each feature's."""
    mapping = config.raw.get("normalization_mapping")
    if mapping is not None:
        return {str(kind): str(mode) for kind, mode in mapping.items()}
    modes: dict[str, str] = {}
    for side, features in (("input", config.inputs), ("output", config.outputs)):
        for key, mode in config.raw.get(f"{side}_normalization_modes", {}).items():
            if key in features:
                modes[features[key].kind] = str(mode).upper()
    if not modes:
        raise CheckpointError(f"{config.where}: expected normalization_mapping, got nothing.")
    return modes


def _check_steps(steps: Iterable[Step], policy_steps: Sequence[str], directory: LeRobotDirectory) -> None:
    known = ("rename_observations_processor", "normalizer_processor", "unnormalizer_processor", *_MOVING, *policy_steps)
    for step in steps:
        if step.name in _RELATIVE and not step.config.get("enabled"):
            continue
        if step.name in _RELATIVE:
            raise CheckpointError(
                f"{directory.path}: expected absolute actions, got {step.name} enabled, whose statistics are of "
                "relative actions. Train it with Menura's `processor: {action_type: relative}` instead."
            )
        if step.name not in known:
            raise CheckpointError(
                f"{directory.path}: expected processor steps of {', '.join(known)}, got {step.name!r}"
                f"{did_you_mean(step.name, known)}, which would be left out."
            )


def _normalization(steps: Sequence[Step], name: str, directory: LeRobotDirectory) -> Normalization:
    found = [step for step in steps if step.name == name]
    if len(found) != 1:
        raise CheckpointError(f"{directory.path}: expected one step {name}, got {len(found)}.")
    settings = found[0].config
    only = settings.get("normalize_observation_keys")
    return Normalization(
        modes={str(kind): str(mode) for kind, mode in settings.get("norm_map", {}).items()},
        eps=float(settings.get("eps", EPS)),
        table=of_step(found[0].state, f"{directory.path} ({name})"),
        only=None if only is None else (*only, ACTION),
    )


def _datasets(inputs: Normalization, outputs: Normalization, config: LeRobotConfig) -> tuple[str, ...]:
    """The datasets that have every statistic that is needed; the first one's name where none has, for the message."""
    needed = {key for key, feature in config.inputs.items() if inputs.mode(key, feature) != "IDENTITY"}
    needs_action = outputs.mode(ACTION, config.outputs[ACTION]) != "IDENTITY"
    complete = [
        name
        for name, own in outputs.table.datasets.items()
        if (ACTION in own or not needs_action) and needed <= set(inputs.table.datasets.get(name, {}))
    ]
    return tuple(complete) or tuple(outputs.table.datasets)[:1]


def _vector(prefix: str, width: int, of_object: bool) -> VectorFeature:
    vector = VectorFeature.of_width(width, prefix)
    return replace(vector, object_names=vector.names) if of_object else vector


def _camera_name(key: str) -> str:
    """`observation.images.top` is `top`, `observation.image` is `image`."""
    return key.removeprefix("observation.images.").removeprefix("observation.")


def _colours(part: There) -> Any:
    """`(pixel - mean) / std` for pixels in [0, 1], by a name where Menura has one for it."""
    mean, std = part.mean, part.std
    for name, known in NAMED.items():
        # Statistics are float32, and LeRobot's epsilon of 1e-8 is in them.
        if np.allclose(mean, known.mean, rtol=0, atol=1e-7) and np.allclose(std, known.std, rtol=0, atol=1e-7):
            return name
    return {"mean": mean.tolist(), "std": std.tolist()}
