"""Settings of `RDTPolicy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

#: google/siglip-so400m-patch14-384, its vision half without the pooling head.
SIGLIP_SO400M: Mapping[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
#: google/t5-v1_1-xxl, its encoder.
T5_XXL: Mapping[str, Any] = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


class RDTPolicyConfig(PretrainedConfig):
    """Settings of `RDTPolicy`; defaults of RDT-1B (Liu et al. 2024, arXiv 2410.07864, and `configs/base.yaml` of the
    authors' code) unless said otherwise.

    The authors' RDT-170M is `hidden_size: 1024`, `n_layers: 14`, `n_heads: 32`.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order, at most three in the authors' weights: exterior, right wrist, left wrist;
            filled in from the data. None or empty: language and state alone.
        image_size: (height, width) in pixels; as the vision encoder has it.
        image_normalize: how pixels are normalized; SigLIP's by default.
        n_obs_steps: observations given. Of all of them the images are read, of the last one the state.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`; the authors execute all.
        unified_dim: width of the unified vector that states and actions of all robots are laid in.
        state_indices: where each dimension of the state lies in it; None for 0, 1, 2, … The authors' meaning of each
            place is in `configs/state_vec.py` of their code (right arm's joints 0–9, its gripper 10–14, end effector
            30–38; left arm 50–59, …).
        action_indices: where each dimension of the action lies; None for that of the state, as the authors have it,
            when there are as many, or else 0, 1, 2, …
        control_frequency: actions a second, which the network is told; 0 is what it was told in training when it was
            to do without (a tenth of the samples).
        hidden_size: width of the transformer.
        n_layers: its blocks, which attend to language and images in turn.
        n_heads: attention heads.
        pretrained: a Hub id, such as `robotics-diffusion-transformer/rdt-1b`, or a directory of the same form to take
            the weights of transformer and adaptors from; None starts from random ones. Read when a policy is made for
            training, never when a checkpoint is loaded.
        vision_config: config of a SigLIP vision encoder of `transformers`, nested; SigLIP-so400m/14 at 384 pixels.
        pretrained_vision: a Hub id or a directory to take its weights from, such as
            `google/siglip-so400m-patch14-384`; None starts from random weights, which makes sense in tests alone, since
            the encoder is frozen. Read when a policy is made for training, never when a checkpoint is loaded.
        text_config: config of a T5 of `transformers`, nested, whose encoder reads the instruction; T5-v1.1-XXL.
        pretrained_text: as `pretrained_vision`, such as `google/t5-v1_1-xxl`.
        tokenizer: `bytes`, a Hub id or a directory.
        tokenizer_max_length: tokens of the instruction that are read; longer ones are cut.
        n_language_positions: learned positions of language tokens, at least `tokenizer_max_length`.
        n_train_steps: times of the diffusion in training.
        n_inference_steps: steps of DPM-Solver++ when acting.
    """

    model_type = "menura_rdt"

    def __init__(
        self,
        state_dim: int = 14,
        action_dim: int = 14,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (384, 384),
        image_normalize: str = "minus_one_one",
        n_obs_steps: int = 2,
        chunk_size: int = 64,
        n_action_steps: int = 64,
        unified_dim: int = 128,
        state_indices: Sequence[int] | None = None,
        action_indices: Sequence[int] | None = None,
        control_frequency: float = 25.0,
        hidden_size: int = 2048,
        n_layers: int = 28,
        n_heads: int = 32,
        pretrained: str | None = None,
        vision_config: Mapping[str, Any] | None = None,
        pretrained_vision: str | None = None,
        text_config: Mapping[str, Any] | None = None,
        pretrained_text: str | None = None,
        tokenizer: str = "google/t5-v1_1-xxl",
        tokenizer_max_length: int = 64,
        n_language_positions: int = 1024,
        n_train_steps: int = 1000,
        n_inference_steps: int = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if hidden_size % n_heads or hidden_size % 4:
            raise ValueError(
                f"expected hidden_size to be a multiple of n_heads and of 4, got {hidden_size} and {n_heads}"
            )
        if tokenizer_max_length > n_language_positions:
            raise ValueError(
                f"expected tokenizer_max_length of at most n_language_positions = {n_language_positions}, "
                f"got {tokenizer_max_length}"
            )
        if action_indices is None and state_indices is not None and len(state_indices) == action_dim:
            action_indices = state_indices
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.unified_dim = unified_dim
        self.state_indices = _indices("state", state_indices, state_dim, unified_dim)
        self.action_indices = _indices("action", action_indices, action_dim, unified_dim)
        self.control_frequency = control_frequency
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.pretrained = pretrained
        self.vision_config = dict(SIGLIP_SO400M if vision_config is None else vision_config)
        self.pretrained_vision = pretrained_vision
        self.text_config = dict(T5_XXL if text_config is None else text_config)
        self.pretrained_text = pretrained_text
        self.tokenizer = tokenizer
        self.tokenizer_max_length = tokenizer_max_length
        self.n_language_positions = n_language_positions
        self.n_train_steps = n_train_steps
        self.n_inference_steps = n_inference_steps
        if self.camera_names and self.image_size != [self.vision_config["image_size"]] * 2:
            side = self.vision_config["image_size"]
            raise ValueError(f"expected image_size [{side}, {side}], the vision encoder's, got {self.image_size}")


def _indices(name: str, given: Sequence[int] | None, dim: int, unified_dim: int) -> list[int]:
    """The place of each dimension in the unified vector."""
    indices = list(range(dim)) if given is None else list(given)
    if len(indices) != dim or len(set(indices)) != dim or any(not 0 <= i < unified_dim for i in indices):
        raise ValueError(
            f"expected {name}_indices to be {dim} different places from 0 to {unified_dim - 1}, got {indices}"
        )
    return indices
