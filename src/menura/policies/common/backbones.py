"""Models of `transformers` as parts of a policy: by a nested config, or pretrained by a Hub id or directory."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, SiglipTextConfig, SiglipTextModel

Source = str | Mapping[str, Any]


def build_backbone(source: Source, half: str | None = None) -> PreTrainedModel:
    """The model that `source` names, in float32.

    A policy keeps `settings_of` the model in its own config, in place of a name, so that its checkpoints are built from
    settings alone and filled with their own weights: neither the Hub nor the directory is asked again.

    Args:
        source: a Hub id or a directory, for pretrained weights; or the settings of a config, with `model_type`, for
            random ones.
        half: of a model for images and text, the one to take: `vision_model` or `text_model`. Of a model that reads and
            writes text, `text_model` is its encoder.
    """
    if isinstance(source, str):
        if torch.empty(0).is_meta:
            raise ValueError(f"expected settings on the meta device, got {source!r}, whose weights say how large it is")
        model: PreTrainedModel = AutoModel.from_pretrained(source, dtype=torch.float32)
    else:
        model = _from_settings(source)
    if half is not None and hasattr(model, half):
        return getattr(model, half)  # type: ignore[no-any-return]
    if half == "text_model" and model.config.is_encoder_decoder:
        encoder: PreTrainedModel = model.get_encoder()
        return encoder
    return model


def settings_of(model: PreTrainedModel) -> dict[str, Any]:
    """Settings (JSON-able) of which `build_backbone` makes the same model, with random weights."""
    settings: dict[str, Any] = model.config.to_diff_dict()
    settings.pop("dtype", None)  # a policy's own, which all of its parts follow
    return {"model_type": model.config.model_type, **settings}


def misspelt(settings: Mapping[str, Any], config: PretrainedConfig) -> list[tuple[str, set[str]]]:
    """Settings that the config would swallow, each with all that it knows.

    Of those that a user wrote: what `transformers` wrote down may be of an earlier version, and is not misspelt.
    """
    if "transformers_version" in settings:
        return []
    known = {*type(config)().to_dict(), *config.attribute_map}
    return [(name, known) for name in sorted(settings.keys() - known)]


def _from_settings(settings: Mapping[str, Any]) -> PreTrainedModel:
    if "model_type" not in settings:
        raise ValueError(f"expected the settings of a transformers model with a model_type, got {dict(settings)}")
    config = AutoConfig.for_model(**settings)
    for name, known in misspelt(settings, config):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"expected settings of {type(config).__name__}, got {name!r}{hint}")
    if isinstance(config, SiglipTextConfig):  # which AutoModel does not know
        return SiglipTextModel(config)
    model: PreTrainedModel = AutoModel.from_config(config)
    return model
