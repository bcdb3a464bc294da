"""The processor: from raw observations to model inputs, and from model outputs to physical actions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from menura.errors import CheckpointError, ContractError, FeatureMismatch, StatisticsError
from menura.features import Features
from menura.files import read_json, write_json
from menura.processing.images import image_table, to_channels_first
from menura.processing.layout import Placement
from menura.processing.normalizer import Affine, Kind, Normalizer, Rows, StatisticsLike, fields_of
from menura.processing.observation import batch_rows, prepare_observation, read_state
from menura.processing.settings import OBSERVATION_KEYS, ProcessorConfigLike, ProcessorSettings
from menura.processing.spaces import Spaces, spaces_of_each

CONFIG_FILE = "processor_config.json"
NORMALIZER_FILE = "normalizer.safetensors"
ENCODER_FILE = "image_encoder.safetensors"
_NO_STATE = np.empty((0, 0), np.float32)
# (B, O, K * F); pixels have five or more.
_FEATURE_AXES = 3


class Processor:
    """One object for training, evaluation and serving, saved with the weights.

    `prepare` runs where the observation is (CPU: checks, resizes), `inputs` where the model is (uint8 to float,
    normalization, image encoder), `actions` turns the model's answer into physical units.

    A blind processor hides what tells of the object: those dimensions of the state, and every pixel or image feature,
    are 0 after normalization.

    Of datasets that differ (`settings.dataset_features`), each is encoded in its own spaces, then laid out by the names
    of what is trained: what it lacks is 0 after normalization, and `state_mask` (B, D), `action_mask` (B, A) and
    `image_mask` (B, K), bool, say what is there.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        state: Normalizer | None,
        action: Normalizer,
        image_encoder: torch.nn.Module | None = None,
    ) -> None:
        self.settings = settings
        self.state_normalizer = state
        self.action_normalizer = action
        self.image_encoder = image_encoder
        self.device = torch.device("cpu")
        self._spaces = _spaces_of(settings)
        _check_widths(self.trained, state, action)
        if (settings.image_encoder is None) != (image_encoder is None):
            raise ContractError(
                f"image_encoder: expected {settings.image_encoder}, got {image_encoder}. "
                "Give the module with its specification, or neither."
            )
        # An encoder is promised pixels in [0, 1]; what it needs beyond that is its own affair.
        normalization = "zero_one" if image_encoder is not None else settings.image_normalize
        self._pixels = image_table(normalization, settings.camera_names)
        hidden = self.trained.state.object_indices if settings.blind and self.trained.state else ()
        self._hidden = torch.tensor(hidden, dtype=torch.int64)
        self.placements = tuple(
            Placement.of(spaces.trained, settings.features, settings.camera_names)
            for spaces in (self._spaces if settings.dataset_features is not None else ())
        )
        # (datasets, D), (datasets, A), (datasets, K)
        self._masks = {
            key: torch.from_numpy(np.stack([placement.masks[key] for placement in self.placements]))
            for key in (self.placements[0].masks if self.placements else ())
        }
        self._complete = {key: bool(table.all()) for key, table in self._masks.items()}  # nothing is missing anywhere
        if image_encoder is not None:
            image_encoder.eval().requires_grad_(False)

    @classmethod
    def build(
        cls,
        config: ProcessorConfigLike,
        features: Features,
        statistics: Mapping[str, Mapping[str, StatisticsLike]],
        policy_config: Any,
        blind: bool = False,
        *,
        uses: Collection[str] = OBSERVATION_KEYS,
        image_encoder: torch.nn.Module | None = None,
        image_encoder_spec: Mapping[str, Any] | None = None,
        dataset_features: Sequence[Features] | None = None,
    ) -> Processor:
        """A new processor.

        Args:
            config: the `processor:` section of a task.
            features: of the data; of datasets that differ, the layout of what is trained.
            statistics: dataset name -> {"state": Statistics, "action": Statistics}, in the order of `dataset_id`.
            policy_config: says `camera_names`, `image_size`, `image_normalize`, `n_obs_steps`, `observation_offsets`.
            blind: hide the object from the policy.
            uses: the batch keys the policy reads (`Contract.of(policy_class)`); others are not asked for.
            image_encoder: a frozen module with `feature_dim`, (N, 3, H, W) in [0, 1] -> (N, feature_dim).
            image_encoder_spec: `{"class": …, "args": …}` it was made from.
            dataset_features: of each dataset its own, as recorded, where they differ.
        """
        settings = ProcessorSettings.of(
            config,
            features,
            list(statistics),
            policy_config,
            blind=blind,
            uses=uses,
            image_encoder=image_encoder_spec,
            dataset_features=dataset_features,
        )

        def normalizer(feature: str, kind: Kind, mask: tuple[bool, ...] | None) -> Normalizer:
            rows = []
            for name, of_dataset in statistics.items():
                if feature not in of_dataset:
                    raise StatisticsError(f"{feature} statistics of dataset {name!r}: expected them, got nothing.")
                rows.append(of_dataset[feature])
            return Normalizer(kind, rows, feature=feature, mask=mask)

        state = None
        if features.state_dim:
            state = normalizer("state", settings.state, settings.state_mask)
        action = normalizer("action", settings.action, settings.action_mask)
        return cls(settings, state, action, image_encoder if settings.camera_names else None)

    @property
    def features(self) -> Features:
        """What raw observations and physical actions mean; of datasets that differ, the layout of what is trained."""
        return self.settings.features

    @property
    def trained(self) -> Features:
        """What the policy's state and actions mean: `features`, but for the control space that is trained."""
        return self.features if self.settings.dataset_features is not None else self._spaces[0].trained

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras the policy is given, in order."""
        return self.settings.camera_names

    @property
    def required_cameras(self) -> tuple[str, ...]:
        """The cameras an observation must hold: none when blind, so that nothing is drawn in vain."""
        return () if self.settings.blind else self.settings.camera_names

    @property
    def image_size(self) -> tuple[int, int] | None:
        return self.settings.image_size

    @property
    def observation_steps(self) -> int:
        return self.settings.observation_steps

    @property
    def grey_level(self) -> float:
        """How far apart two neighbouring grey levels are after normalization, at most."""
        return float(self._pixels[0].max())

    @property
    def blind(self) -> bool:
        return self.settings.blind

    @property
    def dataset_names(self) -> tuple[str, ...]:
        return self.settings.dataset_names

    def features_of(self, dataset_id: int) -> Features:
        """What raw observations and physical actions of one dataset mean; `features` where all mean the same."""
        return self.settings.of_dataset(dataset_id).features

    def spaces_of(self, dataset_id: int) -> Spaces:
        """How what is trained is made of one dataset's raw states and physical actions."""
        return self._spaces[dataset_id]

    def required_cameras_of(self, dataset_id: int) -> tuple[str, ...]:
        """`required_cameras` of one dataset's observations."""
        return () if self.settings.blind else self.settings.of_dataset(dataset_id).camera_names

    def prepare(self, observation: Mapping[str, Any], dataset_id: int = 0) -> dict[str, Any]:
        """Check a raw observation and resize its images; what comes out is what `windows` and `collate` give.

        Args:
            observation: `state` (B, D) float; `images` {camera: (B, H, W, 3) uint8, or float in [0, 1]}; `task` a list
                of B texts. A time axis (O) after B where `observation_steps` > 1. Further cameras are not looked at.
            dataset_id: whose observation it is, of datasets that differ: it has that one's dimensions and cameras.

        Returns:
            `state` (B, [O,] D) float32, `image` (B, [O,] K, h, w, 3) uint8, `task` list[str], as far as they are used.
            Float pixels between grey levels are rounded only where resized: else `image` is int32, in 1/65536 of one.

        Raises:
            FeatureMismatch: something is missing, of the wrong shape or type, or not finite.
        """
        batch = prepare_observation(observation, self.settings.of_dataset(dataset_id))
        if "state" in batch:
            batch["state"] = torch.from_numpy(self.spaces_of(dataset_id).encode_state(batch["state"].numpy()))
        if self.placements:
            batch = self._lay_out(batch, batch_rows(observation), self.placements[dataset_id])
        return batch

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A collated batch -> what the model is given, on this processor's device.

        `state` and `actions` are normalized; `image` becomes (B, [O,] K, 3, h, w) float32, or with an image encoder
        (B, [O,] K * F), which `image_features` names too; features already computed pass. Everything else passes.
        """
        moved = {
            key: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        dataset_id = moved.get("dataset_id", 0)
        if "state" in moved and self.state_normalizer is not None:
            state = self.state_normalizer.normalize(moved["state"], dataset_id)
            moved["state"] = state.index_fill_(-1, self._hidden, 0.0) if len(self._hidden) else state
        if "actions" in moved:
            moved["actions"] = self.action_normalizer.normalize(moved["actions"], dataset_id)
        if self.image_encoder is not None:
            self._encoder_inputs(moved)
        elif "image" in moved:
            image = self._to_float(moved["image"])
            moved["image"] = image.zero_() if self.blind else image
        if self._masks:
            self._add_masks(moved, dataset_id)
            moved = self.masked(moved)
        return moved

    def masked(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A processed batch with 0 where its masks say that nothing is there, whatever was done to it since."""
        result = dict(batch)
        if not self._masks:
            return result
        for key, mask in (("state", "state_mask"), ("actions", "action_mask")):
            if key in result and not self._complete[mask]:
                lacks = ~result[mask]  # (B, D), to (B, [O or T,] D)
                result[key] = result[key].masked_fill(lacks if result[key].dim() == 2 else lacks[:, None], 0.0)
        for key in ("image", "image_features"):
            if isinstance(result.get(key), torch.Tensor) and not self._complete["image_mask"]:
                result[key] = _blotted(result[key], ~result["image_mask"])
        return result

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """(B, [O,] K, H, W, 3) uint8 -> (B, [O,] K * F): each camera's features, in order. Needs an image encoder."""
        if self.image_encoder is None:
            raise ContractError("encode_images: expected an image encoder, got none. Set image_encoder in the task.")
        pixels = self._to_float(images.to(self.device))  # (B, [O,] K, 3, H, W)
        with torch.no_grad():
            features = self.image_encoder(pixels.flatten(0, -4))
        expected = (pixels.shape[:-3].numel(), getattr(self.image_encoder, "feature_dim", None))
        if tuple(features.shape) != expected:
            raise ContractError(
                f"{type(self.image_encoder).__name__}: expected features of shape {expected} (feature_dim), "
                f"got {tuple(features.shape)}."
            )
        result: torch.Tensor = features.to(torch.float32).reshape(*pixels.shape[:-4], -1)
        return result

    def actions(
        self,
        normalized: torch.Tensor,
        dataset_id: int = 0,
        *,
        observation: Mapping[str, Any] | None = None,
    ) -> torch.Tensor:
        """(B, [T,] A') normalized, as trained -> (B, [T,] A) float32, absolute as recorded, in physical units.

        Args:
            normalized: the policy's answer.
            dataset_id: whose actions they are to be: of datasets that differ, that one's dimensions in its order.
            observation: the raw observation it answered, whose state relative and delta actions refer to: the newest
                one, where there is a time axis. Not looked at otherwise.

        Raises:
            FeatureMismatch: a state is needed, and the observation has none or a wrong one.
        """
        trained = self.action_normalizer.unnormalize(normalized.to(torch.float32), dataset_id)
        if self.placements:
            trained = trained[..., self.placements[dataset_id].own_action]
        spaces = self.spaces_of(dataset_id)
        if not spaces.encodes_actions:
            return trained
        state = None
        if spaces.needs_state:
            state = self._newest_state(observation, dataset_id)
        physical = spaces.decode_actions(trained.detach().cpu().numpy(), state)
        return torch.from_numpy(physical).to(trained.device)

    def encode_actions(
        self,
        physical: NDArray[np.float32],
        dataset_id: int = 0,
        *,
        observation: Mapping[str, Any] | None = None,
    ) -> torch.Tensor:
        """`actions`, undone: (B, T, A) physical, the first meant for the time of the observation -> (B, T, A')
        normalized, on this processor's device.

        Raises:
            FeatureMismatch: a state is needed, and the observation has none or a wrong one.
        """
        spaces = self.spaces_of(dataset_id)
        state = self._newest_state(observation, dataset_id) if spaces.needs_state else _NO_STATE
        trained = spaces.encode_actions(physical, state) if spaces.encodes_actions else physical
        if self.placements:
            trained = self.placements[dataset_id].vector("action", trained)
        tensor = torch.from_numpy(np.ascontiguousarray(trained, np.float32)).to(self.device)
        return self.action_normalizer.normalize(tensor, dataset_id)

    def to(self, device: torch.device | str) -> Processor:
        """Move everything `inputs` and `actions` need to a device."""
        self.device = torch.device(device)
        if self.state_normalizer is not None:
            self.state_normalizer.to(self.device)
        self.action_normalizer.to(self.device)
        self._pixels, self._hidden = self._pixels.to(self.device), self._hidden.to(self.device)
        self._masks = {key: table.to(self.device) for key, table in self._masks.items()}
        if self.image_encoder is not None:
            self.image_encoder.to(self.device)
        return self

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `processor_config.json`, `normalizer.safetensors`, and the image encoder's weights if there is one."""
        directory = Path(directory)
        write_json(directory / CONFIG_FILE, self.settings.to_dict())
        tables = {
            f"{normalizer.feature}.{name}": table
            for normalizer in (self.state_normalizer, self.action_normalizer)
            if normalizer is not None
            for name, table in normalizer.tables.items()
        }
        save_arrays(tables, directory / NORMALIZER_FILE)
        if self.image_encoder is not None:
            weights = {name: tensor.contiguous() for name, tensor in self.image_encoder.state_dict().items()}
            save_file(weights, directory / ENCODER_FILE)

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, image_encoder: torch.nn.Module | None = None) -> Processor:
        """Read `save_pretrained` back.

        Args:
            image_encoder: a module of the class and arguments in `read_settings(directory).image_encoder`; its weights
                are replaced by the saved ones.

        Raises:
            CheckpointError, StatisticsError: a file is missing, damaged, or does not fit the others.
        """
        directory = Path(directory)
        settings = read_settings(directory)
        path = directory / NORMALIZER_FILE
        try:
            tables = load_arrays(path)
        except FileNotFoundError:
            raise StatisticsError(f"{path}: expected the dataset's statistics, got no file.") from None
        except SafetensorError as problem:
            raise StatisticsError(f"{path}: expected a safetensors file, got {problem}.") from None
        state = None
        if settings.features.state_dim:
            state = _normalizer(tables, "state", settings.state, settings.state_mask, settings)
        action = _normalizer(tables, "action", settings.action, settings.action_mask, settings)
        if image_encoder is not None:
            _load_encoder(image_encoder, directory / ENCODER_FILE)
        return cls(settings, state, action, image_encoder)

    def _newest_state(self, observation: Mapping[str, Any] | None, dataset_id: int) -> NDArray[np.float32]:
        """(B, D), raw."""
        state = read_state(observation or {}, self.settings.of_dataset(dataset_id))
        return state if self.settings.observation_steps == 1 else state[:, -1]

    def _lay_out(self, batch: dict[str, Any], rows: int, placement: Placement) -> dict[str, Any]:
        """A dataset's own trained state and images where they stand in the layout."""
        axes = (rows, self.observation_steps) if self.observation_steps > 1 else (rows,)
        own: dict[str, Any] = {key: batch[key].numpy() for key in ("state", "image") if key in batch}
        laid_out = placement.observation(own, axes, image_size=self.image_size)
        return batch | {key: torch.from_numpy(value) for key, value in laid_out.items() if key in self.settings.keys}

    def _add_masks(self, batch: dict[str, Any], dataset_id: torch.Tensor | int) -> None:
        if isinstance(dataset_id, int):
            rows = next(len(value) for value in batch.values() if isinstance(value, torch.Tensor))
            dataset_id = torch.full((rows,), dataset_id, device=self.device)
        batch |= {key: table[dataset_id] for key, table in self._masks.items() if table.shape[1]}

    def _to_float(self, images: torch.Tensor) -> torch.Tensor:
        if not isinstance(images, torch.Tensor) or images.dtype not in (torch.uint8, torch.int32):
            got = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
            raise FeatureMismatch(f"image: expected a uint8 tensor (B, [O,] K, H, W, 3), got {got}.")
        if images.shape[-4] != len(self.camera_names):
            raise FeatureMismatch(f"image: expected cameras {list(self.camera_names)}, got {images.shape[-4]} of them.")
        return to_channels_first(images, self._pixels)

    def _encoder_inputs(self, moved: dict[str, Any]) -> None:
        if "image_features" not in moved and "image" in moved:
            moved["image_features"] = self.encode_images(moved["image"])
        if "image_features" in moved:
            features = moved["image_features"]
            moved["image"] = moved["image_features"] = torch.zeros_like(features) if self.blind else features


