"""Golden observations: what this policy was asked and what it answered when it was saved."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from menura.errors import CheckpointError
from menura.policies.inference import Inference
from menura.processing.spaces import Spaces

GOLDEN_FILE = "golden.safetensors"
_METADATA = "golden"
_ARRAYS = ("state", "timestep")
SEED = 20260101
# How far a replay may be off. On the kind of device that saved it, kernels differ in the order of their sums; on
# another kind in their precision, too (TF32 keeps 10 bits).
TOLERANCE = 1e-4
TOLERANCE_ELSEWHERE = 2e-2
TOLERANCE_GREY_LEVELS = 2.0  # resizing rounds differently on different processors


def save_golden(path: Path, inference: Inference, observation: Mapping[str, Any]) -> None:
    """Ask, and keep every stage: raw observation, processed inputs, model outputs, physical actions."""
    with _reproducible(inference):
        inputs = inference.inputs(observation)
        outputs = _ask(inference, inputs, SEED)
        samples = not torch.equal(outputs, _ask(inference, inputs, SEED + len(outputs)))
    stages: dict[str, torch.Tensor] = {
        "outputs": outputs,
        "actions": torch.from_numpy(inference.actions(outputs, observation)),
        **{f"inputs.{key}": value for key, value in inputs.items() if isinstance(value, torch.Tensor)},
        **{f"raw.images.{camera}": _tensor(images) for camera, images in observation.get("images", {}).items()},
    }
    stages |= {f"raw.{key}": _tensor(observation[key]) for key in _ARRAYS if key in observation}
    task = observation.get("task")
    task = task if task is None or isinstance(task, str) else list(task)
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in stages.items()},
        path,
        # One entry: safetensors writes several in an order that changes, and so would the file's hash.
        metadata={_METADATA: json.dumps({"task": task, "samples": samples})},
    )


def rehearse(inference: Inference, observation: Mapping[str, Any]) -> None:
    """Ask once and keep nothing: a `select_action` that fails is found before training, not when it is first saved."""
    with _reproducible(inference):
        inference.actions(_ask(inference, inference.inputs(observation), SEED), observation)


class Golden:
    """A golden file, read.

    Attributes:
        task: the instruction of each row; None when there was none.
        samples: whether the answer depends on a random seed.
        tensors: every stage by name.
    """

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
                self.task = metadata.get("task")
                self.samples: bool = metadata.get("samples", False)
                self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except FileNotFoundError:
            raise CheckpointError(f"{path}: expected the golden observations, got no file.") from None
        except (SafetensorError, json.JSONDecodeError) as problem:
            raise CheckpointError(f"{path}: expected a safetensors file, got {problem}.") from None
        if not {"outputs", "actions"} <= set(self.tensors):
            raise CheckpointError(f"{path}: expected outputs and actions, got {sorted(self.tensors)}.")

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def observation(self) -> dict[str, Any]:
        """The raw observation, as it was given."""
        observation: dict[str, Any] = {}
        for key in _ARRAYS:
            if f"raw.{key}" in self.tensors:
                observation[key] = self.tensors[f"raw.{key}"].numpy()
        images = {camera: value.numpy() for camera, value in self.part("raw.images.").items()}
        if images:
            observation["images"] = images
        if self.task is not None:
            observation["task"] = self.task
        return observation


def replay(golden: Golden, inference: Inference, *, same_device: bool) -> str | None:
    """Ask again, stage by stage, each from the golden result of the one before. What changed, or None."""
    tolerance = TOLERANCE if same_device else TOLERANCE_ELSEWHERE
    with _reproducible(inference):
        inputs = inference.inputs(golden.observation())
        changed = _compare_inputs(golden, inputs, inference, tolerance)
        if changed is not None:
            return f"processor inputs: {changed}"
        # Another kind of device draws other numbers from the same seed, so that a sampled answer cannot be compared.
        if same_device or not golden.samples:
            stored = {key: value.to(inference.device) for key, value in golden.part("inputs.").items()}
            difference = _difference(_ask(inference, {**inputs, **stored}, SEED), golden.tensors["outputs"])
            if not difference <= tolerance:
                return f"model outputs: expected the same actions for the same inputs, got {difference:.3g} off"
    actions = inference.actions(golden.tensors["outputs"].to(inference.device), golden.observation())
    return _compare_actions(
        actions, golden.tensors["actions"].numpy(), inference.processor.spaces_of(inference.dataset_id)
    )


def _compare_inputs(golden: Golden, inputs: Mapping[str, Any], inference: Inference, tolerance: float) -> str | None:
    expected = golden.part("inputs.")
    got = {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)}
    if set(expected) != set(got):
        return f"expected {sorted(expected)}, got {sorted(got)}"
    for key, value in expected.items():
        pixels = key == "image" and value.dim() > 3
        allowed = TOLERANCE_GREY_LEVELS * inference.processor.grey_level if pixels else tolerance
        difference = _difference(got[key], value)
        if not difference <= allowed:  # NaN is no agreement
            order = _other_order(got[key].cpu(), value, inference.processor.camera_names, allowed) if pixels else ""
            state = inference.processor.trained.state
            if key == "state" and state is not None and got[key].shape == value.shape:
                worst = int((got[key].cpu() - value).abs().flatten(0, -2).amax(0).argmax())
                order = f", most in {state.names[worst]!r}"
            return f"{key} differs by {difference:.3g}{order}"
    return None


def _other_order(got: torch.Tensor, expected: torch.Tensor, cameras: Sequence[str], allowed: float) -> str:
    """`, the cameras come in another order …` when a permutation of the cameras explains the difference."""
    if got.shape != expected.shape or not 2 <= len(cameras) <= 6:
        return ""
    for order in itertools.permutations(range(len(cameras))):
        if _difference(got.index_select(-4, torch.tensor(order)), expected) <= allowed:
            was = [cameras[index] for index in order]
            return f", the cameras come in another order: expected {was}, got {list(cameras)}"
    return ""


def _compare_actions(got: np.ndarray, expected: np.ndarray, spaces: Spaces) -> str | None:
    got, names = spaces.comparable(got)
    expected, _ = spaces.comparable(expected)
    wrong = ~np.isclose(got, expected, rtol=TOLERANCE, atol=1e-6)
    if not wrong.any():
        return None
    dimension = int(np.argwhere(wrong)[0][-1])
    difference = float(np.abs(got - expected)[..., dimension].max())
    return f"physical actions: {names[dimension]!r} differs by {difference:.3g}"


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    if got.shape != expected.shape:
        return float("inf")
    if not got.numel():
        return 0.0
    return float((got.detach().cpu().double() - expected.double()).abs().max())


def _ask(inference: Inference, inputs: dict[str, Any], seed: int) -> torch.Tensor:
    """The answer that belongs to a seed, whether the policy draws from generators or from torch's own."""
    torch.manual_seed(seed)
    rows = len(next(iter(inputs.values())))
    generators = [inference.generator(seed + row) for row in range(rows)]
    return inference.infer(inputs, generator=[own for own in generators if own is not None] or None)


@contextmanager
def _reproducible(inference: Inference) -> Iterator[None]:
    """Whatever is drawn within, the outer random state and the policy's mode are as before."""
    devices = [inference.device] if inference.device.type == "cuda" else []
    training = inference.policy.training
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            inference.policy.train(training)


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
