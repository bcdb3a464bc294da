"""The policy contract: what a policy is given, what it gives back, and how it is built.

A policy is a `transformers.PreTrainedModel` with a `config_class`; its `forward` names the batch keys it wants
(section 2 of `docs/design.md`). Nothing here asks for a second base class or a registration.

Shapes: B batch, T chunk, O observation steps, K cameras, C H W image, D state, A action, F image features.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from menura.errors import ContractError
from menura.features import Features
from menura.policies.needs import Needs, fill_config
from menura.policies.sources import require_sources

__all__ = [
    "BATCH_KEYS",
    "MASKS",
    "Contract",
    "Needs",
    "build_policy",
    "check_finite",
    "complete",
    "completed",
    "fill_config",
    "loss_and_logs",
    "observation",
    "require_policy_class",
]

#: Everything a batch may hold; with `n_obs_steps` > 1 the observation keys gain a time axis O after B.
BATCH_KEYS: Mapping[str, str] = {
    "state": "(B, D) float32",
    "image": "(B, K, 3, H, W) float32, or (B, F) with an image encoder",
    "image_features": "(B, F) float32, with an image encoder",
    "task": "list of B str",
    "actions": "(B, T, A) float32, or (B, A) without chunk_size",
    "is_pad": "(B, T) bool, or (B,) without chunk_size",
    "observation_is_pad": "(B, O) bool, with n_obs_steps > 1",
    "state_mask": "(B, D) bool, with a layout: true where the row's dataset has the dimension",
    "action_mask": "(B, A) bool, with a layout",
    "image_mask": "(B, K) bool, with a layout: true where the row's dataset has the camera",
    "timestep": "(B,) int64",
    "dataset_id": "(B,) int64",
}

#: What says which part of a slot is there, in a mixture of datasets that differ -> the slot.
MASKS: Mapping[str, str] = {"state_mask": "state", "action_mask": "actions", "image_mask": "image"}
_TARGETS = ("actions", "is_pad")
_PIXEL_AXES = 5  # (B, K, 3, H, W); image features have 2, or 3 with a time axis


@dataclass(frozen=True)
class Contract:
    """What a policy's `forward` asks of a batch, read once from its signature.

    Attributes:
        policy: the class's name, for messages.
        keys: the parameters of `forward` without `self`, in order.
        required: those without a default.
        var_keyword: whether `**kwargs` receives everything else the batch holds.
    """

    policy: str
    keys: tuple[str, ...]
    required: tuple[str, ...]
    var_keyword: bool

    @classmethod
    def of(cls, policy_class: type[nn.Module]) -> Contract:
        parameters = list(inspect.signature(policy_class.forward).parameters.values())[1:]
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        return cls(
            policy=policy_class.__name__,
            keys=tuple(p.name for p in named),
            required=tuple(p.name for p in named if p.default is p.empty),
            var_keyword=any(p.kind is p.VAR_KEYWORD for p in parameters),
        )

    @property
    def uses_images(self) -> bool:
        """Whether `forward` can receive the image slot at all; if not, no camera need be decoded."""
        return self.var_keyword or "image" in self.keys or "image_features" in self.keys

    def select(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of `forward` out of a processed batch.

        Raises:
            ContractError: a required parameter is provided by nobody.
        """
        available = _with_image_slot(batch)
        missing = [name for name in self.required if name not in available]
        if missing:
            raise ContractError(self._missing(missing[0], list(available)))
        if self.var_keyword:
            return available
        return {name: available[name] for name in self.keys if name in available}

    def _missing(self, name: str, provided: list[str]) -> str:
        if name == "image_features":
            step = "Set `image_encoder:` in the task, or give the parameter a default"
        elif name in BATCH_KEYS:
            step = "Use a dataset that has it, or give the parameter a default"
        else:
            step = "Name one of these, or give the parameter a default"
        return (
            f"{self.policy}.forward: the required parameter {name!r} is provided by nobody; "
            f"expected one of {', '.join(provided)}. {step}."
        )


