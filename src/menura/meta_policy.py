"""A policy as the world sees it: raw observations in, physical actions out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from menura.blending import blended, checked, padded
from menura.checkpoint import load_checkpoint
from menura.chunks import PreviousChunk
from menura.conversion import is_foreign, load_foreign
from menura.conversion.converting import fingerprint
from menura.errors import ContractError
from menura.policies.common.guidance import Guidance
from menura.policies.inference import Inference, dataset_row
from menura.processing.processor import CONFIG_FILE, Processor, read_settings
from menura.served_policy import ServedPolicy
from menura.serving.client import is_address
from menura.session import Execution, Float32, Observation, OpenLoop, Session, TemporalEnsemble

__all__ = ["Execution", "MetaPolicy", "OpenLoop", "ServedPolicy", "Session", "TemporalEnsemble"]


class MetaPolicy(Inference):
    """Policy, processor and device. Holds no episode, so that any number of sessions may share it.

    Simulation, server and robot use this one class.

    Args:
        policy, processor, dataset: as of `Inference`.
        checkpoint_hash: of the checkpoint it comes from; None while it is being trained.
    """

    def __init__(
        self,
        policy: torch.nn.Module,
        processor: Processor,
        *,
        dataset: str | None = None,
        checkpoint_hash: str | None = None,
    ) -> None:
        super().__init__(policy, processor, dataset=dataset)
        self.checkpoint_hash = checkpoint_hash

    @overload
    @classmethod
    def from_pretrained(
        cls,
        path_or_url: Path,
        *,
        device: str | torch.device | None = None,
        dataset: str | None = None,
        verify: bool = True,
        trust_remote_code: bool = False,
        project: Path | None = None,
        api_key: str | None = None,
    ) -> MetaPolicy: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        path_or_url: str,
        *,
        device: str | torch.device | None = None,
        dataset: str | None = None,
        verify: bool = True,
        trust_remote_code: bool = False,
        project: Path | None = None,
        api_key: str | None = None,
    ) -> MetaPolicy | ServedPolicy: ...

    @classmethod
    def from_pretrained(
        cls,
        path_or_url: str | Path,
        *,
        device: str | torch.device | None = None,
        dataset: str | None = None,
        verify: bool = True,
        trust_remote_code: bool = False,
        project: Path | None = None,
        api_key: str | None = None,
    ) -> MetaPolicy | ServedPolicy:
        """The policy of a checkpoint or a run; or a `ServedPolicy`, for the address of a server.

        Args:
            path_or_url: a directory that `save_checkpoint` wrote, or a checkpoint of another program that `menura
                convert` reads; or `ws://host:port`, of a server that has chosen its device and dataset itself.
            device: where it runs; when None, on the accelerator where there is one.
            dataset: as of `Inference`.
            verify: check that it still answers what it answered when it was saved.
            trust_remote_code: allow code stored in the checkpoint to run when it is not in the project.
            project: where the policy's class is looked for; the working directory, when None.
            api_key: of a server; that of the environment variable MENURA_API_KEY, when None.
        """
        if isinstance(path_or_url, str) and is_address(path_or_url):
            if device is not None or dataset is not None:
                raise ContractError(
                    f"{path_or_url}: expected neither device nor dataset, which its server chose, got "
                    f"device={device}, dataset={dataset}. Give them to `menura serve`."
                )
            return ServedPolicy(path_or_url, api_key)
        if (Path(path_or_url) / CONFIG_FILE).is_file():  # else `load_checkpoint` says what is missing
            dataset_row(read_settings(path_or_url).dataset_names, dataset)  # refused before the weights are read
        if device is None and torch.accelerator.is_available():
            device = torch.accelerator.current_accelerator()
        if is_foreign(path_or_url):
            foreign = load_foreign(path_or_url, device=device or "cpu")
            return cls(foreign.policy, foreign.processor, dataset=dataset, checkpoint_hash=fingerprint(foreign))
        checkpoint = load_checkpoint(
            path_or_url,
            device=device or "cpu",
            verify=verify,
            trust_remote_code=trust_remote_code,
            project=project,
        )
        return cls(checkpoint.policy, checkpoint.processor, dataset=dataset, checkpoint_hash=checkpoint.hash)

    def session(
        self,
        batch_size: int = 1,
        seeds: Sequence[int] | None = None,
        execution: Execution | None = None,
        exact: bool = False,
    ) -> Session:
        """Begin `batch_size` episodes.

        Args:
            batch_size: how many run side by side.
            seeds: one per row, for policies that sample.
            execution: `OpenLoop()` (when None) or `TemporalEnsemble(coefficient)`.
            exact: infer row by row, so that a row's actions do not depend on the batch even in the last bit.
        """
        return Session(self, batch_size, seeds, execution, exact)

    def predict(
        self,
        obs: Observation,
        noise: torch.Tensor | NDArray[np.floating[Any]] | None = None,
        generator: Sequence[torch.Generator] | None = None,
        *,
        observation_is_pad: NDArray[np.bool_] | None = None,
        previous: Sequence[PreviousChunk | None] | None = None,
    ) -> Float32:
        """(B, T, A) float32, physical units; T = 1 from a policy that answers one action. Stateless.

        Args:
            obs: {"state": (B, D), "images": {camera: (B, H, W, 3) uint8, or float in [0, 1]}, "task": [text] * B}, with
                a time axis after B when `n_obs_steps` > 1.
            noise: (B, *policy.noise_shape), what a policy that samples begins with; None draws it.
            generator: handed to a policy whose `select_action` takes it; one per row.
            observation_is_pad: (B, O) which observations repeat the episode's first; none, when None.
            previous: one a row, the chunk under way that the answer is to agree with (real-time chunking), or None:
                such a row is answered as without it. A policy that `guides` samples by it; what others answer is
                blended with it.

        Raises:
            FeatureMismatch: the observation is not what the policy was trained on, or a previous chunk has the wrong
                width.
            ContractError: the noise or the policy's answer has the wrong shape or is not finite, or the policy's own
                code raised an error, whose line is named.
        """
        inputs = self.inputs(obs, observation_is_pad)
        if previous is not None:
            previous = checked(previous, rows=len(next(iter(inputs.values()))), action_dim=self.features.action_dim)
        if previous is None or not any(previous):
            return self.actions(self.infer(inputs, noise, generator), obs)
        if not self.guides:
            return blended(self.actions(self.infer(inputs, noise, generator), obs), previous, self.features.action)
        return self.actions(self._guided(inputs, noise, generator, previous, obs), obs)

    def _guided(
        self,
        inputs: dict[str, Any],
        noise: torch.Tensor | NDArray[np.floating[Any]] | None,
        generator: Sequence[torch.Generator] | None,
        previous: Sequence[PreviousChunk | None],
        obs: Observation,
    ) -> torch.Tensor:
        """(B, T, A) normalized; rows without a previous chunk are inferred by themselves, as without guidance."""
        answers: list[torch.Tensor | None] = [None] * len(previous)
        for with_chunk in (True, False):
            rows = [row for row, chunk in enumerate(previous) if bool(chunk) is with_chunk]
            if not rows:
                continue
            answer = self.infer(
                {key: _rows_of(value, rows) for key, value in inputs.items()},
                None if noise is None else noise[rows],
                None if generator is None else [generator[row] for row in rows],
                self._guidance(previous, rows, obs) if with_chunk else None,
            )
            for row, chunk in zip(rows, answer, strict=True):
                answers[row] = chunk
        return torch.stack([answer for answer in answers if answer is not None])

    def _guidance(self, previous: Sequence[PreviousChunk | None], rows: list[int], obs: Observation) -> Guidance:
        """What the answers to `rows`, each of which has a previous chunk, are to agree with."""
        length = self.chunk_size or 1
        chunks = [chunk for row in rows if (chunk := previous[row]) is not None]
        of_rows = {"state": np.asarray(obs["state"])[rows]} if "state" in obs else {}
        target = self.processor.encode_actions(
            np.stack([padded(chunk, length) for chunk in chunks]), self.dataset_id, observation=of_rows
        )
        weights = np.stack([chunk.weights(length) for chunk in chunks])
        return Guidance(target, torch.from_numpy(weights).to(target.device))


def _rows_of(value: Any, rows: list[int]) -> Any:
    return value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
