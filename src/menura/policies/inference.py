"""A policy together with its processor: raw observations in, checked physical actions out."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from menura.errors import ContractError, DataError, FeatureMismatch, did_you_mean
from menura.features import Features
from menura.policies.common.guidance import Guidance
from menura.policies.contract import observation
from menura.policies.needs import Needs
from menura.processing.processor import Processor
from menura.user_code import naming_users_line


class Inference:
    """The three steps of inference, each by itself: `inputs`, `infer`, `actions`.

    Args:
        policy: a `PreTrainedModel` with `select_action`.
        processor: what it was trained with; moved to the policy's device.
        dataset: whose statistics hold here, for a policy trained on several; the only one, when None.

    Attributes:
        policy, processor, device: as given; the device is the policy's.
        chunk_size: T, actions predicted; None when the policy predicts one.
        n_action_steps: how many of them are executed in open loop.
        n_obs_steps: O, observations given; `observation_offsets` are their frames relative to now.
        dataset_id: the row of the statistics that holds.
    """

    def __init__(self, policy: torch.nn.Module, processor: Processor, *, dataset: str | None = None) -> None:
        model: Any = policy  # torch's type does not know of `config` and `select_action`
        needs = Needs.of(model.config)
        self.policy = model
        self.device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
        # A policy of one dtype, such as bfloat16, is given inputs of that; one of several casts where it needs to.
        kinds = {parameter.dtype for parameter in policy.parameters() if parameter.is_floating_point()}
        self.dtype = kinds.pop() if len(kinds) == 1 else torch.float32
        self.processor = processor.to(self.device)
        self.chunk_size = needs.chunk_size
        self.n_action_steps = needs.n_action_steps
        self.n_obs_steps = needs.n_obs_steps
        self.observation_offsets = needs.observation_offsets
        self.dataset_id = dataset_row(processor.dataset_names, dataset)
        parameters = inspect.signature(model.select_action).parameters.values()
        self._accepts = {parameter.name for parameter in parameters}
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            self._accepts |= {"generator", "noise"}
        file = getattr(sys.modules.get(type(policy).__module__), "__file__", None)
        self._project = Path(file).parent.parent if file else Path.cwd()  # of `policy/x.py`, as errors name it

    @property
    def features(self) -> Features:
        """What observations and actions mean: those of the dataset chosen, where the policy learnt from several."""
        return self.processor.features_of(self.dataset_id)

    @property
    def required_cameras(self) -> tuple[str, ...]:
        """The cameras an observation must hold; no other is looked at."""
        return self.processor.required_cameras_of(self.dataset_id)

    @property
    def name(self) -> str:
        """The policy's class."""
        return type(self.policy).__name__

    def inputs(self, obs: Mapping[str, Any], observation_is_pad: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """What `select_action` is given for a raw observation (as of `Processor.prepare`).

        `obs["timestep"]` (B,), the step of each row's episode, is handed on where it is given, as a session does.
        `observation_is_pad` (B, O): which observations repeat the episode's first; none, when None.
        """
        raw = {key: value for key, value in obs.items() if key != "timestep"}
        batch = self.processor.prepare(raw, self.dataset_id)
        if not batch:
            raise FeatureMismatch(f"observation: expected what the policy reads, got {list(obs)}.")
        rows = len(next(iter(batch.values())))
        batch["dataset_id"] = torch.full((rows,), self.dataset_id)
        if "timestep" in obs:
            batch["timestep"] = torch.as_tensor(obs["timestep"], dtype=torch.int64)
        if self.n_obs_steps > 1:
            nothing = np.zeros((rows, self.n_obs_steps), np.bool_)
            batch["observation_is_pad"] = torch.from_numpy(
                nothing if observation_is_pad is None else observation_is_pad
            )
        with torch.inference_mode():
            return observation(self.processor.inputs(batch))

    def infer(
        self,
        inputs: dict[str, Any],
        noise: torch.Tensor | NDArray[np.floating[Any]] | None = None,
        generator: Sequence[torch.Generator] | None = None,
        guidance: Guidance | None = None,
    ) -> torch.Tensor:
        """(B, T, A) float32 normalized, on the device: the answer to `inputs`; T = 1 of a policy that answers (B, A).

        Args:
            inputs: of `inputs`.
            noise: what a policy that samples begins with; None draws it.
            generator: one a row, for a policy that takes them.
            guidance: what the answer is to agree with, for a policy that `guides`.

        Raises:
            ContractError: the answer has the wrong shape or is not finite, the noise has a shape that is not the
                policy's, or the policy's code raised an error, whose file and line are named.
        """
        extra: dict[str, Any] = {}
        rows = len(next(iter(inputs.values())))
        if noise is not None:
            extra["noise"] = self._noise(noise, rows)
        if generator is not None and self.samples:
            extra["generator"] = list(generator)
        if self.policy.training:
            self.policy.eval()
        if self.dtype != torch.float32:
            inputs, extra = _cast(inputs, self.dtype), _cast(extra, self.dtype)
        if guidance is not None:
            extra["guidance"] = guidance
            # Gradients of the sample are needed, which tensors of the inference mode have none of.
            inputs = {key: value.clone() if torch.is_tensor(value) else value for key, value in inputs.items()}
        with torch.inference_mode(guidance is None), torch.no_grad(), naming_users_line(self._project, ContractError):
            answer = self.policy.select_action(inputs, **extra)
        return self._checked(answer, rows).float()

    def actions(self, normalized: torch.Tensor, obs: Mapping[str, Any]) -> NDArray[np.float32]:
        """(B, T, A) float32 in physical units, from `infer`'s answer to the inputs of that raw observation.

        Raises:
            ContractError: the answer cannot be made a rotation where one is due.
        """
        try:
            physical = self.processor.actions(normalized, self.dataset_id, observation=obs)
        except DataError as problem:  # numbers that are no rotation
            raise ContractError(f"{self.name}.select_action, or the state it was given: {problem}") from problem
        answer: NDArray[np.float32] = physical.cpu().numpy()
        return answer

    @property
    def samples(self) -> bool:
        """Whether `select_action` takes a random generator for each row."""
        return "generator" in self._accepts

    @property
    def guides(self) -> bool:
        """Whether `select_action` takes `guidance`, and the policy as it is configured samples by it."""
        return "guidance" in self._accepts and bool(getattr(self.policy, "guides", True))

    def generator(self, seed: int | None) -> torch.Generator | None:
        """A random generator for one row: seeded, or fresh when None. None when the policy does not sample."""
        if not self.samples:
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

    def _noise(self, noise: torch.Tensor | NDArray[np.floating[Any]], rows: int) -> torch.Tensor:
        """The starting noise of a policy that samples, on its device."""
        where = f"{self.name}.select_action"
        if "noise" not in self._accepts:
            raise ContractError(f"{where}: expected no noise, which it does not take, got some.")
        if not isinstance(noise, (torch.Tensor, np.ndarray)):
            raise ContractError(f"{where}: expected noise as a tensor or an array, got {type(noise).__name__}.")
        shape = getattr(self.policy, "noise_shape", None)
        if shape is not None and tuple(noise.shape) != (rows, *shape):
            raise ContractError(f"{where}: expected noise of shape {(rows, *shape)}, got {tuple(noise.shape)}.")
        return torch.as_tensor(noise, dtype=torch.float32, device=self.device)

    def _checked(self, answer: Any, rows: int) -> torch.Tensor:
        where = f"{self.name}.select_action"
        width = self.processor.trained.action_dim
        if not isinstance(answer, torch.Tensor):
            raise ContractError(f"{where}: expected a tensor of actions, got {type(answer).__name__}.")
        chunk = answer[:, None] if answer.dim() == 2 else answer
        least = 1 if answer.dim() == 2 else self.n_action_steps
        if chunk.dim() != 3 or chunk.shape[0] != rows or chunk.shape[1] < least or chunk.shape[2] != width:
            chunks = "" if self.chunk_size is None else f" or ({rows}, {self.chunk_size}, {width})"
            raise ContractError(f"{where}: expected shape ({rows}, {width}){chunks}, got {tuple(answer.shape)}.")
        if not torch.isfinite(chunk).all():
            row = int((~torch.isfinite(chunk)).flatten(1).any(1).nonzero()[0])
            raise ContractError(
                f"{where}: expected finite actions, got NaN or infinity in row {row}. "
                "Look at the training loss, and at the observation."
            )
        return chunk


def _cast(values: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {
        key: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in values.items()
    }


def dataset_row(names: Sequence[str], dataset: str | None) -> int:
    """Which row of the statistics holds; FeatureMismatch names the choices."""
    if dataset is None:
        if len(names) > 1:
            raise FeatureMismatch(
                f"dataset: expected one of {list(names)}, whose statistics turn actions into physical units, got none."
            )
        return 0
    if dataset not in names:
        near = did_you_mean(dataset, names) or "."
        raise FeatureMismatch(f"dataset: expected one of {list(names)}, got {dataset!r}{near}")
    return list(names).index(dataset)
