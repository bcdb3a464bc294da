"""The original OpenVLA and OpenVLA-OFT: a directory of `transformers` -> `OpenVLAPolicy`.

As https://github.com/openvla/openvla and https://github.com/moojink/openvla-oft write them: `config.json`, weights, the
statistics of each data set in the config or in `dataset_statistics.json`, and OFT's parts as `<part>--*_checkpoint.pt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from menura.conversion.foreign import Foreign, build, configured, policy_class, processor_of
from menura.conversion.original.unpickling import load_torch
from menura.conversion.weights import Weights, renamed
from menura.errors import CheckpointError, StatisticsError, did_you_mean
from menura.features import CameraFeature, Features, VectorFeature
from menura.files import read_json
from menura.policies.contract import Contract
from menura.policies.openvla.configuration_openvla import LLAMA_2_7B
from menura.policies.openvla.weights_openvla import renamed as in_our_names
from menura.processing.normalizer import Affine
from menura.processing.processor import Processor

ORIGIN = "openvla"
VISION = "dinosiglip-vit-so-224px"
STATISTICS_FILE = "dataset_statistics.json"
#: What the directory does not say, as OFT has it for LIBERO; `bounds` are `q01`, `q99` or `min`, `max` (ALOHA).
DEFAULTS: Mapping[str, Any] = {"camera_names": ["image"], "chunk_size": None, "bounds": ["q01", "q99"]}
UNREAD = "nothing that the actions depend on reads it"
_PARTS = {
    "action_head": "action_head",
    "proprio_projector": "state_projector",
    "noisy_action_projector": "noise_projector",
}
_HEAD = {
    "layer_norm1": "norm_in",
    "fc1": "fc_in",
    "layer_norm2": "norm_out",
    "fc2": "fc_out",
    "mlp_resnet_blocks.0.ffn": "blocks.0",
    "mlp_resnet_blocks.1.ffn": "blocks.1",
}


def recognises(path: Path) -> bool:
    """Whether it is a directory whose `config.json` is an OpenVLA's."""
    file = path / "config.json"
    return file.is_file() and read_json(file, CheckpointError).get("model_type") == "openvla"


def read(path: Path, args: Mapping[str, Any]) -> Foreign:
    """The policy of an original OpenVLA.

    Args:
        path: the directory.
        args: `camera_names`, the first camera first; of OFT, `chunk_size` (8) and `bounds`, the statistics that become
            -1 and 1.

    Raises:
        CheckpointError, StatisticsError: something is missing, left over, or has no place in Menura.
    """
    for name in args:
        if name not in DEFAULTS:
            raise CheckpointError(
                f"args: expected some of {', '.join(DEFAULTS)}, got {name!r}{did_you_mean(name, DEFAULTS) or '.'}"
            )
    given = {**DEFAULTS, **args}
    theirs = read_json(path / "config.json", CheckpointError)
    if theirs.get("vision_backbone_id") != VISION:
        raise CheckpointError(
            f"{path}/config.json: expected vision_backbone_id {VISION!r}, got {theirs.get('vision_backbone_id')!r}."
        )
    statistics = _statistics(path, theirs)
    parts = _parts(path)
    files = sorted(path.glob("model*.safetensors"))
    tensors = {name: tensor for file in files for name, tensor in in_our_names(load_file(file))}
    weights = Weights({**tensors, **parts}, str(path))
    class_ = policy_class("OpenVLAPolicy")
    own = {**_architecture(theirs, weights, statistics), **_asked(given, weights), "tokenizer": str(path)}
    config = configured(class_, own)
    processor = _processor(config, statistics, given["bounds"], Contract.of(class_).keys)
    policy = build(class_, config, _state_dict(class_, config, weights), weights)
    every = tuple(file for file in path.iterdir() if file.is_file())
    return Foreign(policy, processor, ORIGIN, path, every, weights.notes)


