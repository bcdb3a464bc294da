"""A policy as the world sees it: raw observations in, physical actions out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from menura.errors import ContractError, FeatureMismatch, did_you_mean
from menura.features import Features
from menura.policies.contract import observation
from menura.policies.needs import Needs
from menura.processing.processor import Processor
from menura.session import Execution, Float32, Observation, OpenLoop, Session, TemporalEnsemble

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Execution", "MetaPolicy", "OpenLoop", "Session", "TemporalEnsemble"]


class MetaPolicy:
    """Policy, processor and device. Holds no episode, so that any number of sessions may share it.

    Simulation, server and robot use this one class.

    Args:
        policy: as `docs/design.md` section 2 says.
        processor: what it was trained with.
        dataset: whose statistics hold here, for a policy trained on several; the only one, when None.
        checkpoint_hash: of the checkpoint it comes from; None while it is being trained.

    Attributes:
        policy, processor, device: as given; the device is the policy's.
        chunk_size: T, actions predicted; None when the policy predicts one.
        n_action_steps: how many of them are executed in open loop.
        n_obs_steps: O, observations given; `observation_offsets` are their frames relative to now.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        processor: Processor,
        *,
        dataset: str | None = None,
        checkpoint_hash: str | None = None,
    ) -> None:
        needs = Needs.of(policy.config)
        self.policy: Any = policy  # its type does not know of select_action
        self.device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
        self.processor = processor.to(self.device)
        self.checkpoint_hash = checkpoint_hash
        self.chunk_size = needs.chunk_size
        self.n_action_steps = needs.n_action_steps
        self.n_obs_steps = needs.n_obs_steps
        self.observation_offsets = needs.observation_offsets
        self.dataset_id = _dataset_id(processor.dataset_names, dataset)
        parameters = inspect.signature(self.policy.select_action).parameters.values()
        accepted = {parameter.name for parameter in parameters}
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        self._takes_generator = takes_all or "generator" in accepted
        self._takes_noise = takes_all or "noise" in accepted

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
    ) -> MetaPolicy:
        """The policy of a checkpoint or a run, or the one behind a server (`ws://host:port`).

        Args:
            path_or_url: a directory that `save_checkpoint` wrote, or a server's address.
            device: where it runs; the accelerator when there is one, when None.
            dataset: as of the class.
            verify: check that it still answers what it answered when it was saved.
            trust_remote_code: allow code stored in the checkpoint to run when it is not in the project.
            project: where the policy's class is looked for; the working directory, when None.
        """
        from menura.checkpoint import load_checkpoint

        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        checkpoint = load_checkpoint(
            path_or_url, device=chosen, verify=verify, trust_remote_code=trust_remote_code, project=project
        )
        return cls(checkpoint.policy, checkpoint.processor, dataset=dataset, checkpoint_hash=checkpoint.hash)

    @property
    def features(self) -> Features:
        """What observations and actions mean."""
        return self.processor.features

    @property
    def name(self) -> str:
        """The policy's class."""
        return type(self.policy).__name__

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
        noise: torch.Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
        *,
        observation_is_pad: NDArray[np.bool_] | None = None,
    ) -> Float32:
        """(B, T, A) float32, physical units; T = 1 from a policy that answers one action. Stateless.

        Args:
            obs: {"state": (B, D), "images": {camera: (B, H, W, 3) uint8, or float in [0, 1]}, "task": [text] * B}, with
                a time axis after B when `n_obs_steps` > 1.
            noise, generator: handed to a policy whose `select_action` takes them; one generator per row.
            observation_is_pad: (B, O) which observations repeat the episode's first; none, when None.

        Raises:
            FeatureMismatch: the observation is not what the policy was trained on.
            ContractError: the policy's answer has the wrong shape or is not finite.
        """
        normalized = self.infer(self.inputs(obs, observation_is_pad), noise, generator)
        actions: Float32 = self.processor.actions(normalized, self.dataset_id).cpu().numpy()
        return actions

    def inputs(self, obs: Observation, observation_is_pad: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """What `select_action` is given for a raw observation."""
        batch = self.processor.prepare(obs)
        if not batch:
            raise FeatureMismatch(f"observation: expected what the policy reads, got {list(obs)}.")
        rows = len(next(iter(batch.values())))
        batch["dataset_id"] = torch.full((rows,), self.dataset_id)
        if self.n_obs_steps > 1:
            shape = (rows, self.n_obs_steps)
            is_pad = np.zeros(shape, np.bool_) if observation_is_pad is None else observation_is_pad
            batch["observation_is_pad"] = torch.from_numpy(is_pad)
        with torch.inference_mode():
            return observation(self.processor.inputs(batch))

    def infer(
        self,
        inputs: dict[str, Any],
        noise: torch.Tensor | None = None,
        generator: Sequence[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """(B, T, A) normalized, on the device: the policy's checked answer to `inputs`."""
        extra: dict[str, Any] = {}
        if noise is not None:
            if not self._takes_noise:
                raise ContractError(f"{self.name}.select_action takes no noise: expected None, got noise.")
            extra["noise"] = noise.to(self.device)
        if generator is not None and self._takes_generator:
            extra["generator"] = list(generator)
        if self.policy.training:
            self.policy.eval()
        rows = len(next(iter(inputs.values())))
        with torch.inference_mode():
            answer = self.policy.select_action(inputs, **extra)
        return self._checked(answer, rows)

    def generator(self, seed: int | None) -> torch.Generator | None:
        """A random generator for one row: seeded, or fresh when None. None when the policy does not sample."""
        if not self._takes_generator:
            return None
        generator = torch.Generator(self.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        return generator

    def reset(self) -> None:
        """Call the policy's own `reset()`, where it has one."""
        reset = getattr(self.policy, "reset", None)
        if callable(reset):
            reset()

    def _checked(self, answer: Any, rows: int) -> torch.Tensor:
        where = f"{self.name}.select_action"
        width = self.features.action_dim
        if not isinstance(answer, torch.Tensor):
            raise ContractError(f"{where}: expected a tensor of actions, got {type(answer).__name__}.")
        chunk = answer[:, None] if answer.dim() == 2 else answer
        least = 1 if answer.dim() == 2 else self.n_action_steps
        if chunk.dim() != 3 or chunk.shape[0] != rows or chunk.shape[1] < least or chunk.shape[2] != width:
            steps = "" if self.chunk_size is None else f" or ({rows}, {self.chunk_size}, {width})"
            raise ContractError(f"{where}: expected shape ({rows}, {width}){steps}, got {tuple(answer.shape)}.")
        if not torch.isfinite(chunk).all():
            row = int((~torch.isfinite(chunk)).flatten(1).any(1).nonzero()[0])
            raise ContractError(
                f"{where}: expected finite actions, got NaN or infinity in row {row}. "
                "Look at the training loss, and at the observation."
            )
        return chunk


def _dataset_id(names: Sequence[str], dataset: str | None) -> int:
    """Which row of the statistics holds."""
    if dataset is None:
        if len(names) > 1:
            raise FeatureMismatch(
                f"dataset: expected one of {list(names)}, whose statistics turn actions into physical units, got none."
            )
        return 0
    if dataset not in names:
        raise FeatureMismatch(f"dataset: expected one of {list(names)}, got {dataset!r}{did_you_mean(dataset, names)}.")
    return list(names).index(dataset)
