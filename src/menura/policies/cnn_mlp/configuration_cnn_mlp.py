"""Settings of `CNNMLPPolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig


class CNNMLPPolicyConfig(PretrainedConfig):
    """Settings of `CNNMLPPolicy`; the defaults make a network of about 113 000 parameters for one camera.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: an MLP on the state alone.
        image_size: (height, width) in pixels.
        image_normalize: how pixels are normalized.
        n_obs_steps: observations given, newest last.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        channels: feature maps of the encoder, each of which looks for one point; a multiple of 8.
        hidden_size: width of the two hidden layers.
    """

    model_type = "menura_cnn_mlp"

    def __init__(
        self,
        state_dim: int = 4,
        action_dim: int = 4,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (84, 84),
        image_normalize: str = "minus_one_one",
        n_obs_steps: int = 1,
        chunk_size: int = 8,
        n_action_steps: int = 4,
        channels: int = 32,
        hidden_size: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if channels < 8 or channels % 8:
            raise ValueError(f"expected channels to be a multiple of 8, got {channels}")
        if hidden_size < 1:
            raise ValueError(f"expected hidden_size of at least 1, got {hidden_size}")
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.channels = channels
        self.hidden_size = hidden_size
