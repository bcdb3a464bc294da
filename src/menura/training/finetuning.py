"""What `training:` says of fine-tuning, done to a policy before it trains: weights to begin with, bits, adapters,
what is frozen, and how fast each part learns."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from menura.checkpoint.adapters import compute_alike, insert_adapters
from menura.checkpoint.start import Start
from menura.config import ResolvedTask
from menura.errors import ConfigError, did_you_mean
from menura.features import Features
from menura.policies.contract import completed
from menura.policies.quiet import no_progress_bars
from menura.training.init_from import begin_from

ALL_LINEAR = "all-linear"
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fit_out(task: ResolvedTask, policy: PreTrainedModel, trained: Features) -> tuple[PreTrainedModel, Start | None]:
    """A policy that was just made, as `training:` wants it to begin, and where its weights are from.

    Args:
        task: of which `init_from`, `quantization`, `peft` and `freeze` are read.
        policy: another one may come back, with the same config.
        trained: what the policy's state and actions mean.

    Raises:
        ConfigError: a pattern or a name matches nothing, or what was asked for does not go with this policy.
        CheckpointError: what it is to begin from cannot be read.
    """
    training = task.config.training
    start = None
    if given := training.get("init_from"):
        start = begin_from(task, policy, given, trained)
    learning = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    if given := training.get("quantization"):
        policy = quantized(policy, given, task.locate("training.quantization"))
    if given := training.get("peft"):
        add_adapters(policy, given, learning, task.locate("training.peft"))
    if patterns := training.get("freeze"):
        freeze(policy, patterns, task.locate("training.freeze"))
    if rates := training.get("learning_rates"):
        for pattern in rates:
            require_match(
                policy, pattern, f"training.learning_rates: {pattern}", task.locate("training.learning_rates")
            )
    return policy, start


# ---- adapters ----


def add_adapters(policy: PreTrainedModel, given: Mapping[str, Any], learning: Collection[str], where: str) -> None:
    """Put fresh LoRA or DoRA adapters into a policy and freeze all else but `modules_to_save`.

    `target_modules: all-linear`, the default, is every `nn.Linear` that is called as a module and learns without
    adapters (what the policy freezes itself stays as it is). Of an `nn.MultiheadAttention` none is called, so that an
    adapter would silently be without effect.

    Args:
        policy: changed in place.
        given: `training.peft`.
        learning: names of the parameters that learn without adapters.
        where: for messages.
    """
    from peft import LoraConfig

    fields: dict[str, Any] = {"target_modules": ALL_LINEAR, **{k: v for k, v in given.items() if k != "type"}}
    _require_modules(policy, fields, where)
    if fields["target_modules"] == ALL_LINEAR:
        left_out = fields.get("modules_to_save") or ()
        fields["target_modules"] = [name for name in linear_layers(policy, left_out) if f"{name}.weight" in learning]
        if not (fields["target_modules"] or fields.get("target_parameters")):
            raise ConfigError(
                f"training.peft.target_modules: expected linear layers that learn in {type(policy).__name__}, got "
                f"none. Name the modules that are to have adapters ({where})"
            )
    try:
        insert_adapters(policy, LoraConfig(**fields))
    except (ValueError, TypeError, KeyError, ImportError, NotImplementedError) as problem:
        raise ConfigError(f"training.peft: peft refuses it: {problem} ({where})") from problem
    keep_in_evaluation(policy)


def linear_layers(policy: nn.Module, leave_out: Iterable[str] = ()) -> list[str]:
    """The names of the linear layers that are called; without those below a module whose name ends in `leave_out`."""
    attentions = tuple(
        f"{name}." for name, module in policy.named_modules() if isinstance(module, nn.MultiheadAttention)
    )
    return [
        name
        for name, module in policy.named_modules()
        if isinstance(module, nn.Linear)
        and not name.startswith(attentions)
        and not any(f".{part}." in f".{name}." for part in leave_out)
    ]


def _require_modules(policy: nn.Module, fields: Mapping[str, Any], where: str) -> None:
    """Every name that is given names a module, and none that peft would silently do without or change."""
    modules = dict(policy.named_modules())
    for key in ("target_modules", "modules_to_save"):
        names = fields.get(key) or ()
        for name in names if not isinstance(names, str) else ():
            found = [module for path, module in modules.items() if path == name or path.endswith(f".{name}")]
            if not found:
                parts = sorted({part for path in modules for part in (path, path.rpartition(".")[2]) if part})
                raise ConfigError(
                    f"training.peft.{key}: expected names of modules of {type(policy).__name__}, got {name!r}"
                    f"{did_you_mean(name, parts) or '.'} ({where})"
                )
            if key == "target_modules" and any(isinstance(module, nn.MultiheadAttention) for module in found):
                raise ConfigError(
                    f"training.peft.target_modules: expected no torch.nn.MultiheadAttention, in which peft merges and "
                    f"takes out adapters at every step, so that the frozen weights drift, got {name!r}. Name its "
                    f"in_proj_weight under target_parameters instead ({where})"
                )


# ---- bits ----


def quantized(policy: PreTrainedModel, given: Mapping[str, Any], where: str) -> PreTrainedModel:
    """The same policy with its linear layers in 4 or 8 bits, as `transformers.BitsAndBytesConfig` says."""
    from transformers import BitsAndBytesConfig

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    weights: Any = policy.state_dict()
    try:
        with no_progress_bars():
            made: PreTrainedModel = completed(type(policy)).from_pretrained(
                None,
                config=policy.config,
                state_dict=weights,
                quantization_config=BitsAndBytesConfig(**given),
                dtype=torch.float32,
                device_map={"": device},
            )
    except (ImportError, ValueError, TypeError, AttributeError) as problem:
        raise ConfigError(f"training.quantization: transformers refuses it: {problem} ({where})") from problem
    compute_alike(made)
    return made


# ---- what learns, and how fast ----


def freeze(policy: nn.Module, patterns: Sequence[str], where: str) -> None:
    """Let the parameters that match stay as they are. Batch norms all of whose parameters do keep their statistics."""
    for pattern in patterns:
        for parameter in require_match(policy, pattern, f"training.freeze: {pattern}", where):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise ConfigError(f"training.freeze: expected to leave something that learns, got {list(patterns)} ({where})")
    keep_in_evaluation(policy)


def require_match(policy: nn.Module, pattern: str, what: str, where: str) -> list[nn.Parameter]:
    """The parameters whose names match (`fnmatch`: `*` is anything, dots too); ConfigError when none does."""
    named = dict(policy.named_parameters())
    found = [parameter for name, parameter in named.items() if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        parts = {".".join(name.split(".")[:depth]) for name in named for depth in range(1, name.count(".") + 2)}
        near = did_you_mean(pattern.removesuffix("*").removesuffix("."), sorted(parts))
        listed = sorted({name.split(".")[0] for name in named})
        raise ConfigError(
            f"{what}: expected a pattern of parameter names of {type(policy).__name__}, got one that matches none"
            f"{near or '.'} They begin with {', '.join(listed)} ({where})"
        )
    return found


def keep_in_evaluation(policy: nn.Module) -> None:
    """Batch norms all of whose parameters are frozen normalize by the statistics they have, in training too."""
    for module in policy.modules():
        parameters = list(module.parameters())
        if isinstance(module, _NORMS) and parameters and not any(each.requires_grad for each in parameters):
            module.register_forward_pre_hook(_in_evaluation)


def _in_evaluation(module: nn.Module, _: Any) -> None:
    if module.training:
        module.eval()


def with_rates(
    policy: nn.Module, groups: Sequence[Mapping[str, Any]], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Parameter groups split by `training.learning_rates`: the first pattern that matches decides, before what the
    policy's own groups say; weight decay stays theirs. Frozen parameters are left out, and so are empty groups.

    Each group made of a pattern holds it as `pattern`.
    """
    pattern_of = {
        id(parameter): next((pattern for pattern in rates if fnmatch.fnmatchcase(name, pattern)), None)
        for name, parameter in policy.named_parameters()
    }
    split: list[dict[str, Any]] = []
    for group in groups:
        learning = [parameter for parameter in group["params"] if parameter.requires_grad]
        for pattern in (None, *rates):
            parameters = [parameter for parameter in learning if pattern_of.get(id(parameter)) == pattern]
            if parameters:
                own = {} if pattern is None else {"lr": float(rates[pattern]), "pattern": pattern}
                split.append({**group, **own, "params": parameters})
    return sorted(split, key=lambda group: "pattern" in group)  # the logged learning rate is the first group's


def learning_summary(policy: nn.Module) -> str:
    """`12,345 of 67,890 parameters learn`; empty when all do."""
    total = sum(parameter.numel() for parameter in policy.parameters())
    learning = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    return "" if learning == total else f"{learning:,} of {total:,} parameters learn ({learning / total:.1%})"
