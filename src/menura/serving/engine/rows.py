"""Rows of a batch: the observations of several clients, computed together as each would be alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from menura.chunks import PreviousChunk
from menura.errors import DataError, FeatureMismatch, MenuraError
from menura.meta_policy import MetaPolicy
from menura.serving.engine.arrays import Float32
from menura.serving.engine.errors import PolicyFailed, RequestRefused, ServingError
from menura.serving.engine.sessions import form_of

_log = logging.getLogger("menura.serving")


@dataclass(frozen=True, eq=False)
class Row:
    """One request, ready to be computed.

    Attributes:
        views: what the policy looks at, oldest first; a single one has its time axis already, where it needs one.
        observation_is_pad: (O,) which views repeat the episode's first.
        timestep: the step of the episode.
        generator: the session's own.
        previous: the chunk under way.
    """

    views: tuple[Mapping[str, Any], ...]
    observation_is_pad: NDArray[np.bool_] | None = None
    timestep: int | None = None
    generator: torch.Generator | None = None
    previous: PreviousChunk | None = None

    @property
    def form(self) -> tuple[object, ...]:
        """Rows of equal form can be computed together."""
        optional = (self.observation_is_pad, self.timestep, self.generator, self.previous)
        return (form_of(self.views[-1]), len(self.views), *(part is None for part in optional))


def predict_rows(meta: MetaPolicy, rows: Sequence[Row]) -> list[Float32 | ServingError]:
    """For each of the rows, which have one form, its actions (T, A), or why there are none.

    Where a batch fails, each row is computed alone, from the random state it had: no row suffers from another.
    """
    generators = [row.generator for row in rows if row.generator is not None]
    states = [generator.get_state() for generator in generators] if len(rows) > 1 else []
    try:
        actions = _predict(meta, rows, generators)
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a policy does ends a request, never the server
        if len(rows) == 1:
            return [failure(meta, error)]
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        return [predict_rows(meta, [row])[0] for row in rows]
    return [row if np.isfinite(row).all() else _not_finite(meta) for row in actions]


def _predict(meta: MetaPolicy, rows: Sequence[Row], generators: list[torch.Generator]) -> Float32:
    """(B, T, A)."""
    extra: dict[str, Any] = {}
    if rows[0].observation_is_pad is not None:
        extra["observation_is_pad"] = np.array([row.observation_is_pad for row in rows])
    if rows[0].previous is not None:
        extra["previous"] = [row.previous for row in rows]
    return meta.predict(_batch(rows), generator=generators or None, **extra)


def _batch(rows: Sequence[Row]) -> dict[str, Any]:
    """{"state": (B, [O,] D), "images": {camera: (B, [O,] H, W, 3)}, "task": [text] * B, "timestep": (B,)}."""

    def stacked(get: Any) -> NDArray[Any]:
        of_rows = [[get(view) for view in row.views] for row in rows]
        return _stack([arrays[0] if len(arrays) == 1 else np.stack(arrays) for arrays in of_rows])

    newest = rows[0].views[-1]
    batch: dict[str, Any] = {
        "images": {
            camera: stacked(lambda view, camera=camera: view["images"][camera]) for camera in newest.get("images", {})
        }
    }
    if "state" in newest:
        batch["state"] = stacked(lambda view: view["state"])
    if "task" in newest:
        batch["task"] = [row.views[-1]["task"] for row in rows]
    if rows[0].timestep is not None:
        batch["timestep"] = np.array([row.timestep for row in rows])
    return batch


def _stack(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """`np.stack`, which takes ten times as long for a single one."""
    return np.array(arrays[0])[None] if len(arrays) == 1 else np.stack(arrays)


def failure(meta: MetaPolicy, error: BaseException) -> ServingError:
    """What a client is told of an error that asking the policy raised."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, (FeatureMismatch, DataError)):
        return RequestRefused(str(error))
    if isinstance(error, MenuraError):
        return PolicyFailed(str(error))
    _log.error("%s raised an error", meta.name, exc_info=error)
    return PolicyFailed(
        f"{meta.name}: expected actions, got {type(error).__name__}: {error}. The server's log says where."
    )


def _not_finite(meta: MetaPolicy) -> PolicyFailed:
    return PolicyFailed(f"{meta.name}: expected finite actions, got NaN or infinity in physical units.")
