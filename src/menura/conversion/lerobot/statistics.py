"""LeRobot's statistics, wherever they lie: in the state of a processor's step, or (before 0.4) among the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from menura.conversion.weights import Weights, listed
from menura.errors import StatisticsError

Float64 = NDArray[np.float64]
ONLY = "lerobot"  # the name of the dataset where the checkpoint names none
INSIDE = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
# `so100.buffer_observation_state`: statistics of a policy trained on several datasets, one of which is `so100`.
_OF_DATASET = re.compile(r"(?:(?P<dataset>.+)\.)?buffer[._](?P<feature>.+)")
# What each mode of normalization reads: https://github.com/huggingface/lerobot, processor/normalize_processor.py.
READS = {
    "IDENTITY": (),
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


@dataclass(frozen=True)
class Table:
    """What a normalization reads: `datasets[name][feature key][statistic]`, each flat float64."""

    datasets: Mapping[str, Mapping[str, Mapping[str, Float64]]]
    where: str

    def of(self, dataset: str, key: str, mode: str) -> Mapping[str, Float64]:
        """The statistics that a mode reads. StatisticsError where they are missing, though LeRobot passes such values
        on unchanged: what a policy answers then is nothing a robot should do."""
        own = self.datasets.get(dataset, {}).get(key, {})
        missing = [name for name in READS[mode] if name not in own]
        if missing:
            there = sorted({feature for features in self.datasets.values() for feature in features})
            raise StatisticsError(
                f"{self.where}: expected {listed(missing)} of {key!r} in dataset {dataset!r} for {mode}, got "
                f"those of {listed(there) or 'nothing'}. A base model has none: fine-tune it (init_from), or convert "
                "it with --args '{statistics: false}', and nothing is normalized."
            )
        return own


def of_step(state: Mapping[str, Tensor], where: str) -> Table:
    """Of the state of a `normalizer_processor` or `unnormalizer_processor`: `observation.state.mean`, …"""
    datasets: dict[str, dict[str, dict[str, Float64]]] = {}
    for name, tensor in state.items():
        feature, _, statistic = name.rpartition(".")
        match = _OF_DATASET.fullmatch(feature)  # what LeRobot's migration made of several datasets
        dataset = match["dataset"] or ONLY if match else ONLY
        key = match["feature"] if match else feature
        datasets.setdefault(dataset, {}).setdefault(key, {})[statistic] = _flat(tensor)
    return Table(datasets or {ONLY: {}}, where)


def of_weights(weights: Weights, keys: Iterable[str]) -> Table:
    """Of the weights, from which they are taken: `normalize_inputs.buffer_observation_state.mean`, …

    The buffers' names have `_` for `.`, so that only the features' names tell which key is meant.
    """
    spelled = {key.replace(".", "_"): key for key in keys}
    datasets: dict[str, dict[str, dict[str, Float64]]] = {}
    for name in weights.left:
        head = next((head for head in INSIDE if name.startswith(head)), None)
        if head is None:
            continue
        feature, _, statistic = name.removeprefix(head).rpartition(".")
        match = _OF_DATASET.fullmatch(feature)
        key = spelled.get(match["feature"].replace(".", "_")) if match else None
        if match is None or key is None:
            raise StatisticsError(f"{weights.where}: expected statistics of {sorted(spelled.values())}, got {name!r}.")
        values = _flat(weights.take(name))
        own = datasets.setdefault(match["dataset"] or ONLY, {}).setdefault(key, {})
        if statistic in own and not np.array_equal(own[statistic], values):
            raise StatisticsError(
                f"{weights.where}: expected one {statistic} of {key!r}, got two that differ ({name})."
            )
        own[statistic] = values
    return Table(datasets or {ONLY: {}}, weights.where)


def _flat(tensor: Tensor) -> Float64:
    flat: Float64 = tensor.detach().double().reshape(-1).numpy()
    return flat