def read_settings(directory: str | Path) -> ProcessorSettings:
    """The processor's settings alone, without its statistics."""
    path = Path(directory) / CONFIG_FILE
    return ProcessorSettings.from_dict(read_json(path, CheckpointError), str(path))


def _spaces_of(settings: ProcessorSettings) -> tuple[Spaces, ...]:
    """Of each dataset its own."""
    if settings.dataset_features is None:
        return (Spaces.of(settings, settings.features),) * len(settings.dataset_names)
    recorded = dict(zip(settings.dataset_names, settings.dataset_features, strict=True))
    return tuple(spaces_of_each(settings, recorded).values())


def _load_encoder(encoder: torch.nn.Module, path: Path) -> None:
    try:
        encoder.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: expected the image encoder's weights, got no file.") from None
    except (RuntimeError, SafetensorError) as problem:
        raise CheckpointError(f"{path}: expected the weights of {type(encoder).__name__}, got: {problem}") from problem


def _blotted(slot: torch.Tensor, lacks: torch.Tensor) -> torch.Tensor:
    """(B, [O,] K, 3, h, w) pixels or (B, [O,] K * F) features, 0 where a row lacks (B, K) the camera."""
    of_pixels = slot.dim() > _FEATURE_AXES
    by_camera = slot if of_pixels else slot.reshape(*slot.shape[:-1], lacks.shape[1], -1)
    behind = (1,) * (3 if of_pixels else 1)
    time = (1,) * (by_camera.dim() - 2 - len(behind))
    return by_camera.masked_fill(lacks.reshape(len(lacks), *time, -1, *behind), 0.0).reshape(slot.shape)


def _normalizer(
    tables: Mapping[str, Any], feature: str, kind: Kind, mask: tuple[bool, ...] | None, settings: ProcessorSettings
) -> Normalizer:
    names = fields_of(kind)
    for name in names:
        shape = np.shape(tables.get(f"{feature}.{name}", ()))
        if len(shape) != 2 or shape[0] != len(settings.dataset_names):
            raise StatisticsError(
                f"{NORMALIZER_FILE}, {feature}.{name}: expected a row for each of {list(settings.dataset_names)}, "
                f"got shape {shape}."
            )
    row_class = Affine if kind == "affine" else Rows
    rows = [
        row_class(**{name: tables[f"{feature}.{name}"][index] for name in names})
        for index in range(len(settings.dataset_names))
    ]
    return Normalizer(kind, rows, feature=feature, mask=mask)


def _check_widths(trained: Features, state: Normalizer | None, action: Normalizer) -> None:
    for name, normalizer, width in (("state", state, trained.state_dim), ("action", action, trained.action_dim)):
        if normalizer is not None and normalizer.dim != width:
            raise StatisticsError(
                f"{name} statistics: expected width {width} as the features say, got {normalizer.dim}."
            )