def _asked(given: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """What the directory does not say of itself."""
    if not isinstance(given["camera_names"], list) or not given["camera_names"]:
        raise CheckpointError(f"args: expected a list of camera_names, got {given['camera_names']!r}.")
    chunk_size = given["chunk_size"] or (8 if _has(weights, "action_head.") else 1)
    return {"camera_names": given["camera_names"], "chunk_size": chunk_size, "n_action_steps": chunk_size}


def _architecture(theirs: Mapping[str, Any], weights: Weights, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """What the config, the weights and the widths of the statistics say."""
    language = {key: theirs.get("text_config", {}).get(key, value) for key, value in LLAMA_2_7B.items()}
    head = "tokens"
    if _has(weights, "action_head."):
        head = "diffusion" if _has(weights, "noise_projector.") else "l1"
    uses_state = _has(weights, "state_projector.")
    own = next(iter(statistics.values()))
    return {
        "head": head,
        "use_state": uses_state,
        "state_dim": weights.tensors["state_projector.fc1.weight"].shape[1] if uses_state else 0,
        "action_dim": len(own["action"]["q01"]),
        "n_action_bins": theirs.get("n_action_bins", 256),
        "action_vocab_end": language["vocab_size"] - theirs.get("pad_to_multiple_of", 64),
        "language_config": language,
    }


def _has(weights: Weights, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in weights.left)


def _parts(path: Path) -> dict[str, Tensor]:
    """OFT's heads and projectors, under our names; the newest of each."""
    if any(path.glob("vision_backbone--*")):
        raise CheckpointError(
            f"{path}: expected vision encoders without FiLM, got vision_backbone--…, which Menura's OpenVLA lacks."
        )
    tensors: dict[str, Tensor] = {}
    for theirs, ours in _PARTS.items():
        found = sorted(path.glob(f"{theirs}--*_checkpoint.pt"), key=lambda file: _step(file.name))
        if found:
            tensors |= {f"{ours}.{name}": tensor for name, tensor in _part(load_torch(found[-1]), found[-1]).items()}
    return tensors


def _step(name: str) -> int:
    number = name.partition("--")[2].removesuffix("_checkpoint.pt")
    return int(number) if number.isdigit() else 2**63  # `latest`


def _part(state_dict: Any, file: Path) -> dict[str, Tensor]:
    if not isinstance(state_dict, Mapping) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise CheckpointError(f"{file}: expected a state dict of tensors, got {type(state_dict).__name__}.")

    def rename(name: str) -> str:
        for prefix in ("module.", "noise_predictor.mlp_resnet.", "model."):  # of DDP, and of the two kinds of head
            name = name.removeprefix(prefix)
        for old, new in _HEAD.items() if file.name.startswith("action_head") else ():
            if name.startswith(f"{old}."):
                return new + name.removeprefix(old)
        return name

    return renamed(state_dict, rename)


def _state_dict(class_: Any, config: Any, weights: Weights) -> dict[str, Tensor]:
    with torch.device("meta"):
        own = set(class_(config).state_dict())
    for name in weights.left:
        if name not in own and name.startswith(("vision.", "lm_head.")):
            weights.drop(name, UNREAD)
    return {name: weights.take(name) for name in weights.left}


def _statistics(path: Path, theirs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Data set -> statistics, those beside a fine-tuned model before those of the model it began with."""
    file = path / STATISTICS_FILE
    statistics = read_json(file, StatisticsError) if file.is_file() else theirs.get("norm_stats")
    if not statistics:
        raise StatisticsError(f"{path}: expected norm_stats in config.json or {STATISTICS_FILE}, got neither.")
    result: Mapping[str, Any] = statistics
    return result


def _processor(config: Any, statistics: Mapping[str, Any], bounds: Any, uses: tuple[str, ...]) -> Processor:
    height, width = config.image_size
    features = Features(
        state=VectorFeature.of_width(config.state_dim, "state") if config.use_state else None,
        action=VectorFeature.of_width(config.action_dim, "action"),
        cameras={name: CameraFeature(height, width) for name in config.camera_names},
        language=True,
    )
    widths = {"action": ("action", config.action_dim)}
    if config.use_state:
        widths["state"] = ("proprio", config.state_dim)
    normalizers = {
        ours: [_affine(own, theirs, dim, bounds, name) for name, own in statistics.items()]
        for ours, (theirs, dim) in widths.items()
    }
    return processor_of(config, features, uses, normalizers, list(statistics))


def _affine(statistics: Mapping[str, Any], feature: str, dim: int, bounds: Any, dataset: str) -> Affine:
    """The two bounds become -1 and 1; a masked dimension stays (`datasets/rlds/utils/data_utils.py`)."""
    where = f"statistics of {dataset}, {feature}"
    own = statistics.get(feature, {})
    low, high = (_numbers(own.get(name), dim, f"{where}, {name}") for name in bounds)
    mask = np.asarray(own.get("mask", [True] * dim), dtype=np.bool_)
    span = np.where(mask, np.maximum(high - low, 1e-8), 2.0)
    centre, base = np.where(mask, low, 0.0), np.where(mask, -1.0, 0.0)
    return Affine(centre, 2 / span, base, span / 2, np.where(mask, low + span / 2, 0.0))


def _numbers(value: Any, dim: int, where: str) -> NDArray[np.float64]:
    array = np.asarray([] if value is None else value, dtype=np.float64)
    if array.shape != (dim,) or not np.isfinite(array).all():
        raise StatisticsError(f"{where}: expected {dim} finite numbers, got {value!r}.")
    return array
