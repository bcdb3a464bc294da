"""Adapters (LoRA and DoRA by `peft`) in a policy: saved beside their base, loaded, merged.

They are put into the policy's own modules, so that the policy keeps its class, its `forward` and its `select_action`.
A checkpoint with adapters holds `adapter_config.json` and `adapter_model.safetensors` in the layout of `peft`, and
`base/`, the policy they were trained on in the layout of `transformers`; where that is one whole checkpoint which
training began with (`init_from.json`), its place and its hash instead.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from menura.checkpoint.start import Start
from menura.errors import CheckpointError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
BASE = "base"
_PEFT_PREFIX = "base_model.model."


def has_adapters(policy: nn.Module) -> bool:
    return bool(getattr(policy, "_hf_peft_config_loaded", False))


def save_adapters(policy: PreTrainedModel, directory: Path, start: Start | None = None) -> None:
    """Write adapters, the policy's config and, unless `start` holds all of it, the base."""
    model: Any = policy
    base_is_source = start is not None and not is_quantized(policy) and _holds(start, base_weights(policy))
    policy.save_pretrained(directory)
    policy.config.save_pretrained(directory)
    if base_is_source and start is not None:
        (adapter_config,) = model.peft_config.values()
        replace(adapter_config, base_model_name_or_path=start.directory).save_pretrained(directory)
        return
    base = directory / BASE
    base.mkdir()
    for file in directory.iterdir():  # the config, a tokenizer
        if file.is_file() and file.name not in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(file, base / file.name)
    weights = {name: value.contiguous() for name, value in base_weights(policy).items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def _holds(start: Start, base: dict[str, Tensor]) -> bool:
    """Whether its files hold all of the base as it is now: a policy may have buffers that training moves."""
    if not start.whole:
        return False
    stored: dict[str, Tensor] = {}
    for file in start.files:
        stored |= load_file(Path(start.directory) / file)
    return all(name in stored and torch.equal(stored[name].to(value), value) for name, value in base.items())


def base_directory(directory: Path) -> Path:
    """Where the weights lie that a checkpoint's adapters were trained on; itself, when it has no adapters."""
    if not (directory / CONFIG_FILE).is_file():
        return directory
    if (base := directory / BASE).is_dir():
        return base
    start = Start.read(directory)
    if start is None:
        raise CheckpointError(f"{directory}: expected {BASE}/ beside its adapters, got none. Copy the whole directory.")
    return start.require_unchanged(directory)


def insert_adapters(policy: PreTrainedModel, config: Any) -> None:
    """Put fresh adapters, as a `peft.LoraConfig` says, into a policy; nothing else of it learns from then on."""
    policy.add_adapter(config)
    config.base_model_name_or_path = None  # else peft asks the Hub, at every save, whether a vocabulary has grown


def attach_adapters(policy: PreTrainedModel, directory: Path) -> None:
    """Put the adapters of a checkpoint into the policy they were trained on."""
    try:
        from peft import LoraConfig
    except ImportError as problem:
        raise CheckpointError(
            f"{directory}: expected the package peft, which its adapters need, got: {problem}. "
            "Run `pip install 'menura[peft]'`, or merge them where it is installed."
        ) from problem
    policy.config.name_or_path = str(directory)  # a tokenizer is looked for there
    compute_alike(policy)
    insert_adapters(policy, LoraConfig.from_pretrained(str(directory)))
    load_adapters(policy, directory)


def load_adapters(policy: PreTrainedModel, directory: Path) -> None:
    """Give the adapters of a policy the weights that a checkpoint holds: all of them and no others."""
    from peft import set_peft_model_state_dict

    model: Any = policy
    stored = load_file(directory / WEIGHTS_FILE)
    weights = {name.removeprefix(_PEFT_PREFIX): value for name, value in stored.items()}
    if differing := sorted(weights.keys() ^ model.get_adapter_state_dict().keys()):
        raise CheckpointError(
            f"{directory}/{WEIGHTS_FILE}: expected the adapters of {type(policy).__name__}, differing in "
            f"{', '.join(differing[:3])}. The policy's code or training.peft changed since."
        )
    set_peft_model_state_dict(model, weights)


def load_base(policy: PreTrainedModel, directory: Path) -> None:
    """Give the base of a policy with adapters the weights of a checkpoint (quantized ones are made anew, alike)."""
    base = base_directory(directory)
    if base != directory / BASE or is_quantized(policy):
        return
    own, stored = base_weights(policy), load_file(base / "model.safetensors")
    if differing := sorted(own.keys() ^ stored.keys()):
        raise CheckpointError(
            f"{base}: expected the weights of {type(policy).__name__}, differing in {', '.join(differing[:3])}. "
            "The policy's code changed since; train into another output_dir."
        )
    for name, tensor in own.items():
        tensor.copy_(stored[name])


def base_weights(policy: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of the policy without its adapters, by the names they have there; tied ones once."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    added: list[str] = []
    wrapped: dict[str, str] = {}  # prefix in this policy -> in the base
    for name, module in policy.named_modules():
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            added += [f"{name}.{layer}." for layer in module.adapter_layer_names]
            inner = "base_layer" if isinstance(module, BaseTunerLayer) else "original_module"
            wrapped[f"{name}.{inner}."] = f"{name}."
    tied = getattr(policy, "all_tied_weights_keys", {})
    weights = {}
    for name, tensor in policy.state_dict().items():
        if name.startswith(tuple(added)):
            continue
        for prefix in sorted(wrapped, key=len, reverse=True):  # the innermost first
            if name.startswith(prefix):
                name = wrapped[prefix] + name.removeprefix(prefix)
        if name not in tied:
            weights[name] = tensor
    return weights


def merge_adapters(policy: PreTrainedModel) -> None:
    """Add what the adapters do to the weights below them, and take them away: an ordinary policy is left."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if is_quantized(policy):
        raise CheckpointError(
            f"{type(policy).__name__}: expected a base in full precision to merge adapters into, got one quantized to "
            "few bits, whose rounding would change the answers. Keep the adapters beside it."
        )
    model: Any = policy
    while found := [
        (name, module)
        for name, module in policy.named_modules()
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
    ]:
        name, module = found[0]
        layer: Any = module
        policy.set_submodule(name, _merged(layer))
    del model.peft_config
    model._hf_peft_config_loaded = False


def _merged(layer: Any) -> nn.Module:
    if hasattr(layer, "unload_and_optionally_merge_module"):
        merged: nn.Module = layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
    else:
        layer.merge(safe_merge=True)
        merged = layer.get_base_layer()
    return merged


def is_quantized(policy: nn.Module) -> bool:
    return getattr(policy, "hf_quantizer", None) is not None


def compute_alike(policy: nn.Module) -> None:
    """Let quantized layers compute in evaluation as they do in training.

    On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights when they are first used in evaluation, for a kernel
    that rounds to bfloat16, and that knows no layer whose inputs are not a multiple of 64.
    """
    for module in policy.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
