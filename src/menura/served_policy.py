"""A policy behind a server, asked as one that is here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from menura.errors import ContractError
from menura.features import Features
from menura.serving.client import Client
from menura.session import Execution, Float32, Observation, Session

API_KEY = "MENURA_API_KEY"
_FACTS = ("features", "chunk_size", "n_action_steps", "n_obs_steps", "observation_offsets", "required_cameras")


class ServedPolicy:
    """What answers at `ws://host:port`: `predict` and `session` as of `MetaPolicy`, which see.

    It is asked for one row after the other. The server draws the randomness of a policy that samples, so that such a
    policy's episodes are not repeatable.

    Args:
        url: of the server (`menura serve`).
        api_key: which it asks for; that of the environment variable MENURA_API_KEY, when None.

    Raises:
        ServerError: nobody answers there, or the key is refused.
        ContractError: the server does not say what is needed of its policy.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._client = Client(url, api_key=os.environ.get(API_KEY) if api_key is None else api_key)
        said = self._client.metadata
        missing = [key for key in _FACTS if key not in said]
        if missing:
            self.close()
            raise ContractError(
                f"{url}: expected of the server to say {', '.join(missing)} of its policy, got {sorted(said)}. "
                "Serve it with `menura serve`."
            )
        self.name = f"policy at {url}"
        self.features = Features.from_dict(said["features"])
        self.chunk_size: int | None = said["chunk_size"]
        self.n_action_steps: int = said["n_action_steps"]
        self.n_obs_steps: int = said["n_obs_steps"]
        self.observation_offsets: tuple[int, ...] = tuple(said["observation_offsets"])
        self.required_cameras: tuple[str, ...] = tuple(said["required_cameras"])
        self.checkpoint_hash: str | None = said.get("checkpoint_hash")

    def session(
        self,
        batch_size: int = 1,
        seeds: Sequence[int] | None = None,
        execution: Execution | None = None,
        exact: bool = False,
    ) -> Session:
        """Begin `batch_size` episodes."""
        return Session(self, batch_size, seeds, execution, exact)

    def predict(
        self,
        obs: Observation,
        noise: torch.Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        *,
        observation_is_pad: NDArray[np.bool_] | None = None,
    ) -> Float32:
        """(B, T, A) float32, physical units."""
        if noise is not None or generator is not None:
            raise ContractError(f"{self.name}: expected no noise and no generator, which the server draws, got some.")
        parts = dict(obs) if observation_is_pad is None else {**obs, "observation_is_pad": observation_is_pad}
        return np.stack([self._client.infer(_row(parts, row))["actions"] for row in range(_rows(parts))])

    def generator(self, seed: int | None) -> None:
        """None: the server draws."""

    def reset(self) -> None:
        """Nothing: the server holds no episode."""

    def close(self) -> None:
        """Hang up."""
        self._client.close()


def _rows(obs: Observation) -> int:
    values = [*obs.get("images", {}).values(), *(value for key, value in obs.items() if key != "images")]
    return next((len(value) for value in values if not isinstance(value, str)), 1)


def _row(obs: Observation, row: int) -> dict[str, Any]:
    """One row of an observation, without the batch axis; a text is every row's."""
    picked = {key: value if isinstance(value, str) else value[row] for key, value in obs.items() if key != "images"}
    return picked | {"images": {camera: images[row] for camera, images in obs.get("images", {}).items()}}
