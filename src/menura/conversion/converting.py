"""Reading other people's checkpoints, and writing them as ours."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from menura.checkpoint.load import load_checkpoint
from menura.checkpoint.manifest import MANIFEST_FILE, fetching
from menura.checkpoint.save import require_room, save_checkpoint
from menura.conversion.foreign import Foreign
from menura.conversion.lerobot.writing import write
from menura.errors import CheckpointError, did_you_mean
from menura.files import sha256
from menura.processing.processor import Processor

TARGETS = ("menura", "lerobot")
# What a checkpoint was written by -> the module that reads it.
READERS: Mapping[str, str] = {
    "lerobot": "menura.conversion.lerobot.reading",
    "act": "menura.conversion.original.act",
    "diffusion_policy": "menura.conversion.original.diffusion_policy",
    "openvla": "menura.conversion.original.openvla",
}
_GOLDEN_ROWS = 2
_GOLDEN_SEED = 20260101


class _Reader(Protocol):
    """What such a module offers."""

    def recognises(self, path: Path) -> bool: ...
    def read(self, path: Path, args: Mapping[str, Any]) -> Foreign: ...


def is_foreign(path: str | Path) -> bool:
    """Whether it is a checkpoint of another program that Menura reads; no file of weights is opened."""
    return recognise(Path(path)) is not None


def recognise(path: Path) -> str | None:
    """What wrote a checkpoint; None for one of Menura's own, and for anything else."""
    if not path.exists() or (path / MANIFEST_FILE).is_file():
        return None
    return next((origin for origin in READERS if _reader(origin).recognises(path)), None)


def load_foreign(
    path: str | Path, *, origin: str | None = None, args: Mapping[str, Any] | None = None, device: Any = "cpu"
) -> Foreign:
    """A checkpoint of another program, as a policy of Menura with its processor.

    Args:
        path: the directory or file.
        origin: what wrote it; recognised, when None.
        args: what the checkpoint does not say of itself, such as `camera_names` of an original ACT.
        device: where the policy is put.

    Raises:
        CheckpointError, StatisticsError: it is none, it is damaged, or something in it has no place in Menura.
    """
    path = Path(path)
    if origin is not None and origin not in READERS:
        raise CheckpointError(
            f"from: expected one of {', '.join(READERS)}, got {origin!r}{did_you_mean(origin, READERS) or '.'}"
        )
    if not path.exists():
        expected = origin or ", ".join(READERS)
        raise CheckpointError(
            f"{path}: expected a checkpoint of {expected}, got no such file or directory.{fetching(path)}"
        )
    origin = origin or recognise(path)
    if origin is None:
        raise CheckpointError(f"{path}: expected a checkpoint of {', '.join(READERS)}, got {_what_it_is(path)}.")
    foreign = _reader(origin).read(path, args or {})
    foreign.policy.to(device)
    foreign.processor.to(device)
    return foreign


def load_foreign_policy(path: str | Path) -> Foreign:
    """As `load_foreign`, for its weights alone: a base model without statistics will do, and nothing is normalized."""
    recognised = recognise(Path(path))
    return load_foreign(path, origin=recognised, args={"statistics": False} if recognised == "lerobot" else None)


def convert(
    source: str | Path,
    output_dir: str | Path,
    *,
    origin: str | None = None,
    to: str = "menura",
    args: Mapping[str, Any] | None = None,
    tell: Callable[[str], object] | None = None,
) -> Path:
    """Write a checkpoint as one of another program; new or replaced as a whole, and the source is left as it is.

    Args:
        source: a checkpoint of another program, or with `to="lerobot"` one of Menura's.
        output_dir: where the new one goes.
        origin, args: as of `load_foreign`.
        to: `menura`, or `lerobot` for the policies that LeRobot has.
        tell: is told what became what, one text.

    Raises:
        CheckpointError: the source cannot be read, or the target cannot hold what it is.
    """
    if to not in TARGETS:
        raise CheckpointError(f"to: expected one of {', '.join(TARGETS)}, got {to!r}{did_you_mean(to, TARGETS) or '.'}")
    source, output_dir = Path(source), Path(output_dir)
    require_room(output_dir)
    if to == "lerobot":
        checkpoint = load_checkpoint(source)
        return write(checkpoint.policy, checkpoint.processor, output_dir)
    foreign = load_foreign(source, origin=origin, args=args)
    save_foreign(foreign, output_dir)
    if tell is not None:
        tell(foreign.report)
    return output_dir


def save_foreign(foreign: Foreign, output_dir: Path) -> None:
    """Write a converted policy as a checkpoint of Menura's, with golden answers and what became what in its card."""
    save_checkpoint(
        output_dir,
        policy=foreign.policy,
        processor=foreign.processor,
        features=foreign.processor.features,
        task=None,
        datasets=dict.fromkeys(foreign.processor.dataset_names, fingerprint(foreign)),
        seed=0,
        golden=example_observation(foreign.processor),
        converted=foreign.report,
    )


def fingerprint(foreign: Foreign) -> str:
    """The sha256 of the files that were read: which checkpoint it is."""
    content = hashlib.sha256()
    for file in foreign.files:
        content.update(f"{file.name} {sha256(file)}\n".encode())
    return content.hexdigest()


def example_observation(processor: Processor, rows: int = _GOLDEN_ROWS) -> dict[str, Any]:
    """A raw observation that is plausible for the statistics, the same every time."""
    random = np.random.default_rng(_GOLDEN_SEED)
    settings = processor.settings
    time = () if settings.observation_steps == 1 else (settings.observation_steps,)
    observation: dict[str, Any] = {}
    if processor.state_normalizer is not None and "state" in settings.keys:
        normalized = random.uniform(-1, 1, (rows, *time, processor.state_normalizer.dim)).astype(np.float32)
        observation["state"] = processor.state_normalizer.unnormalize(torch.from_numpy(normalized)).numpy()
    images = {}
    for camera in settings.camera_names:
        size = settings.features.cameras[camera]
        images[camera] = random.integers(0, 256, (rows, *time, size.height, size.width, 3), dtype=np.uint8)
    if images:
        observation["images"] = images
    if "task" in settings.keys:
        observation["task"] = ["pick up the cube"] * rows
    return observation


def _what_it_is(path: Path) -> str:
    if (path / MANIFEST_FILE).is_file():
        return "one of Menura's own. --to lerobot goes the other way, --merge merges adapters"
    return "none of them"


def _reader(origin: str) -> _Reader:
    return cast(_Reader, importlib.import_module(READERS[origin]))
