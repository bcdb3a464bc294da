"""A user's own dataset: any object with `__len__` and `episode(i)`."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from menura.data.episode import Episode
from menura.data.readers.base import Reader
from menura.errors import ContractError, FeatureMismatch, did_you_mean
from menura.features import CameraFeature, Features, VectorFeature


class UserReader(Reader):
    """Makes a `Reader` of an object that has `__len__` and `episode(i)`.

    What the object has itself is used: `features`, `name`, `lengths()`, `fingerprint()`, `metadata(i)`. What it lacks
    is found out: features from its first episode, lengths and fingerprint by reading every episode once, without
    decoding lazy frames.

    Args:
        dataset: the object.
        name: what to call it; its own `name`, else its class's, when not given.
        args: what it was made with; part of the fingerprint.

    Raises:
        ContractError: a method is missing, or returned something else than it should.
    """

    def __init__(self, dataset: Any, *, name: str | None = None, args: Mapping[str, Any] | None = None) -> None:
        self._dataset = dataset
        self._args = dict(args or {})
        self._what = f"Dataset {type(dataset).__name__}"
        if isinstance(dataset, type):
            raise ContractError(
                f"Dataset {dataset.__name__}: expected an object, got the class. Make one: {dataset.__name__}(…)."
            )
        for method in ("__len__", "episode"):
            if not _has(dataset, method):
                near = did_you_mean(method, [other for other in dir(dataset) if not other.startswith("_")])
                raise ContractError(
                    f"{self._what}: expected methods __len__ and episode(i), got no {method}{near or '.'}"
                )
        own_name = getattr(dataset, "name", None)
        self.name = name or (own_name if isinstance(own_name, str) else type(dataset).__name__)
        if len(self) == 0:
            raise ContractError(f"{self._what}: __len__: expected at least 1 episode, got 0.")
        features = getattr(dataset, "features", None)
        if features is not None and not isinstance(features, Features):
            raise ContractError(
                f"{self._what}: features: expected a menura.features.Features, got {type(features).__name__}. "
                f"Leave it out to have it inferred."
            )
        self.features = features or _infer(self._episode(0))

    def __len__(self) -> int:
        return len(self._dataset)

    def episode(self, index: int) -> Episode:
        """Episode `index`, checked against the features."""
        self.require_episode(index)
        episode = self._episode(index)
        expected, got = _shape(self.features), _shape(_infer(episode))
        for part, value in expected.items():
            if got[part] != value:
                raise FeatureMismatch(
                    f"{self._what}: episode({index}): {part}: expected {value} as the dataset has, got {got[part]}."
                )
        return episode

    def lengths(self) -> NDArray[np.int64]:
        if not _has(self._dataset, "lengths"):
            return self._scan[0]
        lengths = np.asarray(self._dataset.lengths())
        if lengths.shape != (len(self),) or not np.issubdtype(lengths.dtype, np.integer):
            raise ContractError(
                f"{self._what}: lengths(): expected {len(self)} integers, one an episode, "
                f"got {lengths.dtype} of shape {lengths.shape}."
            )
        return lengths.astype(np.int64)

    def fingerprint(self) -> str:
        """A digest of the class's source file, its arguments, and every episode's arrays (lazy frames: the shape)."""
        if not _has(self._dataset, "fingerprint"):
            return self._scan[1]
        fingerprint = self._dataset.fingerprint()
        if not isinstance(fingerprint, str) or not fingerprint:
            raise ContractError(f"{self._what}: fingerprint(): expected a text, got {fingerprint!r}.")
        return fingerprint

    def metadata(self, index: int) -> dict[str, Any]:
        return dict(self._dataset.metadata(index)) if _has(self._dataset, "metadata") else {}

    def _episode(self, index: int) -> Episode:
        episode = self._dataset.episode(index)
        if not isinstance(episode, Episode):
            raise ContractError(
                f"{self._what}: episode({index}): expected a menura.data.Episode, got {type(episode).__name__}. "
                f"Return Episode(state=…, action=…, images={{…}}, task=…, fps=…)."
            )
        return episode

    @cached_property
    def _scan(self) -> tuple[NDArray[np.int64], str]:
        """Lengths and digest, from one pass over all episodes."""
        digest = hashlib.sha256(source_of(type(self._dataset)))
        digest.update(json.dumps(self._args, sort_keys=True, default=repr).encode())
        digest.update(json.dumps(self.features.to_dict()).encode())
        lengths = np.empty(len(self), np.int64)
        for index in range(len(self)):
            episode = self.episode(index)
            lengths[index] = len(episode)
            facts = {"task": episode.task, "success": episode.success, "seed": episode.seed, "extra": episode.extra}
            digest.update(json.dumps(facts, sort_keys=True, default=repr).encode())
            for array in (episode.state, episode.action, episode.timestamps, *episode.images.values()):
                digest.update(repr(getattr(array, "shape", None)).encode())
                if isinstance(array, np.ndarray):
                    digest.update(np.ascontiguousarray(array).data)
        return lengths, digest.hexdigest()


def _has(dataset: Any, method: str) -> bool:
    """Whether the object's class has this method, and not only `Reader`'s stub of it."""
    found = getattr(type(dataset), method, None)
    return callable(found) and found is not getattr(Reader, method, None)


def _infer(episode: Episode) -> Features:
    state_dim, action_dim = episode.state.shape[1], episode.action.shape[1]
    return Features(
        state=VectorFeature.of_width(state_dim, "state") if state_dim else None,
        action=VectorFeature.of_width(action_dim, "action"),
        cameras={
            name: CameraFeature(height=frames.shape[1], width=frames.shape[2])
            for name, frames in episode.images.items()
        },
        fps=float(episode.fps),
        language=bool(episode.task),
    )


def _shape(features: Features) -> dict[str, object]:
    """What every episode of a dataset must have alike."""
    return {
        "state width": features.state_dim,
        "action width": features.action_dim,
        "fps": features.fps,
        "cameras (height, width)": {
            name: (camera.height, camera.width) for name, camera in sorted(features.cameras.items())
        },
    }


def source_of(cls: type) -> bytes:
    """The file that defines the class; its name where there is no file (a notebook)."""
    try:
        return Path(inspect.getfile(cls)).read_bytes()
    except (OSError, TypeError):
        return cls.__qualname__.encode()
