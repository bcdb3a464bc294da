"""Training state on disk without pickle: any tree of numbers, text and tensors as JSON beside safetensors.

A tree named `optimizer` becomes `optimizer.json`, its structure and numbers, and, when it holds tensors,
`optimizer.safetensors`. Both read back equal to the last bit (JSON writes the shortest text that gives the same float).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from menura.errors import CheckpointError

# JSON knows only lists and dicts with text keys; these one-key objects stand for the rest.
_TENSOR, _TUPLE, _ITEMS = "__tensor__", "__tuple__", "__items__"


def save_tree(directory: Path, name: str, tree: Any) -> None:
    """Write `tree` (dicts, lists, tuples, tensors, arrays, numbers, text, None) as `name`.json and `.safetensors`."""
    tensors: dict[str, Tensor] = {}
    structure = _encode(tree, name, tensors)
    (directory / f"{name}.json").write_text(json.dumps(structure), encoding="utf-8")
    if tensors:
        safetensors.torch.save_file(tensors, directory / f"{name}.safetensors")


def load_tree(directory: Path, name: str) -> Any:
    """Read what `save_tree` wrote; tensors come back on the CPU."""
    path = directory / f"{name}.json"
    if not path.is_file():
        raise CheckpointError(
            f"{directory}: expected {name}.json to resume from, got no such file. "
            "Resume from another checkpoint, or train into another directory."
        )
    tensor_file = directory / f"{name}.safetensors"
    tensors = safetensors.torch.load_file(tensor_file) if tensor_file.is_file() else {}
    return _decode(json.loads(path.read_text(encoding="utf-8")), tensors)


def _encode(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        # A copy, so that views of one storage can be written.
        tensors[where] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: where}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _encode(item, f"{where}.{key}", tensors) for key, item in value.items()}
        return {_ITEMS: [[key, _encode(item, f"{where}.{key}", tensors)] for key, item in value.items()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"training state {where}: expected numbers, text, tensors or containers of them, got {type(value).__name__}. "
        "Choose another optimizer or scheduler, or set training.save_only_model: true."
    )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_decode(item, tensors) for item in value[_TUPLE])
    if _ITEMS in value:
        return {key: _decode(item, tensors) for key, item in value[_ITEMS]}
    return {key: _decode(item, tensors) for key, item in value.items()}


def random_state() -> dict[str, Any]:
    """The state of every global random generator that training may draw from."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 (whatever draws from it, it must go on where it was)
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put every global random generator back to a state of `random_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Whatever is drawn inside leaves the global random generators as they were."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
