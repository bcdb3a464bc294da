"""Settings of `BCRNNPolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

from ..common.resnet import check_resnet


class BCRNNPolicyConfig(PretrainedConfig):
    """Settings of `BCRNNPolicy`; defaults of robomimic's BC-RNN-GMM (Mandlekar et al. 2021, arXiv 2108.03298; `rnn`
    and `gmm` in robomimic's `config/bc_config.py`) unless said otherwise.

    The paper trains with Adam, learning rate 1e-4, batch size 100 on state and 16 on images, and a hidden size of 400
    on state and 1000 on images.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: state alone.
        image_size: (height, width) in pixels.
        crop_shape: (height, width) of what is seen of an image, its centre; in training a place drawn at random, as in
            the paper (76 of 84 pixels). None: all of it.
        image_normalize: how pixels are normalized.
        n_obs_steps: observations the LSTM is unrolled over, newest last: the paper's sequence length, or horizon.
        chunk_size: actions predicted at every step. The paper predicts 1.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        hidden_size: width of the LSTM.
        n_layers: layers of the LSTM.
        dropout: share dropped between the layers of the LSTM in training, in [0, 1).
        n_modes: Gaussians in the mixture.
        min_std: added to every standard deviation, so that the likelihood stays bounded. Demonstrations of a scripted
            expert, which repeats itself exactly, drive the others to 0; a larger one keeps gradients even.
        bounded_means: squash the means into [-1, 1] by tanh, as the paper does. It needs actions that lie there
            (`processor: {action: minmax}`), and is therefore off by default.
        low_noise_std: standard deviation of every Gaussian when acting, so that what is drawn is which mode to follow;
            None draws with the predicted ones.
        image_feature_size: numbers that an image becomes.
        n_keypoints: image points that are looked for in each image, by spatial softmax.
        backbone_widths: feature maps of the ResNet's four stages; the default with `backbone_depths` is ResNet-18.
        backbone_depths: blocks of each stage.
        pretrained_backbone: a Hub id or a directory of a `transformers` ResNet with these widths and depths, such as
            `microsoft/resnet-18`; None, as in the paper, starts from random weights. It is read when a policy is made
            for training, never when a checkpoint is loaded.
    """

    model_type = "menura_bc_rnn"

    def __init__(
        self,
        state_dim: int = 14,
        action_dim: int = 14,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (84, 84),
        crop_shape: Sequence[int] | None = None,
        image_normalize: str = "minus_one_one",
        n_obs_steps: int = 10,
        chunk_size: int = 1,
        n_action_steps: int = 1,
        hidden_size: int = 400,
        n_layers: int = 2,
        dropout: float = 0.0,
        n_modes: int = 5,
        min_std: float = 1e-4,
        bounded_means: bool = False,
        low_noise_std: float | None = 1e-4,
        image_feature_size: int = 64,
        n_keypoints: int = 32,
        backbone_widths: Sequence[int] = (64, 128, 256, 512),
        backbone_depths: Sequence[int] = (2, 2, 2, 2),
        pretrained_backbone: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(hidden_size, n_layers, n_modes) < 1:
            raise ValueError(
                f"expected hidden_size, n_layers and n_modes of at least 1, got {hidden_size}, {n_layers} and {n_modes}"
            )
        if min_std <= 0 or (low_noise_std is not None and low_noise_std < 0):
            raise ValueError(
                f"expected min_std above 0 and low_noise_std of at least 0, got {min_std} and {low_noise_std}"
            )
        if not state_dim and not camera_names:
            raise ValueError("expected a state_dim above 0 or a camera in camera_names, got neither")
        check_resnet(backbone_widths, backbone_depths, "group" if pretrained_backbone is None else "frozen_batch")
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.crop_shape = None if crop_shape is None else list(crop_shape)
        self.image_normalize = image_normalize
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.dropout = dropout
        self.n_modes = n_modes
        self.min_std = min_std
        self.bounded_means = bounded_means
        self.low_noise_std = low_noise_std
        self.image_feature_size = image_feature_size
        self.n_keypoints = n_keypoints
        self.backbone_widths = list(backbone_widths)
        self.backbone_depths = list(backbone_depths)
        self.pretrained_backbone = pretrained_backbone

    @property
    def action_offsets(self) -> list[int]:
        """Actions in training, as frames relative to now: a chunk begins at every observation of the window."""
        return list(range(1 - self.n_obs_steps, self.chunk_size))
