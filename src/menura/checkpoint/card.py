"""The model card of a checkpoint: `README.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from menura.checkpoint.adapters import has_adapters, is_quantized
from menura.checkpoint.manifest import Code
from menura.checkpoint.start import Start
from menura.features import Features, VectorFeature
from menura.processing.processor import Processor
from menura.processing.settings import ProcessorSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

TEMPLATE = """\
---
library_name: menura
pipeline_tag: robotics
tags: [robotics, imitation-learning, menura]
---

# {name}

An imitation-learning policy with {parameters} parameters, {made}.

| | |
|---|---|
{rows}
{results}
## Use

```bash
menura eval -m .       # success rate in its environment, with interval and protocol
menura serve -m .      # answer observations over a websocket
```

```python
import menura

policy = menura.MetaPolicy.from_pretrained(".")  # checks hashes, then that it answers what it answered when saved
actions = policy.predict(observation)  # (B, T, A), physical units
```

Without Menura, `transformers.AutoModel.from_pretrained(".", trust_remote_code=True)` loads the network alone: its
inputs must then be normalized as `processor_config.json` and `normalizer.safetensors` say.
"""


def model_card(
    policy: PreTrainedModel,
    code: Code,
    processor: Processor,
    features: Features,
    datasets: Mapping[str, str],
    seed: int,
    results: str | None,
    start: Start | None = None,
    converted: str | None = None,
) -> str:
    """What it is, what it was trained on or converted from, what it sees and does, how to use it."""
    settings = processor.settings
    height_width = "" if settings.image_size is None else f" at {settings.image_size[0]} × {settings.image_size[1]}"
    rows = {
        "policy": f"`{code.name}` ({code.file})",
        "data" if converted is None else "files": _prints(datasets) or "not said",
        "state": _vector(features.state) + f", {settings.state}",
        "action": _vector(features.action) + f", {settings.action}",
        "cameras": (", ".join(settings.camera_names) or "none") + height_width,
        "control": " ".join(filter(None, (features.control_space, features.control_type))) or "not said",
        "trained": _trained(settings),
        "began with": _start(start),
        "adapters": _adapters(policy),
        "rate": f"{features.fps:g} Hz" if features.fps else "not said",
        "seed": str(seed) if converted is None else None,
        "blind": "yes: a baseline that does not see the object" if settings.blind else "no",
    }
    return TEMPLATE.format(
        name=code.name,
        parameters=f"{sum(parameter.numel() for parameter in policy.parameters()):,}",
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items() if value),
        made="trained with Menura" if converted is None else "converted from another program's checkpoint",
        results=_section("Where it is from", converted) + _section("Results", results),
    )


def _prints(datasets: Mapping[str, str]) -> str:
    return ", ".join(f"{name} (`{fingerprint[:12]}`)" for name, fingerprint in datasets.items())


def _section(title: str, text: str | None) -> str:
    return f"\n## {title}\n\n{text.strip()}\n" if text else ""


def _trained(settings: ProcessorSettings) -> str:
    """The control space of what the policy learnt; its answers are turned back."""
    rotations = [
        f"{what} rotations as {representation}"
        for what, representation in (("action", settings.action_rotation), ("state", settings.state_rotation))
        if representation is not None
    ]
    return ", ".join([f"{settings.action_type} actions", *rotations])


def _start(start: Start | None) -> str | None:
    if start is None:
        return None
    counts = {
        "taken": len(start.matched),
        "resized": len(start.resized),
        "not taken": len(start.mismatched),
        "new": len(start.new),
    }
    return f"`{start.source}`: " + ", ".join(f"{count} weights {what}" for what, count in counts.items() if count)


def _adapters(policy: PreTrainedModel) -> str | None:
    if not has_adapters(policy):
        return None
    configs: Any = policy.peft_config
    (config,) = configs.values()
    base = ", on a quantized base" if is_quantized(policy) else ""
    return f"{'DoRA' if config.use_dora else 'LoRA'} of rank {config.r}{base}"


def _vector(feature: VectorFeature | None) -> str:
    if feature is None:
        return "none"
    shown = ", ".join(feature.names[:8]) + (", …" if feature.dim > 8 else "")
    return f"{feature.dim}: {shown}"