def _with_image_slot(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A shallow copy in which `image` and `image_features` name one slot, where that holds features."""
    available = dict(batch)
    if "image_features" in available:
        available.setdefault("image", available["image_features"])
    elif isinstance(available.get("image"), Tensor) and available["image"].ndim < _PIXEL_AXES:
        available["image_features"] = available["image"]
    return available


def observation(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The dict that `select_action` gets: the processed batch without the targets.

    With an image encoder both `image` and `image_features` are its features, the same tensor.
    """
    return {key: value for key, value in _with_image_slot(batch).items() if key not in _TARGETS}


def require_policy_class(policy_class: type) -> type[PretrainedConfig]:
    """The config class of a policy; ContractError unless it is a `PreTrainedModel` that keeps the contract's form."""
    name = policy_class.__name__
    if not issubclass(policy_class, PreTrainedModel):
        bases = ", ".join(base.__name__ for base in policy_class.__bases__)
        raise ContractError(
            f"policy {name}: expected a subclass of transformers.PreTrainedModel, got one of {bases}. "
            f"Write `class {name}(PreTrainedModel):`."
        )
    config_class = policy_class.config_class
    if not (isinstance(config_class, type) and issubclass(config_class, PretrainedConfig)):
        raise ContractError(
            f"policy {name}: expected config_class to be a subclass of transformers.PretrainedConfig, "
            f"got {config_class!r}. Write `config_class = {name}Config` in the class."
        )
    for method in ("forward", "select_action"):
        if getattr(policy_class, method, None) in (None, nn.Module.forward):
            raise ContractError(
                f"policy {name}: expected a method {method}, got none. Define `def {method}(self, …):`."
            )
    return config_class


def complete(model: PreTrainedModel) -> PreTrainedModel:
    """Do what a forgotten `self.post_init()` would have done, and keep the weights the class gave itself.

    Without it transformers (5.x) saves a model but cannot load it back. The weights are kept because `post_init`
    would draw them anew, pretrained ones included, which the class did not ask for.
    """
    if hasattr(model, "all_tied_weights_keys"):
        return model
    if not any(parameter.is_meta for parameter in model.parameters()):
        for module in model.modules():
            module._is_hf_initialized = True  # type: ignore[assignment]  # transformers' own mark: do not draw again
    model.post_init()
    return model


def completed(policy_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The same class, its `__init__` finished by `complete`, so that `from_pretrained` works too."""
    original = policy_class.__init__
    if "__init__" in vars(policy_class) and getattr(original, "completes", False):
        return policy_class

    @functools.wraps(original)
    def __init__(self: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self) is policy_class:
            complete(self)

    __init__.completes = True  # type: ignore[attr-defined]
    policy_class.__init__ = __init__  # type: ignore[method-assign]
    return policy_class


def build_policy(
    policy_class: type[PreTrainedModel],
    args: Mapping[str, Any],
    features: Features | None = None,
    *,
    image_encoder_dim: int | None = None,
    locate: Callable[[str], str] | None = None,
) -> PreTrainedModel:
    """A policy of that class for data with those features, ready to train.

    Args:
        policy_class: a policy as the contract says.
        args: what the user gave under `policy.args`.
        features: of the data; None fills nothing in.
        image_encoder_dim: `feature_dim` of the task's image encoder, where there is one.
        locate: `"policy.args.x"` -> `"file:line"`, for messages.

    Raises:
        ContractError: the class does not keep the contract.
        ConfigError: unknown or contradicting arguments, all of them at once; or a Hub that cannot be reached.
    """
    config_class = require_policy_class(policy_class)
    config = fill_config(config_class, args, features, image_encoder_dim=image_encoder_dim, locate=locate)
    require_sources(config, locate)
    return completed(policy_class)(config)


def loss_and_logs(output: Any, policy: str = "policy") -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a training step, and every other scalar in the output, detached and still on the device.

    Args:
        output: what `forward(..., actions=…)` returned: a dict or a `ModelOutput` with `loss`.
        policy: a name for messages.

    Raises:
        ContractError: there is no scalar `loss` that can be differentiated.
    """
    if not isinstance(output, Mapping):
        raise ContractError(
            f"{policy}.forward in training: expected a dict with 'loss', got {_describe(output)}. "
            "Return {'loss': loss} when `actions` is given."
        )
    if "loss" not in output:
        raise ContractError(
            f"{policy}.forward in training: expected a dict with 'loss', got the keys {sorted(output)}. "
            "Return {'loss': loss} when `actions` is given."
        )
    loss = output["loss"]
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ContractError(
            f"{policy}.forward in training: expected 'loss' to be a scalar tensor, got {_describe(loss)}. "
            "Reduce it, for example with .mean()."
        )
    logs: dict[str, Tensor] = {}
    for name, value in output.items():
        if name == "loss" or isinstance(value, bool):
            continue
        if isinstance(value, (int, float)):
            logs[name] = torch.tensor(float(value))
        elif isinstance(value, Tensor) and value.numel() == 1:
            logs[name] = value.detach().reshape(())
    return loss.reshape(()), logs


def check_finite(loss: Tensor, logs: Mapping[str, Tensor], policy: str = "policy") -> dict[str, float]:
    """The loss and the logs as floats (this waits for the device); ContractError when the loss is not finite."""
    values = {name: float(value) for name, value in logs.items()}
    value = float(loss.detach())
    if not torch.isfinite(loss.detach()):
        parts = ", ".join(f"{name} = {part:.4g}" for name, part in values.items())
        raise ContractError(
            f"{policy}.forward in training: expected a finite loss, got {value}"
            + (f" ({parts})" if parts else "")
            + ". Lower the learning rate, or look for a division by zero or a log of zero in the loss."
        )
    return {"loss": value, **values}


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__}"
