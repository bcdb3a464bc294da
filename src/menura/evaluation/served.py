"""A policy behind a server, evaluated as one that is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from menura.errors import ContractError
from menura.features import Features
from menura.serving.client import Client
from menura.session import Execution, Float32, Observation, Session


class ServedPolicy:
    """What answers at `ws://host:port`; it is asked for one row after the other.

    The server draws the randomness of a policy that samples, so that such a policy's episodes are not repeatable.
    """

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        said = self._client.metadata
        missing = [key for key in ("features", "chunk_size", "n_action_steps", "n_obs_steps") if key not in said]
        if missing:
            raise ContractError(
                f"{url}: expected of the server to say {', '.join(missing)} of its policy, got {sorted(said)}. "
                "Serve it with `menura serve`."
            )
        self.name = f"policy at {url}"
        self.features = Features.from_dict(said["features"])
        self.chunk_size: int | None = said["chunk_size"]
        self.n_action_steps: int = said["n_action_steps"]
        self.observation_offsets = tuple(range(1 - said["n_obs_steps"], 1))
        self.checkpoint_hash: str | None = said.get("checkpoint_hash")

    def session(self, batch_size: int, execution: Execution | None = None, exact: bool = False) -> Session:
        return Session(self, batch_size, execution=execution, exact=exact)

    def predict(
        self,
        obs: Observation,
        noise: torch.Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        *,
        observation_is_pad: NDArray[np.bool_] | None = None,
    ) -> Float32:
        """(B, T, A), physical units."""
        return np.stack([self._client.infer(_row(obs, row))["actions"] for row in range(len(obs["task"]))])

    def generator(self, seed: int | None) -> None:
        return None

    def reset(self) -> None:
        """Nothing: the server holds no episode."""

    def close(self) -> None:
        self._client.close()


def _row(obs: Observation, row: int) -> dict[str, Any]:
    return {
        "state": obs["state"][row],
        "images": {camera: images[row] for camera, images in obs["images"].items()},
        "task": obs["task"][row],
    }
