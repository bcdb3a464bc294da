"""A checkpoint of another program, converted: what it is, and how it is put together with nothing left over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from menura import components
from menura.config.schema import ProcessorConfig
from menura.conversion.weights import Weights, listed
from menura.errors import CheckpointError
from menura.features import Features
from menura.policies.contract import completed, require_policy_class
from menura.policies.needs import config_parameters, fill_config
from menura.policies.quiet import no_progress_bars
from menura.processing.normalizer import Affine, Normalizer
from menura.processing.processor import Processor
from menura.processing.settings import ProcessorSettings


@dataclass(frozen=True)
class Foreign:
    """A policy of another program, as one of Menura's.

    Attributes:
        policy, processor: ready to be asked.
        origin: what wrote it, such as `lerobot act`.
        path: the directory or file it was read from.
        files: those that were read.
        notes: what the converter did beyond renaming, one sentence each: what was left out, and why.
    """

    policy: PreTrainedModel
    processor: Processor
    origin: str
    path: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def report(self) -> str:
        """What became what, in Markdown."""
        parameters = sum(parameter.numel() for parameter in self.policy.parameters())
        lines = [
            f"Converted from {self.origin} ({self.path.name}): {type(self.policy).__name__} with {parameters:,} "
            "parameters. Nothing was missing, and nothing is left over.",
            *(f"- {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def policy_class(name: str) -> type[PreTrainedModel]:
    """One of Menura's own policies."""
    class_ = components.load("policy", components.BUILT_IN["policy"][name], Path.cwd())
    require_policy_class(class_)
    return completed(class_)


def accepted(class_: type[PreTrainedModel], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those facts that the policy's config has an argument for."""
    parameters = config_parameters(require_policy_class(class_))
    return {name: value for name, value in facts.items() if name in parameters}


def processor_of(
    config: PretrainedConfig,
    features: Features,
    uses: Collection[str],
    normalizers: Mapping[str, Sequence[Affine]],
    datasets: Sequence[str],
) -> Processor:
    """The processor of a converted policy: another program's numbers, `state` and `action`, one `Affine` a dataset."""
    settings = ProcessorSettings.of(
        ProcessorConfig(), features, list(datasets), config, blind=False, uses=uses, image_encoder=None
    )
    made = {name: Normalizer("affine", list(rows), feature=name) for name, rows in normalizers.items()}
    return Processor(replace(settings, state="affine", action="affine"), made.get("state"), made["action"])


def build(class_: type[PreTrainedModel], config: Any, state_dict: Mapping[str, Tensor], weights: Weights) -> Any:
    """The policy with exactly these weights, in evaluation.

    Raises:
        CheckpointError: a weight is missing, has another shape, or is left over, on either side.
    """
    if weights.left:
        raise CheckpointError(
            f"{weights.where}: expected every tensor to have a place in {class_.__name__}, got {listed(weights.left)} "
            "left over. It was saved by another version, or is another policy."
        )
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in class_(config).state_dict().items()}
    for name, tensor in state_dict.items():
        if tuple(tensor.shape) != shapes.get(name, tuple(tensor.shape)):
            raise CheckpointError(
                f"{weights.where}: expected {shapes[name]} numbers for {class_.__name__}'s {name}, as its config says, "
                f"got {tuple(tensor.shape)}."
            )
    with no_progress_bars():
        loaded: Any = class_.from_pretrained(  # as when a checkpoint is loaded: no weight is drawn in vain
            None, config=config, state_dict=dict(state_dict), output_loading_info=True
        )
    policy, info = loaded
    wrong = {kind: sorted(str(key) for key in keys) for kind, keys in info.items() if keys}
    if wrong:
        kind, keys = next(iter(wrong.items()))
        raise CheckpointError(
            f"{weights.where}: expected the weights of {class_.__name__}, got {kind.replace('_', ' ')}: {listed(keys)}."
        )
    return policy.eval()


def configured(class_: type[PreTrainedModel], args: Mapping[str, Any]) -> Any:
    """The policy's config; ConfigError for arguments it does not take."""
    return fill_config(require_policy_class(class_), args)
